"""Rings of cells: grid distance is the least number of steps, also around the pentagons."""

from __future__ import annotations

import h3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freeagentics_persistence.domain.locations import cell_to_int, disk, int_to_cell, resolution_span, rings

PENTAGON = h3.get_pentagons(9)[0]


def by_steps(origin: str, radius: int) -> list[set[str]]:
    """Breadth first, from neighbour to neighbour."""
    found, edge = [{origin}], {origin}
    seen = {origin}
    for _ in range(radius):
        edge = {near for cell in edge for near in h3.grid_disk(cell, 1)} - seen
        seen |= edge
        found.append(edge)
    return found


@pytest.mark.parametrize("origin", [h3.latlng_to_cell(52.37, 4.90, 9), PENTAGON, h3.grid_ring(PENTAGON, 2)[0]])
def test_rings_are_what_steps_reach(origin: str) -> None:
    found = rings(origin, 6)
    assert [{int_to_cell(cell) for cell in ring} for ring in found] == by_steps(origin, 6)
    assert sum(len(ring) for ring in found) == len(set(disk(origin, 6)))


@given(st.floats(-90, 90), st.floats(-180, 180), st.integers(0, 15))
def test_cells_lie_in_the_span_of_their_resolution(latitude: float, longitude: float, resolution: int) -> None:
    cell = cell_to_int(h3.latlng_to_cell(latitude, longitude, resolution))
    assert [low <= cell < high for low, high in map(resolution_span, range(16))].index(True) == resolution
    assert sum(low <= cell < high for low, high in map(resolution_span, range(16))) == 1
