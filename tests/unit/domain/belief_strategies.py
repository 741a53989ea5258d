"""Hypothesis strategies: arrays of every family, dtype and shape that a factor may have."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from freeagentics_persistence.domain.beliefs.beliefs import Beliefs, Factor
from freeagentics_persistence.domain.beliefs.families import DTYPES, FLOAT_DTYPES, Family

Array = npt.NDArray[Any]

seeds = st.integers(0, 2**32 - 1)
names = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=60).filter(
    lambda name: bool(name.strip())
)


def values_of(family: Family, dtype: str, shape: tuple[int, ...], seed: int) -> Array:
    """Random values that the family allows; raw ones are random bits, NaN of every kind included."""
    rng = np.random.default_rng(seed)
    if family is Family.RAW:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return np.frombuffer(rng.bytes(size), dtype=dtype).reshape(shape)
    positive = rng.gamma(0.7, size=shape) + 1e-3
    if family is Family.CATEGORICAL:
        positive[rng.random(shape) < 0.2] = 0.0
        positive[..., 0] += 0.1
        return (positive / positive.sum(axis=-1, keepdims=True)).astype(dtype)
    if family is Family.GAUSSIAN:
        positive[0] = rng.normal(size=shape[1:])
    return positive.astype(dtype)


def shapes(family: Family) -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes that one agent's factor of the family may have."""
    if family is Family.RAW:
        return st.lists(st.integers(0, 4), max_size=5).map(tuple)
    tail = st.lists(st.integers(1, 5), max_size=3)
    if family in (Family.CATEGORICAL, Family.DIRICHLET):
        return st.tuples(tail, st.integers(1, 7)).map(lambda pair: (*pair[0], pair[1]))
    return tail.map(lambda axes: (2, *axes))


@st.composite
def factors(draw: st.DrawFn, name: str = "") -> Factor:
    """One factor of any kind."""
    family = draw(st.sampled_from(list(Family)))
    dtype = draw(st.sampled_from(DTYPES if family is Family.RAW else FLOAT_DTYPES))
    return Factor(values_of(family, dtype, draw(shapes(family)), draw(seeds)), family, name)


@st.composite
def beliefs(draw: st.DrawFn) -> Beliefs:
    """One to four factors of any kind."""
    labels = draw(st.lists(st.just("") | names, min_size=1, max_size=4, unique=True))
    return Beliefs([draw(factors(name)) for name in labels])
