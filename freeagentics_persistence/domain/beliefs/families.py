"""The families a belief factor can belong to, and which arrays each accepts.

| family | array | meaning |
|-|-|-|
| categorical | (..., k) | probabilities, summing to 1 over the last axis |
| dirichlet | (..., k) | concentrations, > 0 |
| gaussian | (2, ...) | means, then variances > 0 |
| gamma | (2, ...) | shapes > 0, then rates > 0 |
| beta | (2, ...) | alphas > 0, then betas > 0 |
| raw | any | what a run needs to go on; no statistics |
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from freeagentics_persistence.domain.validation import shown
from freeagentics_persistence.errors import InvalidInput

Array = npt.NDArray[Any]

FLOAT_DTYPES = ("float16", "float32", "float64")
DTYPES = (*FLOAT_DTYPES, "int32", "int64", "uint32")
_NAMES = {np.dtype(name): name for name in DTYPES}


class Family(StrEnum):
    """What the numbers of a factor mean."""

    CATEGORICAL = "categorical"
    DIRICHLET = "dirichlet"
    GAUSSIAN = "gaussian"
    GAMMA = "gamma"
    BETA = "beta"
    RAW = "raw"


def dtype_name(dtype: np.dtype[Any]) -> str:
    """Its name, looked up where it is one that can be stored: numpy makes the name anew each time."""
    return _NAMES.get(dtype) or dtype.name


def as_family(field: str, value: object) -> Family:
    """The family of that name."""
    if type(value) is Family:
        return value
    try:
        return Family(value)  # type: ignore[arg-type]
    except ValueError:
        names = ", ".join(Family)
        raise InvalidInput(field, f"{shown(value)} is not a family", f"Use one of: {names}.") from None


def as_array(label: str, values: object, family: Family) -> Array:
    """A read-only C-contiguous copy in native byte order; lists of numbers become float64."""
    if isinstance(values, np.ma.MaskedArray):
        raise InvalidInput(label, "is a masked array", "Fill it first: a mask is not stored.")
    try:
        array = np.array(values, order="C")
    except (ValueError, TypeError, OverflowError):
        raise InvalidInput(label, "is not an array", "Pass numbers of one shape a factor.") from None
    if array.dtype == object or array.dtype.kind not in "fiu":
        raise InvalidInput(label, f"has dtype {array.dtype}", "Pass numbers.")
    if not isinstance(values, np.ndarray) and array.dtype.kind == "i" and family is not Family.RAW:
        array = array.astype(np.float64)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if dtype_name(array.dtype) not in DTYPES:
        raise InvalidInput(label, f"has dtype {array.dtype.name}", f"Use one of {', '.join(DTYPES)}.")
    array.setflags(write=False)
    return array


def check_layout(field: str, family: Family, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Refuse a dtype or shape that the family cannot have. ``shape`` is that of one agent."""
    allowed = DTYPES if family is Family.RAW else FLOAT_DTYPES
    if dtype_name(dtype) not in allowed:
        raise InvalidInput(field, f"has dtype {dtype.name}", f"{family} factors take {', '.join(allowed)}.")
    if len(shape) > 16 or any(size > 2**31 for size in shape):
        raise InvalidInput(field, f"has shape {shape}", "At most 16 axes of at most 2**31 are stored.")
    if family is Family.RAW:
        return
    if not shape or 0 in shape:
        raise InvalidInput(
            field,
            f"has shape {shape}",
            f"A {family} factor needs an axis and a number; of N agents, pass arrays (N, ...).",
        )
    if family not in (Family.CATEGORICAL, Family.DIRICHLET) and shape[0] != 2:
        raise InvalidInput(field, f"has shape {shape}", f"A {family} factor has shape (2, ...): one row a parameter.")


def bad_rows(family: Family, values: Array) -> list[tuple[npt.NDArray[np.bool_], str, str]]:
    """Which rows of ``values`` (N, ...) break the family's rules: (mask (N,), problem, remedy) per rule."""
    if family is Family.RAW or values.shape[0] == 0:
        return []
    if family is Family.CATEGORICAL and _are_distributions(values):
        return []
    flat = values.reshape(values.shape[0], -1)
    finite = np.isfinite(flat).all(axis=1)
    broken = np.asarray(~finite, dtype=np.bool_)
    findings = [(broken, "holds NaN or infinity", "Every number must be finite.")]
    safe = np.where(finite.reshape((-1,) + (1,) * (values.ndim - 1)), values, _harmless(family))
    return findings + _RULES[family](safe)


def _harmless(family: Family) -> float:
    return np.nan if family is Family.CATEGORICAL else 1.0


def _rows(mask: Array) -> npt.NDArray[np.bool_]:
    return np.asarray(mask.reshape(mask.shape[0], -1).any(axis=1), dtype=np.bool_)


def _tolerance(values: Array) -> float:
    # a float32 posterior of many states misses 1 by more than float64 would
    return 1e-2 if values.dtype == np.float16 else 1e-4


def _are_distributions(values: Array) -> bool:
    """The common case in three passes; NaN and infinity fail the comparisons."""
    with np.errstate(all="ignore"):
        sums = values.sum(axis=-1, dtype=np.float64)
        return bool(values.min() >= 0 and np.abs(sums - 1.0).max() <= _tolerance(values))


def _categorical(values: Array) -> list[tuple[npt.NDArray[np.bool_], str, str]]:
    tolerance = _tolerance(values)
    with np.errstate(over="ignore"):
        sums = values.sum(axis=-1, dtype=np.float64)
    return [
        (_rows(values < 0), "holds a negative probability", "Probabilities are 0 or more."),
        (
            _rows(np.abs(sums - 1.0) > tolerance),
            "does not sum to 1",
            f"Normalise it over the last axis (tolerance {tolerance:g}).",
        ),
    ]


def _positive(values: Array) -> list[tuple[npt.NDArray[np.bool_], str, str]]:
    return [(_rows(values <= 0), "holds a parameter that is not positive", "These parameters are greater than 0.")]


def _gaussian(values: Array) -> list[tuple[npt.NDArray[np.bool_], str, str]]:
    return [(_rows(values[:, 1] <= 0), "holds a variance that is not positive", "Variances are greater than 0.")]


_RULES: dict[Family, Callable[[Array], list[tuple[npt.NDArray[np.bool_], str, str]]]] = {
    Family.CATEGORICAL: _categorical,
    Family.DIRICHLET: _positive,
    Family.GAUSSIAN: _gaussian,
    Family.GAMMA: _positive,
    Family.BETA: _positive,
}
