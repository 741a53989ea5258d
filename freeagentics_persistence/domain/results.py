"""What calls give back: revisions, pages and row-by-row results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import IntEnum
from typing import Generic, TypeVar
from uuid import UUID

import numpy as np
import numpy.typing as npt

from freeagentics_persistence.domain.beliefs.beliefs import Beliefs
from freeagentics_persistence.errors import (
    AlreadyExists,
    ConcurrentUpdate,
    PersistenceError,
    RevisionExpired,
    UnknownAgent,
    WriteRefused,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One accepted change of an agent.

    ``repeated`` says that this revision had been applied before and was not applied again. ``beliefs`` is filled
    where history is read, and None where that change carried none.
    """

    agent_id: UUID
    revision: UUID
    version: int
    recorded_at: datetime
    free_energy: float | None = None
    entropy: float | None = None
    beliefs: Beliefs | None = field(default=None, repr=False)
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Part of an ordered result; pass ``next`` as ``after=`` to go on. ``next`` is None on the last page."""

    items: Sequence[T]
    next: str | None = None

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True, slots=True)
class AgentPlaces:
    """Where agents are: their ids, their H3 cells, and how many grid steps each is away, int32 of shape (N,).

    ``next`` as in a Page.
    """

    ids: Sequence[UUID]
    cells: Sequence[str]
    distances: npt.NDArray[np.int32]
    next: str | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadProgress:
    """How far a load is: rows ``done``, how many of them are ``stored``, and the ``total`` (None: unknown)."""

    done: int
    stored: int
    total: int | None


class RowStatus(IntEnum):
    """What became of one row of a batch."""

    WRITTEN = 0
    REPEATED = 1  # the same revision was applied before; not applied again
    CONFLICT = 2
    UNKNOWN_AGENT = 3
    REVISION_EXPIRED = 4
    EXISTS = 5
    INVALID = 6
    REFUSED = 7  # PostgreSQL refused this row's values
    NOT_WRITTEN = 8  # another row's fault undid an atomic batch


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchResult:
    """Row by row what became of a batch: ``status`` (N,) of RowStatus and ``versions`` (N,).

    ``versions`` holds the new version where a row was written, the version of the first application where it was
    repeated, the actual version where it conflicts, and 0 otherwise. ``errors`` has further detail by row number.

    >>> ids, expected = (UUID(int=1), UUID(int=2)), np.array([3, 3])
    >>> status = np.array([RowStatus.WRITTEN, RowStatus.CONFLICT], dtype=np.int8)
    >>> result = BatchResult(ids=ids, status=status, versions=np.array([4, 7]), revisions=ids, expected=expected)
    >>> result.ok, result.written, [row for row, error in result.failures()]
    (False, 1, [1])
    >>> result.raise_for_conflicts()
    Traceback (most recent call last):
    freeagentics_persistence.errors.ConcurrentUpdate: agent 00000000-0000-0000-0000-000000000002: expected ...
    """

    ids: Sequence[UUID]
    status: npt.NDArray[np.int8]
    versions: npt.NDArray[np.int64]
    revisions: Sequence[UUID]
    expected: npt.NDArray[np.int64] | None = None
    errors: Mapping[int, PersistenceError] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every row is stored (written now, or before)."""
        return bool((self.status <= RowStatus.REPEATED).all())

    @property
    def written(self) -> int:
        """How many rows were written by this call."""
        return int((self.status == RowStatus.WRITTEN).sum())

    def failures(self) -> Iterator[tuple[int, PersistenceError]]:
        """Row number and error of every row that is not stored."""
        for row in np.flatnonzero(self.status > RowStatus.REPEATED).tolist():
            yield row, self._error(row)

    def raise_for_conflicts(self) -> BatchResult:
        """Raise the first failed row's error, if any row failed; else return the result itself.

        Of an atomic batch that is the row at fault, not one that it undid.
        """
        failed = np.flatnonzero(self.status > RowStatus.REPEATED)
        if not failed.size:
            return self
        at_fault = failed[self.status[failed] != RowStatus.NOT_WRITTEN]
        row = int(at_fault[0] if at_fault.size else failed[0])
        error, note = self._error(row), f"row {row} of {len(self.ids)}; {failed.size} of them were not stored"
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
        raise error

    def with_existing_accepted(self) -> BatchResult:
        """The same result, with rows that existed before counted as stored."""
        status = np.where(self.status == RowStatus.EXISTS, RowStatus.REPEATED, self.status).astype(np.int8)
        return replace(self, status=status)

    def _error(self, row: int) -> PersistenceError:
        if row in self.errors:
            return self.errors[row]
        agent, actual = self.ids[row], int(self.versions[row])
        match RowStatus(self.status[row]):
            case RowStatus.CONFLICT:
                wanted = None if self.expected is None else int(self.expected[row])
                return ConcurrentUpdate(f"agent {agent}", wanted, actual)
            case RowStatus.UNKNOWN_AGENT:
                return UnknownAgent(agent)
            case RowStatus.REVISION_EXPIRED:
                return RevisionExpired(
                    f"agent {agent}: revision {self.revisions[row]} is too old to be recognised. "
                    "Read the agent, then write with a new revision."
                )
            case RowStatus.EXISTS:
                return AlreadyExists(f"agent {agent} exists already. Use on_conflict='update' or 'skip'.")
            case RowStatus.NOT_WRITTEN:
                return WriteRefused(f"agent {agent} was not written, because another row of this atomic batch failed.")
            case _:
                return WriteRefused(f"agent {agent} was not written, because its values were refused. Check them.")

    def __len__(self) -> int:
        return len(self.ids)
