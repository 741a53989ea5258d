"""Divergences between batches are those of their rows, however these are laid out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freeagentics_persistence import BeliefBatch, Beliefs, Factor
from freeagentics_persistence.domain.beliefs.divergences import distances, divergences
from freeagentics_persistence.errors import InvalidInput
from tests.unit.domain.belief_strategies import beliefs

RAW = Factor(np.array([1, 2]), "raw", "state")


def alone(left: Beliefs | None, right: Beliefs | None) -> float:
    """What Beliefs.divergence() says of one row."""
    if left is None or right is None:
        return np.nan
    try:
        found = left.divergence(right)
    except InvalidInput:
        return np.inf
    return np.nan if found is None else found


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example])
@given(rows=st.lists(st.tuples(st.none() | beliefs(), st.none() | beliefs()), max_size=4), same=st.booleans())
def test_rows_of_batches_are_compared_as_if_alone(
    rows: list[tuple[Beliefs | None, Beliefs | None]], same: bool
) -> None:
    pairs = [(left, left) for left, _ in rows] + rows if same else rows
    left, right = (BeliefBatch.from_rows([pair[side] for pair in pairs]) for side in (0, 1))
    expected = [alone(*pair) for pair in pairs]
    np.testing.assert_allclose(divergences(left, right), expected, rtol=1e-9)
    far = distances(left, right)
    assert not np.isnan(far).any()
    for value, one, (a, b) in zip(far.tolist(), expected, pairs, strict=True):
        assert value == np.inf or value == pytest.approx(0.0 if np.isnan(one) else one)
        assert value < np.inf or a is None or a is not b or not np.isfinite(one)


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ([0.0, 1.0], [0.5, 0.5], np.log(2)),
        ([0.5, 0.5], [0.0, 1.0], np.inf),
        ([0.0, 1.0], [0.0, 1.0], 0.0),
        ([RAW], [RAW], 0.0),
        ([RAW], [Factor(np.array([1, 3]), "raw", "state")], np.inf),
        ([RAW], [Factor(np.array([1.0, 2.0]), "raw", "state")], np.inf),
        ([Factor(np.empty(0), "raw", "x")], [Factor(np.empty(0), "raw", "x")], 0.0),
        ([0.5, 0.5], [0.2, 0.3, 0.5], np.inf),
        # beyond float64 there is no telling how far it is
        ([Factor([[0.0], [1e308]], "gaussian")], [Factor([[0.0], [1e-308]], "gaussian")], np.inf),
    ],
)
def test_distances_pass_over_nothing(left: list[object], right: list[object], expected: float) -> None:
    rows = [BeliefBatch.from_rows([Beliefs(side), Beliefs.uniform(7)]) for side in (left, right)]  # type: ignore[arg-type]
    np.testing.assert_allclose(distances(*rows), [expected, 0.0])
