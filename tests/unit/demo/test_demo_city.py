"""The city's cells and the drift of its demand."""

from __future__ import annotations

import h3
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freeagentics_persistence.demo.city import AMSTERDAM, DIRECTIONS, NOWHERE, RESOLUTION, City, World, draw
from freeagentics_persistence.demo.generative_model import GenerativeModel


@pytest.fixture(scope="module")
def city() -> City:
    return City.around(*AMSTERDAM, radius=4)


def test_the_cells_are_the_disk_around_the_place(city: City) -> None:
    centre = h3.latlng_to_cell(*AMSTERDAM, RESOLUTION)
    assert set(city.cells) == set(h3.grid_disk(centre, 4))
    assert len(city.cells) == 61


def test_a_window_is_the_cell_and_its_neighbours_in_the_city(city: City) -> None:
    for number, window in enumerate(city.window):
        seen = {city.cells[n] for n in window if n != NOWHERE}
        assert city.cells[window[0]] == city.cells[number]
        assert seen == set(h3.grid_disk(city.cells[number], 1)) & set(city.cells)


def test_going_one_way_and_back_ends_where_it_began(city: City) -> None:
    for direction in range(1, 7):
        back = 1 + (direction - 1 + 3) % 6
        there = city.window[:, direction]
        inside = there != NOWHERE
        assert (city.window[there[inside], back] == np.flatnonzero(inside)).all()


def test_directions_are_in_order_around_the_cell(city: City) -> None:
    centre = city.cells.index(h3.latlng_to_cell(*AMSTERDAM, RESOLUTION))
    around = [city.cells[n] for n in city.window[centre, 1:]]
    assert all(h3.are_neighbor_cells(a, b) for a, b in zip(around, [*around[1:], around[0]], strict=True))
    assert len(DIRECTIONS) == 6


def test_the_text_map_has_a_place_for_each_cell_and_neighbours_touch(city: City) -> None:
    assert len({tuple(place) for place in city.grid}) == len(city.cells)
    for number, window in enumerate(city.window):
        for n in window[1:][window[1:] != NOWHERE]:
            rows, columns = np.abs(city.grid[number] - city.grid[n])
            assert (rows, columns) in {(0, 2), (1, 1)}


def test_north_is_up(city: City) -> None:
    latitude = np.array([h3.cell_to_latlng(cell)[0] for cell in city.cells])
    assert np.corrcoef(latitude, city.grid[:, 0])[0, 1] < -0.8


@pytest.mark.parametrize("agents", [1, 500, 10_000])
def test_a_city_grows_with_its_swarm(agents: int) -> None:
    cells = len(City.amsterdam(agents).cells)
    assert cells >= 19
    assert agents <= 2 * cells <= max(38, 1.5 * agents)


def test_levels_drift_as_the_transition_says(city: City) -> None:
    model = GenerativeModel.of_demand()
    world = World(city, model.B, model.D, np.random.default_rng(1))
    moves = np.zeros_like(model.B)
    for _ in range(1500):
        before = world.levels
        world.drift()
        np.add.at(moves, (world.levels, before), 1)
    np.testing.assert_allclose(moves / moves.sum(axis=0), model.B, atol=0.02)
    np.testing.assert_allclose(moves.sum(axis=0) / moves.sum(), model.D, atol=0.04)


def test_one_seed_gives_one_world(city: City) -> None:
    model = GenerativeModel.of_demand()
    one, two = (World(city, model.B, model.D, np.random.default_rng(5)) for _ in range(2))
    for _ in range(10):
        one.drift()
        two.drift()
    assert (one.levels == two.levels).all()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6).filter(lambda p: sum(p) > 1e-6), st.integers(0, 2**32))
def test_draws_have_a_probability(weights: list[float], seed: int) -> None:
    p = np.array(weights) / sum(weights)
    drawn = draw(np.tile(np.cumsum(p), (50, 1)), np.random.default_rng(seed))
    assert (p[drawn] > 0).all()
