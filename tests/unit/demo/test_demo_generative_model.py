"""Inference of the demo's agents against enumeration of every trajectory of the hidden states."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from freeagentics_persistence.demo.generative_model import (
    ACTIONS,
    FACTORS,
    LEVELS,
    SHIFT,
    UNSEEN,
    GenerativeModel,
    entropy,
    variational_free_energy,
)

MODEL = GenerativeModel.of_demand()
OPPOSITE = {direction: 1 + (direction + 2) % 6 for direction in range(1, 7)}
sign = st.integers(0, LEVELS - 1)


def distributions(*shape: int) -> st.SearchStrategy[np.ndarray]:
    weights = hnp.arrays(np.float64, shape, elements=st.floats(0.01, 1))
    return weights.map(lambda w: w / w.sum(axis=-1, keepdims=True))


def test_the_model_is_made_of_distributions() -> None:
    np.testing.assert_allclose(MODEL.A.sum(axis=0), 1)
    np.testing.assert_allclose(MODEL.B.sum(axis=0), 1)
    np.testing.assert_allclose(np.exp(MODEL.C).sum(), 1)
    np.testing.assert_allclose(MODEL.D.sum(), 1)
    np.testing.assert_allclose(MODEL.B @ MODEL.D, MODEL.D)
    assert min(MODEL.A.min(), MODEL.B.min()) >= 0


def test_the_window_moves_as_the_agent_moves() -> None:
    assert (SHIFT[0] == np.arange(FACTORS)).all()
    for direction, back in OPPOSITE.items():
        assert SHIFT[direction, 0] == direction
        assert SHIFT[direction, back] == 0
        assert (SHIFT[direction] == UNSEEN).sum() == 3


def walk(actions: list[int], signs: list[int]) -> tuple[np.ndarray, float]:
    """Beliefs (7, K) and summed free energy of one agent that does and sees this."""
    qs, total = MODEL.unseen(1), 0.0
    for action, seen in zip(actions, signs, strict=True):
        qs, free_energy = MODEL.infer_states(MODEL.predict(qs, np.array([action])), np.array([seen]))
        total += float(free_energy[0])
    return qs[0], total


def enumerate_trajectories(visits: list[int], signs: list[int], cells: int) -> tuple[np.ndarray, float]:
    """P(level of each cell at the end | signs) (cells, K) and P(signs), summing over all trajectories."""
    posterior, evidence = np.zeros((cells, LEVELS)), 1.0
    for cell in range(cells):
        for levels in product(range(LEVELS), repeat=len(signs)):
            p = MODEL.D[levels[0]] * np.prod([MODEL.B[b, a] for a, b in pairwise(levels)])
            shown = [MODEL.A[s, at] for v, s, at in zip(visits, signs, levels, strict=True) if v == cell]
            posterior[cell, levels[-1]] += p * np.prod(shown)
        evidence *= posterior[cell].sum()
    return posterior / posterior.sum(axis=1, keepdims=True), evidence


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 6), st.lists(st.booleans(), min_size=4, max_size=4), st.lists(sign, min_size=4, max_size=4))
def test_beliefs_and_free_energy_match_enumeration(direction: int, moves: list[bool], signs: list[int]) -> None:
    """An agent that goes to and fro between two cells keeps both in view."""
    at, actions, visits = 0, [], []
    for move in moves:
        actions.append((OPPOSITE[direction] if at else direction) if move else 0)
        at ^= move
        visits.append(int(at))
    qs, free_energy = walk(actions, signs)
    posterior, evidence = enumerate_trajectories(visits, signs, cells=2)
    other = OPPOSITE[direction] if at else direction
    np.testing.assert_allclose(qs[0], posterior[int(at)], atol=1e-12)
    np.testing.assert_allclose(qs[other], posterior[1 - int(at)], atol=1e-12)
    assert free_energy == pytest.approx(-np.log(evidence), abs=1e-9)


@given(st.lists(sign, min_size=1, max_size=5), st.integers(1, 6))
def test_a_cell_out_of_view_is_forgotten(signs: list[int], direction: int) -> None:
    qs, _ = walk([0] * len(signs) + [direction] * 2 + [OPPOSITE[direction]] * 2, [*signs, 0, 0, 0, 0])
    fresh, _ = walk([direction] * 2 + [OPPOSITE[direction]] * 2, [0, 0, 0, 0])
    np.testing.assert_allclose(qs, fresh, atol=1e-12)


@given(distributions(LEVELS), distributions(LEVELS), sign)
def test_free_energy_bounds_surprise_and_the_exact_posterior_reaches_it(
    q: np.ndarray, prior: np.ndarray, seen: int
) -> None:
    surprise = -np.log(MODEL.A[seen] @ prior)
    exact = MODEL.A[seen] * prior / (MODEL.A[seen] @ prior)
    assert variational_free_energy(q, prior, MODEL.A[seen]) >= surprise - 1e-9
    assert variational_free_energy(exact, prior, MODEL.A[seen]) == pytest.approx(surprise, abs=1e-9)


@given(distributions(3, FACTORS, LEVELS))
def test_expected_free_energy_is_risk_plus_ambiguity(qs: np.ndarray) -> None:
    for agent, u in product(range(3), range(ACTIONS)):
        states = MODEL.B @ qs[agent, u]
        signs = MODEL.A @ states
        risk = sum(p * (np.log(p) - c) for p, c in zip(signs, MODEL.C, strict=True))
        ambiguity = -sum(states[s] * sum(a * np.log(a) for a in MODEL.A[:, s]) for s in range(LEVELS))
        assert MODEL.expected_free_energy(qs)[agent, u] == pytest.approx(risk + ambiguity, abs=1e-9)


@given(distributions(4, FACTORS, LEVELS), hnp.arrays(np.bool_, (4, ACTIONS)))
def test_only_possible_actions_are_chosen(qs: np.ndarray, possible: np.ndarray) -> None:
    possible[:, 0] = True
    policy = MODEL.policy(qs, possible)
    np.testing.assert_allclose(policy.sum(axis=1), 1)
    assert (policy[~possible] == 0).all()


def test_agents_prefer_high_demand_and_what_they_do_not_know() -> None:
    sure_low, sure_high = np.eye(LEVELS)[0], np.eye(LEVELS)[-1]
    qs = np.stack([sure_low, sure_high, *[sure_low] * 5])[None]
    assert MODEL.policy(qs, np.ones((1, ACTIONS), dtype=bool))[0].argmax() == 1
    middle, unsure = np.eye(LEVELS)[2], np.array([0.5, 0, 0, 0, 0.5])
    gain = MODEL.expected_free_energy(np.stack([middle, unsure, *[middle] * 5])[None])[0]
    pragmatic = (np.stack([middle, unsure]) @ MODEL.B.T @ MODEL.A.T) @ MODEL.C
    assert gain[1] + pragmatic[1] < gain[0] + pragmatic[0]


def test_entropy_is_in_nats_and_zero_for_certainty() -> None:
    assert entropy(np.eye(LEVELS)).tolist() == [0] * LEVELS
    np.testing.assert_allclose(entropy(np.full(LEVELS, 1 / LEVELS)), np.log(LEVELS))
