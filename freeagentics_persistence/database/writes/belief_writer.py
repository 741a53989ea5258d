"""Writes beliefs of many agents: seals, sends one statement a batch, and tells row by row what became of each."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from freeagentics_persistence.database.context import TenantContext
from freeagentics_persistence.database.engine import driver_of
from freeagentics_persistence.database.writes.belief_rows import BeliefWrite, SealedRows, chunks, nullable, waves
from freeagentics_persistence.database.writes.retries import retried
from freeagentics_persistence.database.writes.revisions import ahead_of_clock
from freeagentics_persistence.domain.beliefs.batch import Rows
from freeagentics_persistence.domain.results import BatchResult, RowStatus
from freeagentics_persistence.errors import InvalidInput, OutcomeUnknown, PersistenceError
from freeagentics_persistence.ports.cache import CacheEntry
from freeagentics_persistence.ports.sealing import Kind

STATEMENT = "SELECT * FROM update_beliefs($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
# the same for one row, without arrays: a fifth less of the server's time
ONE_ROW = "SELECT * FROM update_one_belief($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
AHEAD = 2  # one that is sealed, and one that is put into the cache


class _Outcome:
    """The result while it is being filled in."""

    def __init__(self, write: BeliefWrite) -> None:
        count = len(write.ids)
        self.status = np.full(count, RowStatus.NOT_WRITTEN, dtype=np.int8)
        self.versions = np.zeros(count, dtype=np.int64)
        # which versions are in history, of agents with a policy by divergence; None where there is no such agent
        self.kept: npt.NDArray[np.int64] | None = None
        self.recorded: list[datetime | None] = [None] * count
        self.errors: dict[int, PersistenceError] = {}

    @property
    def written(self) -> bool:
        return bool((self.status <= RowStatus.REPEATED).all())

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

    async def write(self, write: BeliefWrite) -> BatchResult:
        """Write each row on its own account.

        Raises what a statement raised where no row is stored, and OutcomeUnknown where some are or may be.
        """
        outcome, broken = await self._write(write)
        if broken:
            raise _of_the_whole(write, outcome, [error for _, error in broken])
        return outcome.result(write)

    async def write_each(
        self, write: BeliefWrite
    ) -> tuple[BatchResult, list[datetime | None], dict[int, BaseException]]:
        """Write rows of distinct agents that know nothing of one another.

        The result; when each row was recorded; and by row number what its statement raised.
        """
        outcome, broken = await self._write(write)
        lost = {
            row: error for rows, error in broken for row in rows[outcome.status[rows] == RowStatus.NOT_WRITTEN].tolist()
        }
        return outcome.result(write), outcome.recorded, lost

    async def _write(self, write: BeliefWrite) -> tuple[_Outcome, list[tuple[Rows, BaseException]]]:
        """What became of each row, and which rows' statements failed; no wave follows one with failures."""
        outcome, connections, nbytes = _Outcome(write), self._context.limits.batch_connections, write.beliefs.nbytes
        # more chunks are sealed than there are statements under way, so that no connection waits for sealing
        ready, slots = asyncio.Semaphore(connections + AHEAD), asyncio.Semaphore(connections)
        for wave in waves(write.ids, np.arange(len(write.ids), dtype=np.int64)):
            parts = self._chunks(nbytes, wave)
            calls = [self._write_chunk(ready, slots, write, rows, outcome) for rows in parts]
            ended = await _ended(calls)
            failures = [(rows, end) for rows, end in zip(parts, ended, strict=True) if end is not None]
            if failures:
                return outcome, failures
        return outcome, []

    async def write_atomic(self, write: BeliefWrite) -> BatchResult:
        """Write all rows in one transaction, or none of them."""
        every = np.arange(len(write.ids), dtype=np.int64)
        outcome = _Outcome(write)
        _refuse_invalid(write, every, outcome)
        if outcome.errors:
            return outcome.result(write)
        # one order of locks over all chunks of a wave keeps atomic batches from deadlocking
        ordered = [
            np.array(sorted(wave.tolist(), key=lambda row: write.ids[row].int), dtype=np.int64)
            for wave in waves(write.ids, every)
        ]
        nbytes = write.beliefs.nbytes
        # sealed before any lock is held: a keyring that is read again needs a connection of its own
        parts = [await self._sealed(write, rows) for wave in ordered for rows in self._chunks(nbytes, wave)]
        await self._context.pace.keep(len(every))
        outcome = await retried(self._context.database, lambda: self._write_together(write, parts))
        if outcome.written:
            for sealed in parts:
                await self._after_commit(write, sealed, outcome)
        return outcome.result(write)

    async def _write_together(self, write: BeliefWrite, parts: list[SealedRows]) -> _Outcome:
        context, outcome = self._context, _Outcome(write)
        try:
            async with context.database.write(context.tenant_id, revisions=write.revisions) as connection:
                driver = await driver_of(connection)
                for sealed in parts:
                    _note(write, sealed, await driver.fetchrow(*self._statement(sealed)), outcome)
                if not outcome.written:
                    raise _Undo
        except _Undo:
            undone = outcome.status <= RowStatus.REPEATED
            outcome.status[undone], outcome.versions[undone] = RowStatus.NOT_WRITTEN, 0
        return outcome

    def _chunks(self, nbytes: npt.NDArray[np.int64], rows: Rows) -> list[Rows]:
        limits = self._context.limits
        return chunks(nbytes, rows, limits.batch_rows, limits.batch_bytes)

    async def _write_chunk(
        self,
        ready: asyncio.Semaphore,
        slots: asyncio.Semaphore,
        write: BeliefWrite,
        rows: Rows,
        outcome: _Outcome,
    ) -> None:
        async with ready:
            valid = _refuse_invalid(write, rows, outcome)
            if len(valid) == 0:
                return
            sealed = await self._sealed(write, valid)
            await self._context.pace.keep(len(valid))
            async with slots:
                is_whole = await self._send(write, sealed, outcome)
            if is_whole:
                await self._after_commit(write, sealed, outcome)

    async def _sealed(self, write: BeliefWrite, rows: Rows) -> SealedRows:
        numbers, expected = rows.tolist(), write.expected
        ids, revisions = [write.ids[i] for i in numbers], [write.revisions[i] for i in numbers]
        payloads, statistics = write.beliefs.payloads_of(rows), write.beliefs.statistics(rows)
        seal = self._context.sealer.seal_many
        envelopes = await seal(self._context.tenant_id, Kind.BELIEFS, ids, revisions, payloads)
        free = write.free_energy[rows]
        columns: tuple[Any, ...] = (
            ids,
            None if expected is None else [None if v < 0 else v for v in expected[rows].tolist()],
            revisions,
            envelopes,
            None if np.isnan(free).all() else nullable(free),
            nullable(statistics.entropy),
            nullable(statistics.max_belief),
            nullable(statistics.variance),
            *self._context.kept.compare(self._context.tenant_id, ids, payloads),
        )
        return SealedRows(rows, columns)

    def _statement(self, sealed: SealedRows) -> tuple[Any, ...]:
        """What writes the rows: the statement, then its arguments."""
        tenant_id, memory = self._context.tenant_id, self._context.limits.revision_memory
        if len(sealed.rows) > 1:
            return (STATEMENT, tenant_id, *sealed.columns, memory)
        return (ONE_ROW, tenant_id, *(column and column[0] for column in sealed.columns), memory)

    async def _send(self, write: BeliefWrite, sealed: SealedRows, outcome: _Outcome) -> bool:
        """Whether the rows went in one statement; of those that did not, each half is finished here."""
        database, (statement, *arguments) = self._context.database, self._statement(sealed)
        try:
            row = await retried(database, lambda: database.call(statement, *arguments, revisions=sealed.revisions))
        except InvalidInput as error:
            # one row that PostgreSQL refuses fails its statement: halve until it is alone
            if len(sealed.rows) == 1:
                outcome.refuse(int(sealed.rows[0]), RowStatus.REFUSED, error)
                return False
            for half in sealed.halves():
                if await self._send(write, half, outcome):
                    await self._after_commit(write, half, outcome)
            return False
        _note(write, sealed, row, outcome)
        return True

    async def _after_commit(self, write: BeliefWrite, sealed: SealedRows, outcome: _Outcome) -> None:
        context, numbers = self._context, sealed.rows.tolist()
        statuses, versions = outcome.status[sealed.rows].tolist(), outcome.versions[sealed.rows].tolist()
        if outcome.kept is not None or context.kept:
            self._learn(write, sealed, outcome)
        # of conflicts too: whoever was told of a version is never shown an older one
        context.floors.saw_many(context.tenant_id, zip(sealed.ids, versions, strict=True))
        written = [i for i, status in enumerate(statuses) if status == RowStatus.WRITTEN]
        ids, revisions, envelopes = sealed.ids, sealed.revisions, sealed.envelopes
        entries = [CacheEntry(ids[i], versions[i], revisions[i], envelopes[i]) for i in written]
        if entries:
            context.wake()
        recorded = [outcome.recorded[numbers[i]] for i in written]
        await context.cache_written(entries, [moment for moment in recorded if moment is not None])

    def _learn(self, write: BeliefWrite, sealed: SealedRows, outcome: _Outcome) -> None:
        rows, payloads_of = sealed.rows, write.beliefs.payloads_of
        written = np.where(outcome.status[rows] == RowStatus.WRITTEN, outcome.versions[rows], 0)
        kept = np.zeros_like(written) if outcome.kept is None else outcome.kept[rows]
        self._context.kept.learn(
            self._context.tenant_id, sealed.ids, written, kept, lambda places: payloads_of(rows[places])
        )


async def _ended(calls: Sequence[Coroutine[Any, Any, None]]) -> list[BaseException | None]:
    """What each call raised. All run to their end, also when one fails: each has rows of its own to finish."""
    if len(calls) == 1:  # a task of its own would cost a single update more than sealing does
        try:
            await calls[0]
        except Exception as error:  # noqa: BLE001 - handed on
            return [error]
        return [None]
    return await asyncio.gather(*calls, return_exceptions=True)


class _Undo(Exception):
    """Rolls an atomic batch back."""


def _refuse_invalid(write: BeliefWrite, rows: Rows, outcome: _Outcome) -> Rows:
    """Note which of these rows cannot be stored; the others."""
    refused = write.beliefs.problems(rows)
    for row in rows[np.isinf(write.free_energy[rows])].tolist():
        problem = InvalidInput(f"free_energy[{row}]", "is infinite", "Pass nats, or None where there is none.")
        refused.setdefault(row, problem)
    for row, problem in refused.items():
        outcome.refuse(row, RowStatus.INVALID, problem)
    return rows[outcome.status[rows] != RowStatus.INVALID] if refused else rows


def _note(write: BeliefWrite, sealed: SealedRows, row: Any, outcome: _Outcome) -> None:
    rows, (statuses, versions, recorded, kept) = sealed.rows, row
    outcome.status[rows] = statuses
    outcome.versions[rows] = versions
    if kept is not None:
        if outcome.kept is None:
            outcome.kept = np.zeros_like(outcome.versions)
        outcome.kept[rows] = [version or 0 for version in kept]
    for number, status, moment in zip(rows.tolist(), statuses, recorded, strict=True):
        outcome.recorded[number] = moment
        if status == RowStatus.INVALID:
            outcome.errors[number] = ahead_of_clock(f"revisions[{number}]", write.revisions[number])


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
