"""Beliefs and factors: what is taken, what is refused and how, and that nothing shows their numbers."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from freeagentics_persistence.domain.agents import Agent
from freeagentics_persistence.domain.beliefs.batch import BeliefBatch, as_batch
from freeagentics_persistence.domain.beliefs.beliefs import Beliefs, Factor, as_beliefs
from freeagentics_persistence.domain.beliefs.families import FLOAT_DTYPES, Family
from freeagentics_persistence.errors import InvalidInput
from tests.unit.domain.belief_strategies import beliefs

SECRET = 0.123456789
LEAK = ("0.1234", "1234567", "0.8765", "8765432")


def refused(make: Any) -> InvalidInput:
    """The InvalidInput that this raises: complete, and without the numbers of beliefs."""
    with pytest.raises(InvalidInput) as caught:
        make()
    error = caught.value
    assert error.field
    assert error.problem
    assert error.remedy.endswith(".")
    assert str(error) == f"{error.field}: {error.problem}. {error.remedy}"
    assert not any(digits in str(error) for digits in LEAK)
    assert error.__cause__ is None
    return error


@pytest.mark.parametrize(
    ("values", "family", "problem"),
    [
        ([SECRET, np.nan], "categorical", "NaN or infinity"),
        ([SECRET, np.inf], "categorical", "NaN or infinity"),
        ([-SECRET, 1 + SECRET], "categorical", "negative"),
        ([-1e-12, 1.0], "categorical", "negative"),
        ([SECRET, SECRET], "categorical", "does not sum to 1"),
        ([0.0, 0.0], "categorical", "does not sum to 1"),
        ([1e308, 1e308], "categorical", "does not sum to 1"),
        ([[0.5, 0.5], [0.5, SECRET]], "categorical", "does not sum to 1"),
        ([0.5, 0.5002], "categorical", "does not sum to 1"),
        (SECRET, "categorical", r"has shape \(\)"),
        (np.empty((2, 0)), "categorical", r"has shape \(2, 0\)"),
        ([[1, 2], [3]], "raw", "is not an array"),
        ([SECRET, "x"], "categorical", "has dtype <U"),
        (["0.5", "0.5"], "categorical", "has dtype <U"),
        (None, "categorical", "has dtype object"),
        ({"a": SECRET}, "categorical", "has dtype object"),
        ([10**400, SECRET], "categorical", "has dtype object"),
        ([True, False], "raw", "has dtype bool"),
        (np.array([1 + 2j]), "raw", "has dtype complex"),
        (np.array([1, 0]), "categorical", "has dtype int64"),
        (np.array([1], "u8"), "raw", "has dtype uint64"),
        (np.array([1], "g"), "raw", "has dtype float128|has dtype longdouble"),
        (np.array(["2020-01-01"], "M8[D]"), "raw", "has dtype datetime64"),
        ([SECRET, 0.0], "dirichlet", "not positive"),
        ([SECRET, -1.0], "dirichlet", "not positive"),
        ([SECRET, 0.0], "gaussian", "variance that is not positive"),
        ([SECRET, 1.0, 1.0], "gaussian", r"has shape \(3,\)"),
        ([0.0, SECRET], "gamma", "not positive"),
        ([SECRET, -0.5], "beta", "not positive"),
        ([np.nan, SECRET], "gaussian", "NaN or infinity"),
        ([1.0], "wishart", "'wishart' is not a family"),
        ([1.0], [SECRET], "a list is not a family"),
        (np.zeros((1,) * 17), "raw", "has shape"),
    ],
)
def test_bad_values_are_refused(values: Any, family: Any, problem: str) -> None:
    error = refused(lambda: Factor(values, family))
    assert error.field.startswith("beliefs")
    assert re.search(problem, error.problem)


@pytest.mark.parametrize(
    "name", [" ", "x" * 256, "é" * 128, "a\x00b", "\ud800", None, 0, b"a", [SECRET], np.array([SECRET, 1.0])]
)
def test_bad_names_are_refused(name: Any) -> None:
    assert "name" in refused(lambda: Factor([1.0], name=name)).field
    assert "names" in refused(lambda: BeliefBatch(np.ones((1, 1)), names=[name])).field


@pytest.mark.parametrize(
    "values",
    [
        [],
        [[[1, 2], [3]], [1.0]],
        [[0.5, 0.5], None],
        [[0.5, 0.5], SECRET],
        [Factor([1.0]), Factor([1.0])],
        [Factor([1.0], name="factor_1"), [1.0]],
        np.array([{}, {}], dtype=object),
        "ab",
        {SECRET},
        (x for x in [1.0]),
    ],
)
def test_what_is_no_list_of_factors_is_refused(values: Any) -> None:
    assert refused(lambda: Beliefs(values)).field.startswith("beliefs")


def test_the_field_names_the_factor() -> None:
    assert refused(lambda: Beliefs([[1.0], [SECRET]])).field == "beliefs factor 'factor_1'"
    assert refused(lambda: Factor([SECRET], name="goal")).field == "beliefs factor 'goal'"
    assert refused(lambda: Factor([SECRET])).field == "beliefs"


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
@pytest.mark.parametrize("states", [2, 1_000, 60_000])
def test_a_softmax_passes_in_its_own_precision(dtype: str, states: int) -> None:
    logits = np.random.default_rng(states).normal(size=(5, states)).astype(dtype)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    total = np.cumsum(weights, axis=-1, dtype="f4")[..., -1:]  # one by one, as the least careful code would
    posterior = (weights / total).astype(dtype)
    assert Beliefs(posterior)[0].dtype == dtype
    assert BeliefBatch(posterior).problems() == {}


def test_lists_and_arrays_keep_what_they_are() -> None:
    assert Beliefs([1, 0])[0].dtype == np.float64
    assert Beliefs(Factor([1, 0], "raw"))[0].dtype == np.int64
    assert Beliefs((0.5, 0.5)).layout == Beliefs(np.array([0.5, 0.5])).layout
    both = Beliefs([[0.5, 0.5], np.array([1.0], "f2")])
    assert [(f.name, f.values.dtype.name) for f in both] == [("factor_0", "float64"), ("factor_1", "float16")]
    assert [factor.name for factor in Beliefs([[0.5, 0.5]])] == [""]
    nested = Beliefs(np.full((3, 4, 5), 0.2))
    assert len(nested) == 1
    assert nested[0].shape == (3, 4, 5)
    assert as_beliefs(nested) is nested
    assert Beliefs(nested) == nested


def test_values_are_copied_and_read_only() -> None:
    mine = np.array([0.5, 0.5])
    held = Beliefs(mine)
    mine[0] = np.nan
    assert held[0].tolist() == [0.5, 0.5]
    with pytest.raises(ValueError, match="read-only"):
        held[0][0] = 1.0


@given(beliefs())
@settings(max_examples=50, deadline=None)
def test_copies_and_pickles_are_equal_and_read_only(held: Beliefs) -> None:
    for other in (pickle.loads(pickle.dumps(held)), copy.deepcopy(held), copy.copy(held)):
        assert other == held
        assert not any(factor.values.flags.writeable for factor in other)


def test_equality_is_of_bits_type_and_shape() -> None:
    assert Beliefs([0.5, 0.5]) == Beliefs([0.5, 0.5])
    assert Beliefs([0.5, 0.5]) != Beliefs(np.array([0.5, 0.5], "f4"))
    assert Beliefs([0.5, 0.5]) != Beliefs([[[0.5, 0.5]]])
    assert Beliefs(Factor([0.0], "raw")) != Beliefs(Factor([-0.0], "raw"))
    assert Beliefs(Factor([np.nan], "raw")) == Beliefs(Factor([np.nan], "raw"))
    assert Factor([1.0], name="a") != Factor([1.0], name="b")
    assert Beliefs([1.0]) != [1.0]
    assert Factor([1.0]) != [1.0]


def test_factors_are_found_by_name_and_number() -> None:
    held = Beliefs([Factor([1.0], name="a"), Factor([0.5, 0.5], name="b")])
    assert held["b"].shape == held[1].shape == (2,)
    with pytest.raises(KeyError):
        held["c"]


@pytest.mark.parametrize("size", [0, -1, True, 1.5, "3", None, 10**12])
def test_uniform_refuses_what_is_no_number_of_states(size: Any) -> None:
    assert refused(lambda: Beliefs.uniform(size)).field == "sizes"


def test_uniform() -> None:
    held = Beliefs.uniform(4, np.int64(2))  # type: ignore[arg-type]
    assert [factor.values.tolist() for factor in held] == [[0.25] * 4, [0.5, 0.5]]
    assert refused(Beliefs.uniform).field == "beliefs"


@pytest.mark.parametrize("qs", [None, 3, [], [[[1, 2], [3]]], [[SECRET]], "ab", [None]])
def test_from_pymdp_refuses_what_is_no_qs(qs: Any) -> None:
    refused(lambda: Beliefs.from_pymdp(qs))


def test_from_pymdp_refuses_raw_objects() -> None:
    assert refused(lambda: Beliefs.from_pymdp([[1.0]], rng=object())).field == "beliefs factor 'rng'"
    assert refused(lambda: Beliefs.from_pymdp([[1.0]], factor_0=[1.0])).problem == "have two factors named 'factor_0'"


def test_pymdp_lists_leave_raw_factors_out() -> None:
    held = Beliefs.from_pymdp([[0.5, 0.5], [1.0]], action=[1, 2])
    assert [q.tolist() for q in held.to_pymdp()] == [[0.5, 0.5], [1.0]]
    assert held["action"].tolist() == [1, 2]
    given_out = held.to_object_array()
    given_out[0][0] = 9.0  # legacy pymdp writes into its arrays
    assert held[0].tolist() == [0.5, 0.5]


def test_no_repr_shows_a_belief() -> None:
    held = Beliefs([Factor([SECRET, 1 - SECRET], name="goal"), Factor([SECRET], "raw", "rest")])
    agent = Agent(name="scout", agent_type="explorer", beliefs=held)
    batch = BeliefBatch(np.array([[SECRET, 1 - SECRET]]))
    ragged = BeliefBatch.from_rows([held, None])
    for value in (held, held.factors[0], held.layout, agent, batch, ragged, [held], {"beliefs": held}):
        for text in (repr(value), str(value), f"{value}"):
            assert not any(digits in text for digits in LEAK)
    assert repr(held) == "<Beliefs goal: categorical float64[2], rest: raw float64[1]>"
    assert repr(held.factors[0]) == "<Factor goal: categorical float64[2]>"


@pytest.mark.parametrize(
    "values",
    [
        None,
        "abc",
        [],
        SECRET,
        [[SECRET, 0.5], [0.5, 0.5]],  # rows, not factors
        [[[1, 2], [3]], [[1]]],
        [np.full((2, 2), 0.5), np.full((3, 2), 0.5)],
        np.full((2, 2), "x"),
        np.ones((2, 1), int),
        np.ones((2, 1), "g"),
        np.ones((2, 0)),
        Beliefs([1.0]),
        [Beliefs([1.0])] * 2,
        [None, None],
        np.array([{}, {}], dtype=object),
    ],
)
def test_what_is_no_batch_is_refused(values: Any) -> None:
    refused(lambda: as_batch(values))


def test_batches_check_names_and_families() -> None:
    q = np.ones((2, 1))
    refused(lambda: BeliefBatch([q, q], names=["a"]))
    refused(lambda: BeliefBatch([q, q], names=["a", "a"]))
    refused(lambda: BeliefBatch([q], families=["categorical", "raw"]))
    refused(lambda: BeliefBatch([q], families=["wishart"]))
    refused(lambda: BeliefBatch([np.ones((2, 3))], families=[Family.GAMMA]))


def test_a_bad_row_of_from_rows_is_reported_and_not_present() -> None:
    rows = [[0.5, 0.5], [SECRET], None, [[1.0], [SECRET]], [0.2, 0.8]]
    batch = BeliefBatch.from_rows(rows)
    assert batch.present.tolist() == [True, False, False, False, True]
    problems = batch.problems()
    assert {row: problem.field for row, problem in problems.items()} == {
        1: "beliefs[1]",
        2: "beliefs[2]",
        3: "beliefs[3] factor 'factor_1'",
    }
    assert str(SECRET) not in str(problems)
    assert batch.problems(np.array([0, 2, 4])).keys() == {2}
    assert batch[4] == Beliefs([0.2, 0.8])
