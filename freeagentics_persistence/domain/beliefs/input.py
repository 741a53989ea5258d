"""What callers give as beliefs, turned into arrays of our own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from freeagentics_persistence.domain.beliefs.beliefs import Beliefs, BeliefsLike, as_beliefs
from freeagentics_persistence.domain.beliefs.families import FLOAT_DTYPES, Array, Family, check_layout, dtype_name
from freeagentics_persistence.domain.beliefs.payload import FactorLayout, Layout, storable
from freeagentics_persistence.errors import InvalidInput


@lru_cache(maxsize=1024)
def _plain_layout(dtype: np.dtype[Any], shape: tuple[int, ...]) -> Layout | None:
    """The layout of an array that is one categorical factor; None where it is not, or cannot be stored."""
    if dtype_name(dtype) not in FLOAT_DTYPES or not dtype.isnative:
        return None
    try:
        check_layout("beliefs", Family.CATEGORICAL, dtype, shape)
        return storable((FactorLayout("", Family.CATEGORICAL, dtype_name(dtype), shape),))
    except InvalidInput:
        return None


def as_row(values: BeliefsLike) -> Beliefs | Array:
    """One agent's beliefs as BeliefBatch.from_rows takes them, apart from what the caller holds.

    A plain array of probabilities is not looked at before its batch is, where many cost little more than one.
    """
    if type(values) is np.ndarray and _plain_layout(values.dtype, values.shape) is not None:
        return values.copy()
    return as_beliefs(values)


def plain_rows(rows: Sequence[BeliefsLike | None]) -> tuple[Layout, list[Array]] | None:
    """Layout and one (N, ...) array of plain arrays of one dtype and shape; None where they are something else."""
    first = rows[0] if len(rows) else None
    if type(first) is not np.ndarray:
        return None
    dtype, shape = first.dtype, first.shape
    layout = _plain_layout(dtype, shape)
    if layout is not None and all(
        type(row) is np.ndarray and row.dtype == dtype and row.shape == shape for row in rows
    ):
        return layout, [np.stack(rows)]  # type: ignore[arg-type]
    return None


def beliefs_of_row(row: int, values: BeliefsLike | None, refused: dict[int, InvalidInput]) -> Beliefs | None:
    """The beliefs of one row of a batch; why there are none is noted in ``refused``."""
    if values is None:
        return None
    try:
        return as_beliefs(values)
    except InvalidInput as error:
        field = error.field.replace("beliefs", f"beliefs[{row}]", 1)
        refused[row] = InvalidInput(field, error.problem, error.remedy)
        return None


def as_columns(factors: object) -> list[Array]:
    """Copies of one (N, ...) array per factor, C-contiguous and in native byte order. Raises InvalidInput."""
    if isinstance(factors, np.ndarray) and factors.dtype != object:
        factors = [factors]
    if not isinstance(factors, list | tuple | np.ndarray) or len(factors) == 0:
        raise InvalidInput("beliefs", "hold no factor", "Pass one (N, k) array, or a list of one array per factor.")
    columns = []
    for i, factor in enumerate(factors):
        if isinstance(factor, np.ma.MaskedArray):
            raise InvalidInput(f"beliefs factor {i}", "is a masked array", "Fill it first: a mask is not stored.")
        try:
            column = np.array(factor, order="C")  # a copy: what was checked is what is stored, whatever the caller does
        except (ValueError, TypeError, OverflowError):
            raise InvalidInput(
                f"beliefs factor {i}", "is not an array", "Pass one (N, ...) array per factor."
            ) from None
        if column.dtype.kind not in "fiu" or np.ndim(factor) < 1:
            raise InvalidInput(
                f"beliefs factor {i}",
                f"has dtype {column.dtype} and {np.ndim(factor)} axes",
                "Pass one (N, ...) array per factor; BeliefBatch.from_rows() takes one entry per agent.",
            )
        columns.append(column.astype(column.dtype.newbyteorder("="), copy=False))
    return columns
