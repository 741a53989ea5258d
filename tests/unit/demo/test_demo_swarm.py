"""A swarm that walks its city, and learns about it."""

from __future__ import annotations

import numpy as np
import pytest

from freeagentics_persistence.demo.city import NOWHERE, City, World
from freeagentics_persistence.demo.generative_model import FACTORS, LEVELS, GenerativeModel
from freeagentics_persistence.demo.swarm import Swarm


def make_swarm(agents: int, seed: int = 3) -> Swarm:
    rng = np.random.default_rng(seed)
    model = GenerativeModel.of_demand()
    return Swarm(agents, World(City.amsterdam(agents), model.B, model.D, rng), model, rng)


@pytest.fixture(scope="module")
def record() -> dict[str, np.ndarray]:
    """What 400 agents believed over 60 steps, one row a step."""
    swarm = make_swarm(400)
    rows: dict[str, list[np.ndarray]] = {"entropy": [swarm.entropy], "truth": [], "free_energy": [], "prior": []}
    for _ in range(60):
        swarm.step()
        rows["entropy"].append(swarm.entropy)
        rows["truth"].append(swarm.belief_in_truth())
        rows["free_energy"].append(swarm.free_energy)
        rows["prior"].append(swarm.model.D[swarm.world.levels[swarm.positions]])
    return {name: np.stack(values) for name, values in rows.items()}


def test_uncertainty_falls(record: dict[str, np.ndarray]) -> None:
    mean = record["entropy"].mean(axis=1)
    assert mean[1] < mean[0]
    assert mean[-20:].max() < mean[0] - 1


def test_beliefs_in_the_truth_beat_chance_and_the_prior(record: dict[str, np.ndarray]) -> None:
    late = record["truth"][20:].mean()
    assert late > 3 / LEVELS
    assert late > record["prior"][20:].mean() + 0.3


def test_beliefs_are_calibrated(record: dict[str, np.ndarray]) -> None:
    """Free energy is the mean surprise: below that of an agent that knows only the prior or nothing."""
    assert record["free_energy"].min() > 0
    assert record["free_energy"][20:].mean() < np.log(LEVELS) - 0.2


def test_beliefs_stay_distributions_and_agents_stay_in_the_city() -> None:
    swarm = make_swarm(60)
    for _ in range(200):
        before = swarm.windows
        swarm.step()
        assert (before == swarm.positions[:, None]).any(axis=1).all()
    assert swarm.qs.shape == (60, FACTORS, LEVELS)
    assert (swarm.positions != NOWHERE).all()
    np.testing.assert_allclose(swarm.qs.sum(axis=-1), 1, atol=1e-12)


def test_the_world_drifts_once_a_step() -> None:
    swarm = make_swarm(60)
    changed = 0
    for _ in range(20):
        before = swarm.world.levels
        swarm.step()
        assert np.abs(swarm.world.levels - before).max() <= 1
        changed += int((swarm.world.levels != before).sum())
    assert 0 < changed < 20 * len(swarm.world.levels) / 4


def test_agents_find_higher_demand_than_the_city_has_on_average() -> None:
    swarm = make_swarm(400)
    for _ in range(60):
        swarm.step()
    assert swarm.world.levels[swarm.positions].mean() > swarm.world.levels.mean() + 0.5


def test_one_seed_gives_one_history() -> None:
    one, two, other = make_swarm(50, seed=9), make_swarm(50, seed=9), make_swarm(50, seed=10)
    for swarm in (one, two, other):
        for _ in range(15):
            swarm.step()
    assert (one.qs == two.qs).all()
    assert not (one.qs == other.qs).all()
