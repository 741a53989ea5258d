"""A batch of belief writes, and how it is cut into statements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt

from freeagentics_persistence.domain.beliefs.batch import BeliefBatch, Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class BeliefWrite:
    """A checked batch: ids, beliefs, free energies in nats (NaN: none), expected versions (-1: any), revisions."""

    ids: Sequence[UUID]
    beliefs: BeliefBatch
    free_energy: npt.NDArray[np.float64]
    expected: npt.NDArray[np.int64] | None
    revisions: Sequence[UUID]


@dataclass(frozen=True, slots=True)
class SealedRows:
    """Rows of a batch as one statement takes them; ``columns`` are the arguments from the agents' ids on.

    Expected versions, free energies and what is compared with history are None where no row has any.
    """

    rows: Rows
    columns: tuple[list[Any] | None, ...]

    @property
    def ids(self) -> list[UUID]:
        """The agents."""
        return self.columns[0] or []

    @property
    def revisions(self) -> list[UUID]:
        """The writes."""
        return self.columns[2] or []

    @property
    def envelopes(self) -> list[bytes]:
        """The sealed beliefs."""
        return self.columns[3] or []

    def halves(self) -> tuple[SealedRows, SealedRows]:
        """The first and the second half."""
        middle = len(self.rows) // 2
        first, second = (
            tuple(column and column[part] for column in self.columns) for part in (slice(middle), slice(middle, None))
        )
        return SealedRows(self.rows[:middle], first), SealedRows(self.rows[middle:], second)


def waves(ids: Sequence[UUID], rows: Rows) -> list[Rows]:
    """Rows in waves without repeated ids, in order: one statement would silently keep one of two writes."""
    if len({ids[row].int for row in rows.tolist()}) == len(rows):
        return [rows] if len(rows) else []
    seen: Counter[int] = Counter()
    parts: list[list[int]] = []
    for row in rows.tolist():
        turn = seen[ids[row].int]
        seen[ids[row].int] += 1
        if turn == len(parts):
            parts.append([])
        parts[turn].append(row)
    return [np.array(part, dtype=np.int64) for part in parts]


def chunks(nbytes: npt.NDArray[np.int64], rows: Rows, max_rows: int, max_bytes: int) -> list[Rows]:
    """Rows in order, as many at a time as one statement may carry; one row of any size is a chunk.

    ``nbytes`` (N,) of the whole batch.
    """
    if len(rows) == 1:
        return [rows]
    ends = np.cumsum(nbytes[rows])
    found, start, sent = [], 0, 0
    while start < len(rows):
        within = int(np.searchsorted(ends, sent + max_bytes, side="right"))
        stop = min(start + max_rows, max(start + 1, within))
        found.append(rows[start:stop])
        start, sent = stop, int(ends[stop - 1])
    return found


def nullable(values: npt.NDArray[np.float64]) -> list[float | None]:
    """Floats with None for NaN, as the database takes them."""
    if not np.isnan(values).any():
        return values.tolist()
    return [None if value != value else value for value in values.tolist()]
