"""Writes beliefs of many agents: seals, sends one statement a batch, and tells row by row what became of each."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt

from freeagentics_persistence.database import driver_errors
from freeagentics_persistence.database.context import TenantContext
from freeagentics_persistence.database.engine import driver_of
from freeagentics_persistence.database.partitions import ensure_partitions
from freeagentics_persistence.domain.belief_batch import BeliefBatch
from freeagentics_persistence.domain.results import BatchResult, RowStatus
from freeagentics_persistence.domain.statistics import BeliefStatistics
from freeagentics_persistence.errors import InvalidInput, OutcomeUnknown, PersistenceError
from freeagentics_persistence.ports.cache import CacheEntry
from freeagentics_persistence.ports.sealing import Kind

STATEMENT = "SELECT * FROM write_beliefs($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
MAX_RETRIES = 5
_WRITTEN, _REPEATED = int(RowStatus.WRITTEN), int(RowStatus.REPEATED)
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class BeliefWrite:
    """A checked batch: ids, beliefs, free energies in nats (NaN: none), expected versions (-1: any), revisions."""

    ids: Sequence[UUID]
    beliefs: BeliefBatch
    free_energy: npt.NDArray[np.float64]
    expected: npt.NDArray[np.int64] | None
    revisions: Sequence[UUID]


class _Outcome:
    """The result while it is being filled in."""

    def __init__(self, write: BeliefWrite) -> None:
        count = len(write.ids)
        self.status = np.full(count, RowStatus.NOT_WRITTEN, dtype=np.int8)
        self.versions = np.zeros(count, dtype=np.int64)
        self.recorded: list[datetime | None] = [None] * count
        self.errors: dict[int, PersistenceError] = {}

    def refuse(self, row: int, status: RowStatus, error: PersistenceError) -> None:
        self.status[row] = status
        self.errors[row] = error

    def result(self, write: BeliefWrite) -> BatchResult:
        return BatchResult(
            ids=write.ids,
            status=self.status,
            versions=self.versions,
            revisions=write.revisions,
            expected=write.expected,
            errors=self.errors,
        )


class BeliefWriter:
    """Writes for one tenant."""

    def __init__(self, context: TenantContext) -> None:
        self._context = context

    async def write(self, write: BeliefWrite) -> tuple[BatchResult, list[datetime | None]]:
        """Write each row on its own account; the result, and when each row was recorded.

        Raises what a statement raised where no row is stored, and OutcomeUnknown where some are or may be.
        """
        outcome, rows, statistics = self._prepare(write)
        slots = asyncio.Semaphore(self._context.limits.batch_connections)
        for wave in waves(write.ids, rows):
            chunks = self._chunks(write, wave)
            tasks = [self._in_slot(slots, write, statistics, chunk, outcome) for chunk in chunks]
            # all run to their end, also when one fails: each has rows of its own to finish
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            failures = [failure for failure in ended if isinstance(failure, BaseException)]
            if failures:
                raise _of_the_whole(write, outcome, failures)
        return outcome.result(write), outcome.recorded

    async def write_atomic(self, write: BeliefWrite) -> BatchResult:
        """Write all rows in one transaction, or none of them."""
        outcome, rows, statistics = self._prepare(write)
        if outcome.errors:
            return outcome.result(write)
        context = self._context
        try:
            async with context.database.write(context.tenant_id, revisions=write.revisions) as connection:
                driver = await driver_of(connection)
                sealed: list[tuple[Rows, list[bytes]]] = []
                for wave in waves(write.ids, rows):
                    # one order of locks over all chunks of a wave keeps atomic batches from deadlocking
                    ordered = np.array(sorted(wave.tolist(), key=lambda row: write.ids[row].int), dtype=np.int64)
                    for chunk in self._chunks(write, ordered):
                        envelopes = await self._seal(write, chunk)
                        arguments = self._arguments(write, statistics, chunk, envelopes)
                        self._note(write, chunk, await driver.fetchrow(STATEMENT, *arguments), outcome)
                        sealed.append((chunk, envelopes))
                if (outcome.status > RowStatus.REPEATED).any():
                    raise _Undo
        except _Undo:
            outcome.status[outcome.status <= RowStatus.REPEATED] = RowStatus.NOT_WRITTEN
            return outcome.result(write)
        for chunk, envelopes in sealed:
            await self._after_commit(write, chunk, envelopes, outcome)
        return outcome.result(write)

    def _prepare(self, write: BeliefWrite) -> tuple[_Outcome, Rows, BeliefStatistics]:
        outcome = _Outcome(write)
        for row, problem in write.beliefs.problems().items():
            outcome.refuse(row, RowStatus.INVALID, problem)
        for row in np.flatnonzero(np.isinf(write.free_energy)).tolist():
            problem = InvalidInput(f"free_energy[{row}]", "is infinite", "Pass nats, or None where there is none.")
            outcome.refuse(row, RowStatus.INVALID, problem)
        rows = np.flatnonzero(outcome.status != RowStatus.INVALID)
        with np.errstate(all="ignore"):  # rows refused above may hold anything
            return outcome, rows, write.beliefs.statistics()

    def _chunks(self, write: BeliefWrite, rows: Rows) -> list[Rows]:
        limits = self._context.limits
        if len(rows) == 0:
            return []
        size = limits.batch_rows
        if write.beliefs.is_dense:
            row_bytes = max(1, sum(factor.nbytes for factor in write.beliefs.layout))
            size = max(1, min(size, limits.batch_bytes // row_bytes))
        return [rows[i : i + size] for i in range(0, len(rows), size)]

    async def _in_slot(
        self,
        slots: asyncio.Semaphore,
        write: BeliefWrite,
        statistics: BeliefStatistics,
        chunk: Rows,
        outcome: _Outcome,
    ) -> None:
        async with slots:
            envelopes = await self._seal(write, chunk)
            await self._send(write, statistics, chunk, envelopes, outcome)
        await self._after_commit(write, chunk, envelopes, outcome)

    async def _seal(self, write: BeliefWrite, chunk: Rows) -> list[bytes]:
        payloads = write.beliefs.payloads_of(chunk)
        ids, revisions = [write.ids[i] for i in chunk], [write.revisions[i] for i in chunk]
        return await self._context.sealer.seal_many(self._context.tenant_id, Kind.BELIEFS, ids, revisions, payloads)

    async def _send(
        self,
        write: BeliefWrite,
        statistics: BeliefStatistics,
        chunk: Rows,
        envelopes: Sequence[bytes],
        outcome: _Outcome,
    ) -> None:
        database, revisions = self._context.database, [write.revisions[i] for i in chunk]
        for attempt in range(MAX_RETRIES + 1):
            try:
                arguments = self._arguments(write, statistics, chunk, envelopes)
                row = await database.call(STATEMENT, *arguments, revisions=revisions)
            except PersistenceError as error:
                cause = error.__cause__
                if cause is not None and attempt < MAX_RETRIES and driver_errors.is_missing_partition(cause):
                    await ensure_partitions(database)
                elif cause is not None and attempt < MAX_RETRIES and driver_errors.is_retryable(cause):
                    await asyncio.sleep(random.uniform(0, 0.02 * 2**attempt))  # noqa: S311 - jitter
                elif isinstance(error, InvalidInput):
                    await self._bisect(write, statistics, chunk, envelopes, outcome, error)
                    return
                else:
                    raise
            else:
                self._note(write, chunk, row, outcome)
                return

    async def _bisect(
        self,
        write: BeliefWrite,
        statistics: BeliefStatistics,
        chunk: Rows,
        envelopes: Sequence[bytes],
        outcome: _Outcome,
        error: InvalidInput,
    ) -> None:
        """One row that PostgreSQL refuses fails its statement: halve until it is alone."""
        if len(chunk) == 1:
            outcome.refuse(int(chunk[0]), RowStatus.REFUSED, error)
            return
        middle = len(chunk) // 2
        await self._send(write, statistics, chunk[:middle], envelopes[:middle], outcome)
        await self._send(write, statistics, chunk[middle:], envelopes[middle:], outcome)

    def _arguments(
        self, write: BeliefWrite, statistics: BeliefStatistics, chunk: Rows, envelopes: Sequence[bytes]
    ) -> tuple[Any, ...]:
        expected = write.expected
        return (
            self._context.tenant_id,
            [write.ids[i] for i in chunk],
            [None] * len(chunk) if expected is None else [None if v < 0 else v for v in expected[chunk].tolist()],
            [write.revisions[i] for i in chunk],
            envelopes,
            nullable(write.free_energy[chunk]),
            nullable(statistics.entropy[chunk]),
            nullable(statistics.max_belief[chunk]),
            nullable(statistics.variance[chunk]),
            self._context.limits.revision_memory,
        )

    def _note(self, write: BeliefWrite, chunk: Rows, row: Any, outcome: _Outcome) -> None:
        outcome.status[chunk] = row["statuses"]
        outcome.versions[chunk] = row["versions"]
        for position, recorded in zip(chunk.tolist(), row["recorded"], strict=True):
            outcome.recorded[position] = recorded
        for position in chunk[outcome.status[chunk] == RowStatus.INVALID].tolist():
            outcome.errors[position] = InvalidInput(
                f"revisions[{position}]",
                f"{write.revisions[position]} lies over 5 minutes in the future of the database's clock",
                "Set this machine's clock.",
            )

    async def _after_commit(
        self, write: BeliefWrite, chunk: Rows, envelopes: Sequence[bytes], outcome: _Outcome
    ) -> None:
        context, ids, revisions = self._context, write.ids, write.revisions
        columns = (chunk.tolist(), outcome.status[chunk].tolist(), outcome.versions[chunk].tolist(), envelopes)
        entries, seen = [], []
        for row, status, version, envelope in zip(*columns, strict=True):
            if status == _WRITTEN:
                entries.append(CacheEntry(ids[row], version, revisions[row], envelope))
            if status <= _REPEATED:
                seen.append((ids[row], version))
        if entries:
            context.wake()
        context.floors.saw_many(context.tenant_id, seen)
        await context.cache_written(entries)


class _Undo(Exception):
    """Rolls an atomic batch back."""


def waves(ids: Sequence[UUID], rows: Rows) -> list[Rows]:
    """Rows in waves without repeated ids, in order: one statement would silently keep one of two writes."""
    if len({ids[row] for row in rows}) == len(rows):
        return [rows] if len(rows) else []
    seen: Counter[UUID] = Counter()
    parts: list[list[int]] = []
    for row in rows.tolist():
        turn = seen[ids[row]]
        seen[ids[row]] += 1
        if turn == len(parts):
            parts.append([])
        parts[turn].append(row)
    return [np.array(part, dtype=np.int64) for part in parts]


def nullable(values: npt.NDArray[np.float64]) -> list[float | None]:
    """Floats with None for NaN, as the database takes them."""
    if not np.isnan(values).any():
        return values.tolist()
    return [None if value != value else value for value in values.tolist()]


def _of_the_whole(write: BeliefWrite, outcome: _Outcome, failures: Sequence[BaseException]) -> BaseException:
    """The error of the whole call where some statements failed."""
    unforeseen = [failure for failure in failures if not isinstance(failure, PersistenceError)]
    stored = int((outcome.status <= RowStatus.REPEATED).sum())
    unknown = any(isinstance(failure, OutcomeUnknown) for failure in failures)
    if unforeseen or not (stored or unknown):
        return (unforeseen or failures)[0]
    error = OutcomeUnknown(
        f"{stored:,} of {len(write.ids):,} rows are stored, the others may or may not be: {failures[0]} "
        "Repeat the whole call with revisions=error.revisions: each row is applied once.",
        revisions=tuple(write.revisions),
    )
    error.__cause__ = failures[0]
    return error
