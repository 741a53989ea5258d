"""Batches: dense and ragged ones agree row by row, and one row's fault is its own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freeagentics_persistence.domain.beliefs.batch import BeliefBatch, as_batch
from freeagentics_persistence.domain.beliefs.beliefs import Beliefs, Factor
from freeagentics_persistence.domain.beliefs.families import Family
from freeagentics_persistence.errors import InvalidInput
from tests.unit.domain.belief_strategies import beliefs, seeds, values_of


@given(st.lists(beliefs() | st.none(), max_size=6))
@settings(max_examples=60, deadline=None)
def test_rows_come_back_from_payloads(rows: list[Beliefs | None]) -> None:
    batch = BeliefBatch.from_rows(rows)
    present = np.flatnonzero(batch.present)
    payloads = batch.payloads_of(present)
    assert payloads == [row.to_bytes() for row in rows if row is not None]
    stored: list[bytes | None] = [None] * len(rows)
    for row, payload in zip(present.tolist(), payloads, strict=True):
        stored[row] = bytes(payload)
    assert list(BeliefBatch.from_payloads(stored)) == rows == list(batch)


@given(seeds, st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_dense_and_ragged_batches_agree(seed: int, count: int) -> None:
    columns = [
        values_of(Family.CATEGORICAL, "float32", (count, 1, 4), seed),
        np.random.default_rng(seed).gamma(1.0, size=(count, 2)) + 0.1,
        values_of(Family.RAW, "int64", (count, 3), seed),
    ]
    dense = BeliefBatch(columns, families=["categorical", "gamma", "raw"], names=["q", "rate", "key"])
    rows = [
        Beliefs([Factor(q, "categorical", "q"), Factor(rate, "gamma", "rate"), Factor(key, "raw", "key")])
        for q, rate, key in zip(*columns, strict=True)
    ]
    ragged = BeliefBatch.from_rows([*rows, Beliefs([1.0])])
    assert dense.is_dense
    assert not ragged.is_dense
    assert list(dense) == rows == list(ragged)[:-1]
    every = np.arange(count)
    assert dense.payloads_of(every) == ragged.payloads_of(every) == [row.to_bytes() for row in rows]
    for name in ("entropy", "max_belief", "variance"):
        np.testing.assert_allclose(getattr(dense.statistics(), name), getattr(ragged.statistics(), name)[:-1])
    again = BeliefBatch.from_rows(rows)
    assert again.is_dense
    assert again.layout == dense.layout
    assert all(a.tobytes() == b.tobytes() for a, b in zip(again.factors, columns, strict=True))


def test_payloads_of_chosen_rows() -> None:
    q = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    assert BeliefBatch(q).payloads_of(np.array([2, 0])) == [Beliefs(row).to_bytes() for row in (q[2], q[0])]


@pytest.mark.parametrize(
    ("family", "good", "bad", "problem"),
    [
        ("categorical", [0.5, 0.5], [np.nan, 1.0], "NaN"),
        ("categorical", [0.5, 0.5], [-0.5, 1.5], "negative"),
        ("categorical", [0.5, 0.5], [0.5, 0.6], "does not sum to 1"),
        ("categorical", [0.5, 0.5], [1e308, 1e308], "does not sum to 1"),
        ("dirichlet", [2.0, 1.0], [0.0, 1.0], "not positive"),
        ("gaussian", [-2.0, 1.0], [1.0, 0.0], "variance"),
        ("gamma", [2.0, 1.0], [np.inf, 1.0], "NaN or infinity"),
        ("beta", [2.0, 1.0], [1.0, -1.0], "not positive"),
    ],
)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_one_bad_row_is_reported_as_itself(
    family: str, good: list[float], bad: list[float], problem: str, dtype: str
) -> None:
    with np.errstate(over="ignore"):
        rows = np.array([good, bad, good], dtype)
    batch = BeliefBatch([np.array([[1.0]] * 3), rows], families=["categorical", family], names=["first", "second"])
    found = batch.problems()
    assert list(found) == [1]
    assert found[1].field == "beliefs[1] factor 'second'"
    assert problem in found[1].problem or "NaN or infinity" in found[1].problem
    assert found[1].remedy
    with pytest.raises(InvalidInput):
        Factor(rows[1], family)


def test_raw_rows_have_no_problems() -> None:
    assert BeliefBatch([np.full((2, 3), np.nan)], families=["raw"]).problems() == {}


def test_missing_rows_are_problems_of_an_update() -> None:
    batch = BeliefBatch.from_rows([Beliefs([1.0]), None])
    assert list(batch.problems()) == [1]
    assert batch.problems()[1].field == "beliefs[1]"
    assert batch.present.tolist() == [True, False]
    assert batch.get(1) is None
    with pytest.raises(KeyError):
        batch[1]
    with pytest.raises(InvalidInput, match=r"batch\.present"):
        _ = batch.factors


def test_batches_of_nothing() -> None:
    for batch in (BeliefBatch(np.zeros((0, 4))), BeliefBatch.from_rows([]), BeliefBatch.from_payloads([])):
        assert len(batch) == 0
        assert list(batch) == []
        assert batch.problems() == {}
        assert batch.statistics().entropy.shape == (0,)
        assert batch.payloads_of(np.arange(0)) == []


def test_the_callers_arrays_may_be_reused() -> None:
    step = np.array([[0.5, 0.5], [1.0, 0.0]])
    for batch in (BeliefBatch(step), BeliefBatch([step]), BeliefBatch.from_rows([*step])):
        before = batch.payloads_of(np.arange(2))
        step[:] = np.nan
        assert batch.problems() == {}
        assert batch.payloads_of(np.arange(2)) == before
        step[:] = [[0.5, 0.5], [1.0, 0.0]]


def test_rows_by_number() -> None:
    batch = BeliefBatch(np.eye(3))
    assert batch[-1] == batch[2] == Beliefs(np.eye(3)[2])
    for row in (3, -4):
        with pytest.raises(IndexError):
            batch[row]


def test_pymdp_qs_of_many_agents() -> None:
    qs = [np.full((4, 1, 2), 0.5, "f4"), np.full((4, 1, 5), 0.2, "f4")]
    batch = as_batch(qs)
    assert [spec.name for spec in batch.layout] == ["factor_0", "factor_1"]
    assert batch[3].to_pymdp()[1].shape == (1, 5)
    assert all(np.array_equal(a, b) for a, b in zip(batch.to_pymdp(), qs, strict=True))
    objects = np.empty(2, dtype=object)
    objects[:] = qs
    assert as_batch(objects).layout == batch.layout
    legacy = np.empty(2, dtype=object)
    legacy[:] = [np.array([0.5, 0.5]), np.array([1.0])]
    assert BeliefBatch.from_rows([legacy, legacy])[1] == Beliefs(legacy)
    assert as_batch(batch) is batch
