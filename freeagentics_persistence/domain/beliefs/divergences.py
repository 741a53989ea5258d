"""Kullback-Leibler divergences between the rows of two batches, vectorised over agents with the same factors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from freeagentics_persistence.domain.beliefs.batch import BeliefBatch, Rows
from freeagentics_persistence.domain.beliefs.families import Array, Family
from freeagentics_persistence.domain.beliefs.payload import Layout
from freeagentics_persistence.domain.beliefs.statistics import Floats, divergence


def divergences(left: BeliefBatch, right: BeliefBatch) -> Floats:
    """D_KL(left || right) of each row in nats, shape (N,), summed over factors.

    Infinite where ``right`` rules out what ``left`` allows, or names, families or shapes of the factors differ; NaN
    where either has no beliefs, or every factor is raw.
    """
    found = np.full(len(left), np.nan)
    for rows, layouts, mine, theirs in _pairs(left, right):
        if comparable(*layouts):
            found[rows] = divergence([spec.family for spec in layouts[0]], mine, theirs)
        else:
            found[rows] = np.inf
    return found


def distances(left: BeliefBatch, right: BeliefBatch) -> Floats:
    """The same where nothing may be passed over, so never NaN.

    Raw factors add 0 where they are equal bit for bit, else infinity; what cannot be compared is infinitely far.
    """
    found = np.full(len(left), np.inf)
    for rows, layouts, mine, theirs in _pairs(left, right):
        if comparable(*layouts):
            families = [spec.family for spec in layouts[0]]
            all_raw = set(families) == {Family.RAW}
            sums = np.zeros(len(rows)) if all_raw else divergence(families, mine, theirs)
            found[rows] = np.where(_same_raw(layouts, mine, theirs) & ~np.isnan(sums), sums, np.inf)
    return found


def comparable(left: Layout, right: Layout) -> bool:
    """Whether names, families and shapes are the same; dtypes may differ."""
    return left is right or [(f.name, f.family, f.shape) for f in left] == [(f.name, f.family, f.shape) for f in right]


def _pairs(
    left: BeliefBatch, right: BeliefBatch
) -> Iterator[tuple[Rows, tuple[Layout, Layout], list[Array], list[Array]]]:
    """Rows that both have, by their pair of layouts: the rows, the layouts, and both sides' arrays (n, ...)."""
    both = np.flatnonzero(left.present & right.present)
    for places, layout, _ in left.groups(both):
        rows = both[places]
        for inner, other, theirs in right.groups(rows):
            chosen = rows[inner]
            for _, _, mine in left.groups(chosen):
                yield chosen, (layout, other), mine, theirs


def _same_raw(layouts: tuple[Layout, Layout], mine: list[Array], theirs: list[Array]) -> Array:
    same = np.ones(len(mine[0]), dtype=np.bool_)
    for spec, other, a, b in zip(*layouts, mine, theirs, strict=True):
        if spec.family is Family.RAW:
            same &= spec.dtype == other.dtype
            # as bytes: NaN equals itself, and 0.0 is not -0.0
            flat = [np.ascontiguousarray(x).reshape(len(x), -1).view(np.uint8) for x in (a, b)] if a.size else []
            if flat and spec.dtype == other.dtype:
                same &= (flat[0] == flat[1]).all(axis=1)
    return same
