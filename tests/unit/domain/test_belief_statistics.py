"""Statistics against references of another making: scipy's distributions and integration on a grid."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from freeagentics_persistence.domain.beliefs.batch import BeliefBatch
from freeagentics_persistence.domain.beliefs.beliefs import Beliefs, Factor
from freeagentics_persistence.domain.beliefs.families import Family
from freeagentics_persistence.domain.beliefs.statistics import divergence
from freeagentics_persistence.errors import InvalidInput
from tests.unit.domain.belief_strategies import beliefs, seeds, values_of

parameters = st.floats(0.3, 30.0)
pairs = st.tuples(parameters, parameters)


def distribution(family: str, first: float, second: float) -> stats.rv_continuous:
    """scipy's distribution of these parameters."""
    if family == "gaussian":
        return stats.norm(first, np.sqrt(second))
    return stats.gamma(first, scale=1 / second) if family == "gamma" else stats.beta(first, second)


def integrated_divergence(p: stats.rv_continuous, q: stats.rv_continuous) -> float:
    """KL(p || q) as the integral of p ln(p / q), over the quantiles of p so that every shape is met."""

    def integrand(u: float) -> float:
        x = p.ppf(u)
        return float(p.logpdf(x) - q.logpdf(x))

    return float(integrate.quad(integrand, 1e-12, 1 - 1e-12, limit=400, epsabs=1e-9)[0])


@given(seeds, st.integers(1, 40))
@settings(deadline=None)
def test_categorical(seed: int, states: int) -> None:
    q = values_of(Family.CATEGORICAL, "float64", (states,), seed)
    held = Beliefs(q)
    positive = q[q > 0]
    assert held.entropy == pytest.approx(-sum(p * np.log(p) for p in positive.tolist()), abs=1e-12)
    assert held.entropy == pytest.approx(stats.entropy(q), abs=1e-9)
    assert held.max_belief == max(q.tolist())
    assert held.variance == pytest.approx(np.mean((q - q.mean()) ** 2), abs=1e-12)


def test_known_values_in_nats() -> None:
    assert Beliefs.uniform(8).entropy == pytest.approx(np.log(8))
    certain = Beliefs([0.0, 1.0, 0.0])
    assert certain.entropy == 0.0
    assert certain.max_belief == 1.0
    assert Beliefs.uniform(5).variance == pytest.approx(0.0)
    assert Beliefs([1.0, 0.0]).variance == pytest.approx(0.25)
    assert Beliefs(Factor([0.0, 1.0], "gaussian")).entropy == pytest.approx(0.5 * np.log(2 * np.pi * np.e))


@given(pairs, st.sampled_from(["gaussian", "gamma", "beta"]))
@settings(deadline=None)
def test_two_parameter_families(values: tuple[float, float], family: str) -> None:
    held, reference = Beliefs(Factor(list(values), family)), distribution(family, *values)
    assert held.entropy == pytest.approx(reference.entropy(), rel=1e-7, abs=1e-7)
    assert held.variance == pytest.approx(reference.var(), rel=1e-9)
    assert held.max_belief is None


@given(st.lists(parameters, min_size=2, max_size=8))
@settings(deadline=None)
def test_dirichlet(concentrations: list[float]) -> None:
    held, reference = Beliefs(Factor(concentrations, "dirichlet")), stats.dirichlet(concentrations)
    assert held.entropy == pytest.approx(reference.entropy(), rel=1e-9, abs=1e-8)
    assert held.variance == pytest.approx(np.mean(reference.var()), rel=1e-9)
    assert held.max_belief is None


@given(pairs)
@settings(deadline=None)
def test_a_dirichlet_of_two_is_a_beta(values: tuple[float, float]) -> None:
    dirichlet, beta = Beliefs(Factor(list(values), "dirichlet")), Beliefs(Factor(list(values), "beta"))
    assert dirichlet.entropy == pytest.approx(beta.entropy, abs=1e-8)
    assert dirichlet.variance == pytest.approx(beta.variance)


@pytest.mark.parametrize(
    ("family", "p", "q"),
    [
        ("gaussian", (0.3, 0.5), (-1.0, 2.0)),
        ("gaussian", (2.0, 3.0), (2.0, 0.7)),
        ("gamma", (2.5, 0.7), (1.5, 3.0)),
        ("gamma", (0.8, 4.0), (3.0, 1.0)),
        ("beta", (2.0, 5.0), (4.0, 1.5)),
        ("beta", (0.7, 0.9), (2.0, 3.0)),
    ],
)
def test_divergence_is_its_integral(family: str, p: tuple[float, float], q: tuple[float, float]) -> None:
    expected = integrated_divergence(distribution(family, *p), distribution(family, *q))
    found = Beliefs(Factor(list(p), family)).divergence(Beliefs(Factor(list(q), family)))
    assert found == pytest.approx(expected, rel=1e-5)


def test_divergence_of_dirichlets_is_its_integral() -> None:
    p, q = stats.dirichlet([2.0, 3.0, 1.5]), stats.dirichlet([1.2, 1.0, 4.0])

    nodes, weights = np.polynomial.legendre.leggauss(80)
    u, v = (axis.ravel() for axis in np.meshgrid((nodes + 1) / 2, (nodes + 1) / 2))
    x, y = u, v * (1 - u)  # the square onto the simplex
    points = np.array([x, y, 1 - x - y])
    area = np.outer(weights, weights).ravel() / 4 * (1 - u)
    log_p = p.logpdf(points)
    expected = float(np.sum(area * np.exp(log_p) * (log_p - q.logpdf(points))))
    held = [Beliefs(Factor(values, "dirichlet")) for values in ([2.0, 3.0, 1.5], [1.2, 1.0, 4.0])]
    assert held[0].divergence(held[1]) == pytest.approx(expected, rel=1e-4)


@given(seeds, seeds, st.integers(1, 20))
@settings(deadline=None)
def test_categorical_divergence(left: int, right: int, states: int) -> None:
    p, q = (values_of(Family.CATEGORICAL, "float64", (states,), seed) for seed in (left, right))
    found = Beliefs(p).divergence(Beliefs(q))
    assert found == pytest.approx(max(stats.entropy(p, q), 0.0), rel=1e-9, abs=1e-12)


def test_zeros_in_divergence() -> None:
    sure, unsure = Beliefs([1.0, 0.0]), Beliefs([0.5, 0.5])
    assert sure.divergence(unsure) == pytest.approx(np.log(2))
    assert unsure.divergence(sure) == np.inf
    assert sure.divergence(sure) == 0.0
    both = Beliefs([[1.0, 0.0], [0.5, 0.5]])
    other = Beliefs([[0.5, 0.5], [1.0, 0.0]])
    assert both.divergence(other) == np.inf


@given(beliefs())
@settings(max_examples=60, deadline=None)
def test_divergence_from_itself_is_zero(held: Beliefs) -> None:
    found = held.divergence(held)
    if all(factor.family is Family.RAW for factor in held):
        assert found is None
    else:
        assert found == pytest.approx(0.0, abs=1e-6)
        assert found >= 0.0


@given(beliefs())
@settings(max_examples=80, deadline=None)
def test_factors_add_up(held: Beliefs) -> None:
    alone = [Beliefs(factor) for factor in held if factor.family is not Family.RAW]
    if not alone:
        assert (held.entropy, held.max_belief, held.variance) == (None, None, None)
        return
    entropies, variances = [one.entropy for one in alone], [one.variance for one in alone]
    assert None not in entropies + variances
    assert held.entropy == pytest.approx(sum(entropies), rel=1e-9, abs=1e-9)
    assert held.variance == pytest.approx(np.mean(variances), rel=1e-9)
    largest = [one.max_belief for one in alone if one.max_belief is not None]
    assert held.max_belief == (max(largest) if largest else None)


@given(seeds, st.sampled_from([Family.CATEGORICAL, Family.DIRICHLET]))
@settings(deadline=None)
def test_leading_axes_are_independent_distributions(seed: int, family: Family) -> None:
    values = values_of(family, "float64", (2, 3, 4), seed)
    rows = [Beliefs(Factor(row, family)) for row in values.reshape(6, 4)]
    held = Beliefs(Factor(values, family))
    assert held.entropy == pytest.approx(sum(row.entropy or 0.0 for row in rows))
    assert held.variance == pytest.approx(np.mean([row.variance for row in rows]))


@given(seeds, seeds)
@settings(deadline=None)
def test_the_order_of_states_does_not_matter(seed: int, order: int) -> None:
    turn = np.random.default_rng(order).permutation(9)
    p, q = (values_of(Family.CATEGORICAL, "float64", (9,), seed + i) for i in range(2))
    mine, turned = Beliefs(p), Beliefs(p[turn])
    assert turned.entropy == pytest.approx(mine.entropy)
    assert turned.max_belief == mine.max_belief
    assert turned.variance == pytest.approx(mine.variance)
    assert turned.divergence(Beliefs(q[turn])) == pytest.approx(mine.divergence(Beliefs(q)))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_narrow_floats_are_summed_as_wide_ones(dtype: str) -> None:
    held = Beliefs(np.full(1000, 1e-3, dtype))
    assert held.entropy == pytest.approx(np.log(1000), rel=1e-2 if dtype == "float16" else 1e-6)


@pytest.mark.parametrize(
    "factor",
    [
        Factor([1.0, 1e-200], "gamma"),
        Factor([1e308, 1e308], "beta"),
        Factor([1e308, 1e308], "dirichlet"),
        Factor([1e-320, 1e-320], "dirichlet"),
        Factor([0.0, 5e-324], "gaussian"),
        Factor([[0.0, 0.0], [1.7e308, 1.7e308]], "gaussian"),
    ],
)
def test_what_exceeds_float64_is_undefined(factor: Factor) -> None:
    held = Beliefs(factor)
    for value in (held.entropy, held.variance):
        assert value is None or np.isfinite(value)
    numbers = BeliefBatch.from_rows([held, held]).statistics()
    for column in (numbers.entropy, numbers.variance):
        assert not np.isinf(column).any()


@given(seeds, st.sampled_from([Family.DIRICHLET, Family.GAMMA, Family.BETA, Family.GAUSSIAN]))
@settings(max_examples=50, deadline=None)
def test_rounding_makes_no_divergence_negative(seed: int, family: Family) -> None:
    rng = np.random.default_rng(seed)
    near = rng.gamma(1.0, size=(500, 2)) * 100 + 0.1
    batches = [values * (1 + 1e-9 * rng.normal(size=values.shape)) for values in (near, near)]
    assert (divergence([family], batches[:1], batches[1:]) >= 0).all()


def test_a_divergence_beyond_float64_is_infinite() -> None:
    far = [Beliefs(Factor([mean, 1e-300], "gaussian")) for mean in (1e200, -1e200)]
    assert far[0].divergence(far[1]) == np.inf


def test_an_undefined_factor_leaves_the_sum_undefined() -> None:
    mixed = Beliefs([Factor([1e308, 1e308], "beta", "a"), Factor([0.5, 0.5], name="b")])
    assert mixed.entropy is None
    assert mixed.max_belief == 0.5


@pytest.mark.parametrize(
    "other",
    [
        Beliefs([0.5, 0.5]),
        Beliefs(Factor([0.5, 0.25, 0.25], name="b")),
        Beliefs(Factor([0.5, 0.25, 0.25], "dirichlet", "a")),
        [0.5, 0.25, 0.25],
    ],
)
def test_divergence_refuses_other_factors(other: Beliefs) -> None:
    with pytest.raises(InvalidInput) as caught:
        Beliefs(Factor([0.5, 0.25, 0.25], name="a")).divergence(other)
    assert caught.value.field == "other"


def by_row(batch: BeliefBatch, of: Callable[[Beliefs], float | None]) -> npt.NDArray[np.float64]:
    """A statistic of every row, made one row at a time."""
    return np.array([np.nan if row is None else of(row) for row in batch], dtype=np.float64)


@given(st.lists(st.none() | beliefs(), max_size=5))
@settings(max_examples=60, deadline=None)
def test_batches_agree_with_their_rows(rows: list[Beliefs | None]) -> None:
    batch = BeliefBatch.from_rows(rows)
    found = batch.statistics()
    np.testing.assert_allclose(found.entropy, by_row(batch, lambda row: row.entropy))
    np.testing.assert_allclose(found.max_belief, by_row(batch, lambda row: row.max_belief))
    np.testing.assert_allclose(found.variance, by_row(batch, lambda row: row.variance))
