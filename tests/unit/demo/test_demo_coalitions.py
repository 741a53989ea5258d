"""Coalitions form among neighbours who agree, earn by what they know, and end."""

from __future__ import annotations

from decimal import Decimal

import h3
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from freeagentics_persistence.demo.city import City, World
from freeagentics_persistence.demo.coalitions import (
    FOUNDERS,
    LARGEST,
    SIMILAR,
    SMALLEST,
    Coalition,
    Coalitions,
    Round,
    jensen_shannon,
)
from freeagentics_persistence.demo.generative_model import LEVELS, GenerativeModel
from freeagentics_persistence.demo.swarm import Swarm


def make_coalitions(agents: int, seed: int = 3) -> tuple[Swarm, Coalitions]:
    rng = np.random.default_rng(seed)
    model = GenerativeModel.of_demand()
    swarm = Swarm(agents, World(City.amsterdam(agents), model.B, model.D, rng), model, rng)
    return swarm, Coalitions(swarm, rng)


def play(swarm: Swarm, coalitions: Coalitions, rounds: int) -> list[Round]:
    played = []
    for _ in range(rounds):
        for _ in range(4):
            swarm.step()
        played.append(coalitions.play_round())
    return played


def test_nobody_is_in_two_coalitions_and_sizes_keep_their_bounds() -> None:
    swarm, coalitions = make_coalitions(300)
    for _ in range(8):
        play(swarm, coalitions, 1)
        members = [member for coalition in coalitions.active for member in coalition.members]
        assert len(members) == len(set(members)) > 0
        assert all(SMALLEST <= len(coalition.members) <= LARGEST for coalition in coalitions.active)


def test_those_who_form_one_are_neighbours_and_agree() -> None:
    swarm, coalitions = make_coalitions(300)
    formed = play(swarm, coalitions, 3)[-1].formed
    assert formed
    for coalition in formed:
        assert len(coalition.members) >= FOUNDERS
        founder, *others = coalition.members
        cell = swarm.positions[founder]
        assert coalition.seat == cell
        for other in others:
            cells = swarm.world.city.cells
            assert h3.grid_distance(cells[cell], cells[swarm.positions[other]]) <= 1
            view = swarm.windows[other] == cell
            assert jensen_shannon(swarm.qs[other][view][0], swarm.qs[founder, 0]) <= SIMILAR


def test_members_stay_within_two_steps_of_their_founder() -> None:
    swarm, coalitions = make_coalitions(300)
    rounds = play(swarm, coalitions, 8)
    assert any(r.left for r in rounds)
    cells = swarm.world.city.cells
    for coalition in coalitions.active:
        founder = cells[swarm.positions[coalition.members[0]]]
        assert all(h3.grid_distance(founder, cells[swarm.positions[m]]) <= 2 for m in coalition.members)


def test_coalitions_come_and_go() -> None:
    swarm, coalitions = make_coalitions(300)
    rounds = play(swarm, coalitions, 8)
    formed = [coalition for r in rounds for coalition in r.formed]
    dissolved = [coalition for r in rounds for coalition in r.dissolved]
    assert dissolved
    assert len({coalition.number for coalition in formed}) == len(formed)
    assert {c.number for c in formed} - {c.number for c in dissolved} == {c.number for c in coalitions.active}


def test_earnings_add_up_to_the_cent() -> None:
    swarm, coalitions = make_coalitions(300)
    rounds = play(swarm, coalitions, 6)
    for coalition in coalitions.active:
        earned = [e.revenue for r in rounds for e in r.earnings if e.coalition is coalition]
        assert sum(earned, Decimal(0)) == coalition.revenue
        assert all(amount >= 0 and amount == round(amount, 2) for amount in earned)
        assert 0 < coalition.efficiency <= 1


def test_knowing_the_demand_pays_and_being_wrong_does_not() -> None:
    swarm, coalitions = make_coalitions(40)
    members = [0, 1, 2, 3]
    swarm.positions[members] = np.flatnonzero((swarm.world.city.window != -1).all(axis=1))[0]
    swarm.world.levels[swarm.positions[0]] = LEVELS - 1
    sure = np.full((LEVELS, LEVELS), 1e-9) + np.eye(LEVELS)

    def earn(believed_level: int) -> tuple[Decimal, float, set[Decimal]]:
        swarm.qs[members] = sure[believed_level] / sure[believed_level].sum()
        coalitions.active = [Coalition(0, 0, members)]
        earning = coalitions.play_round().earnings[0]
        return earning.revenue, earning.efficiency, set(earning.scores.values())

    revenue, efficiency, scores = earn(LEVELS - 1)
    assert revenue == Decimal("12.50") * (LEVELS - 1)
    assert efficiency == pytest.approx(1)
    assert scores == {100}
    revenue, efficiency, scores = earn(0)
    assert scores == {revenue} == {0}
    assert efficiency < 1e-6


def test_a_pool_is_the_geometric_mean_of_those_who_see_the_cell() -> None:
    swarm, coalitions = make_coalitions(40)
    inner = int(np.flatnonzero((swarm.world.city.window != -1).all(axis=1))[0])
    swarm.positions[[0, 1]] = inner
    swarm.positions[2] = swarm.world.city.window[inner, 2]
    swarm.qs = np.random.default_rng(0).dirichlet(np.ones(LEVELS), size=swarm.qs.shape[:2])
    seen_by_two = int(np.flatnonzero(swarm.windows[2] == inner)[0])
    expected = (swarm.qs[0, 0] * swarm.qs[1, 0] * swarm.qs[2, seen_by_two]) ** (1 / 3)
    np.testing.assert_allclose(coalitions.pool([0, 1, 2], inner), expected / expected.sum())


weights = hnp.arrays(np.float64, (2, LEVELS), elements=st.floats(0, 1)).filter(lambda w: (w.sum(axis=1) > 0.01).all())


@given(weights)
def test_jensen_shannon_divergence_is_symmetric_and_bounded(w: np.ndarray) -> None:
    p, q = w / w.sum(axis=1, keepdims=True)
    assert jensen_shannon(p, q) == pytest.approx(jensen_shannon(q, p))
    assert -1e-12 <= jensen_shannon(p, q) <= np.log(2) + 1e-12
    assert jensen_shannon(p, p) == pytest.approx(0, abs=1e-12)
