"""Statistics of beliefs, vectorised over agents: entropy and divergence in nats.

Entropies: categorical ``-sum p ln p`` with ``0 ln 0 = 0``; the others are differential entropies in closed form
(Cover & Thomas, "Elements of Information Theory", 2nd ed., table 17.1: normal, Gamma, Beta). That of a Dirichlet with
parameters a follows from ``E[ln x_i] = digamma(a_i) - digamma(sum a)``: it is ``ln B(a)`` minus the sum of
``(a_i - 1) E[ln x_i]``. Divergences of normal, Gamma and Dirichlet: Penny, "KL-Divergences of Normal, Gamma, Dirichlet
and Wishart densities", 2001. The Beta is the Dirichlet of two.
Factors are independent, so entropies and divergences add up over factors.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betaln, digamma, gammaln, rel_entr

from freeagentics_persistence.domain.beliefs.families import Array, Family

Floats = npt.NDArray[np.float64]
_BLOCK_BYTES = 512 * 1024  # what several passes find in the processor's cache
_TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True, slots=True)
class BeliefStatistics:
    """Per agent, shape (N,); NaN where a statistic is undefined for these families.

    ``entropy`` in nats, summed over factors; ``max_belief`` the largest probability of any categorical factor;
    ``variance`` the mean over factors: the population variance of a categorical factor's probabilities (as the
    ADR has it), the mean variance of the distribution for the other families.
    """

    entropy: Floats
    max_belief: Floats
    variance: Floats


def statistics(families: Sequence[Family], values: Sequence[Array]) -> BeliefStatistics:
    """Statistics of N agents with the same factors; ``values[f]`` has shape (N, ...).

    What exceeds float64 is undefined too, so that every statistic is a finite number or NaN.
    """
    count = len(values[0]) if values else 0
    rows = max(1, _BLOCK_BYTES // max(1, sum(array[:1].nbytes for array in values)))
    if count <= rows:
        return _block(families, values)
    parts = [_block(families, [array[i : i + rows] for array in values]) for i in range(0, count, rows)]
    return BeliefStatistics(
        np.concatenate([part.entropy for part in parts]),
        np.concatenate([part.max_belief for part in parts]),
        np.concatenate([part.variance for part in parts]),
    )


def _block(families: Sequence[Family], values: Sequence[Array]) -> BeliefStatistics:
    entropies, maxima, variances = [], [], []
    with np.errstate(all="ignore"):
        for family, raw in zip(families, values, strict=True):
            if family is Family.RAW:
                continue
            array = raw.astype(np.float64, copy=False)
            entropies.append(_per_agent(_ENTROPY[family](array)))
            variances.append(_VARIANCE[family](array))
            if family is Family.CATEGORICAL:
                maxima.append(_rows(array).max(axis=1))
        count = len(values[0]) if values else 0
        entropy = functools.reduce(np.add, entropies) if entropies else np.full(count, np.nan)
        largest = functools.reduce(np.fmax, maxima) if maxima else np.full(count, np.nan)
        variance = functools.reduce(np.add, variances) / len(variances) if variances else np.full(count, np.nan)
    return BeliefStatistics(_finite(entropy), largest, _finite(variance))


def divergence(families: Sequence[Family], left: Sequence[Array], right: Sequence[Array]) -> Floats:
    """Kullback-Leibler divergence KL(left || right) in nats, shape (N,), summed over factors.

    Infinite where ``right`` gives 0 to what ``left`` holds possible; NaN where no factor has a family. Never
    negative: what rounding would leave below 0 is 0.
    """
    parts = []
    with np.errstate(all="ignore"):
        for family, p, q in zip(families, left, right, strict=True):
            if family is not Family.RAW:
                pair = p.astype(np.float64, copy=False), q.astype(np.float64, copy=False)
                parts.append(_per_agent(_DIVERGENCE[family](*pair)))
        if not parts:
            return np.full(len(left[0]) if left else 0, np.nan)
        return np.maximum(np.sum(parts, axis=0), 0.0)


def _finite(values: Floats) -> Floats:
    finite = np.isfinite(values)
    return values if finite.all() else np.where(finite, values, np.nan)


def _rows(parts: Array) -> Floats:
    return np.asarray(parts, dtype=np.float64).reshape(len(parts), math.prod(parts.shape[1:]))


def _per_agent(parts: Array) -> Floats:
    return parts if parts.ndim == 1 else _rows(parts).sum(axis=1)


def _mean(parts: Array) -> Floats:
    return _rows(parts).mean(axis=1)


def _categorical_entropy(p: Array) -> Floats:
    # 0 ln 0 = 0, as the logarithm of the least number is finite
    rows = _rows(p)
    return -np.einsum("ij,ij->i", rows, np.log(np.maximum(rows, _TINY)))


def _categorical_variance(p: Array) -> Floats:
    # np.mean takes three times as long for one agent
    deviations = _rows(p - np.add.reduce(p, axis=-1, keepdims=True) / p.shape[-1])
    return np.einsum("ij,ij->i", deviations, deviations) / max(1, math.prod(p.shape[1:]))


def _dirichlet_log_norm(a: Array) -> Array:
    return gammaln(a).sum(axis=-1) - gammaln(a.sum(axis=-1))


def _dirichlet_entropy(a: Array) -> Array:
    total, k = a.sum(axis=-1), a.shape[-1]
    return _dirichlet_log_norm(a) + (total - k) * digamma(total) - ((a - 1) * digamma(a)).sum(axis=-1)


def _gamma_entropy(v: Array) -> Array:
    shape, rate = v[:, 0], v[:, 1]
    return shape - np.log(rate) + gammaln(shape) + (1 - shape) * digamma(shape)


def _beta_entropy(v: Array) -> Array:
    a, b = v[:, 0], v[:, 1]
    return betaln(a, b) - (a - 1) * digamma(a) - (b - 1) * digamma(b) + (a + b - 2) * digamma(a + b)


def _dirichlet_variance(a: Array) -> Floats:
    total = a.sum(axis=-1, keepdims=True)
    share = a / total
    return _mean(share * (1 - share) / (total + 1))


def _beta_variance(v: Array) -> Floats:
    a, b = v[:, 0], v[:, 1]
    return _mean(a * b / ((a + b) ** 2 * (a + b + 1)))


def _gaussian_divergence(p: Array, q: Array) -> Array:
    ratio = p[:, 1] / q[:, 1]
    return 0.5 * (ratio - 1 - np.log(ratio) + (p[:, 0] - q[:, 0]) ** 2 / q[:, 1])


def _gamma_divergence(p: Array, q: Array) -> Array:
    (a, b), (c, d) = (p[:, 0], p[:, 1]), (q[:, 0], q[:, 1])
    return (a - c) * digamma(a) - gammaln(a) + gammaln(c) + c * np.log(b / d) + a * (d / b - 1)


def _beta_divergence(p: Array, q: Array) -> Array:
    (a, b), (c, d) = (p[:, 0], p[:, 1]), (q[:, 0], q[:, 1])
    sums = (c - a + d - b) * digamma(a + b)
    return betaln(c, d) - betaln(a, b) + (a - c) * digamma(a) + (b - d) * digamma(b) + sums


def _dirichlet_divergence(p: Array, q: Array) -> Array:
    mean_log = digamma(p) - digamma(p.sum(axis=-1, keepdims=True))
    return _dirichlet_log_norm(q) - _dirichlet_log_norm(p) + ((p - q) * mean_log).sum(axis=-1)


_ENTROPY: dict[Family, Callable[[Array], Array]] = {
    Family.CATEGORICAL: _categorical_entropy,
    Family.DIRICHLET: _dirichlet_entropy,
    Family.GAUSSIAN: lambda v: 0.5 * np.log(2 * np.pi * np.e * v[:, 1]),
    Family.GAMMA: _gamma_entropy,
    Family.BETA: _beta_entropy,
}
_VARIANCE: dict[Family, Callable[[Array], Floats]] = {
    Family.CATEGORICAL: _categorical_variance,
    Family.DIRICHLET: _dirichlet_variance,
    Family.GAUSSIAN: lambda v: _mean(v[:, 1]),
    Family.GAMMA: lambda v: _mean(v[:, 0] / v[:, 1] ** 2),
    Family.BETA: _beta_variance,
}
_DIVERGENCE: dict[Family, Callable[[Array, Array], Array]] = {
    Family.CATEGORICAL: rel_entr,
    Family.DIRICHLET: _dirichlet_divergence,
    Family.GAUSSIAN: _gaussian_divergence,
    Family.GAMMA: _gamma_divergence,
    Family.BETA: _beta_divergence,
}
