"""Loads new agents by the hundred thousand: a few chunks at a time, each sealed and stored by one statement."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Literal
from uuid import UUID

import numpy as np
import numpy.typing as npt

from freeagentics_persistence.database.context import TenantContext
from freeagentics_persistence.database.writes.agent_writer import (
    AgentWriter,
    agent_columns,
    seal_agents,
    statistics_columns,
)
from freeagentics_persistence.database.writes.belief_rows import chunks
from freeagentics_persistence.database.writes.retries import retried
from freeagentics_persistence.domain.agents import Agent
from freeagentics_persistence.domain.beliefs.batch import BeliefBatch, Rows
from freeagentics_persistence.domain.identifiers import revisions_within
from freeagentics_persistence.domain.results import BatchResult, LoadProgress, RowStatus
from freeagentics_persistence.errors import InvalidInput, OutcomeUnknown, PersistenceError, Unavailable

Sizes = npt.NDArray[np.int64]
OnConflict = Literal["error", "update", "skip"]
STATEMENT = "SELECT * FROM load_agents($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"


class Chunk:
    """Agents that follow one another in a load, and what became of each; ``beliefs`` from the row ``first`` on."""

    def __init__(self, load: UUID, agents: Sequence[Agent], beliefs: BeliefBatch, nbytes: Sizes, first: int) -> None:
        self.agents = agents
        self.beliefs: BeliefBatch | None = beliefs
        self.nbytes = nbytes  # of all rows of ``beliefs``
        self.first = first
        self.ids = [agent.id for agent in agents]
        self.revisions = revisions_within(load, self.ids)
        self.status = np.full(len(agents), RowStatus.NOT_WRITTEN, dtype=np.int8)
        self.versions = np.zeros(len(agents), dtype=np.int64)
        self.errors: dict[int, PersistenceError] = {}

    def forget_input(self) -> None:
        """Keep only what became of the rows."""
        self.agents, self.beliefs = (), None

    def refuse(self, row: int, status: RowStatus, error: PersistenceError) -> None:
        """Note why a row is not stored."""
        self.status[row], self.errors[row] = status, error


class AgentLoader:
    """One load of one tenant, named by ``revision``: rows that it stored before are recognised, not stored again."""

    def __init__(self, context: TenantContext, revision: UUID, on_conflict: OnConflict) -> None:
        self._context = context
        self._load = revision
        self._on_conflict = on_conflict
        self._writer = AgentWriter(context)
        self._seen: set[int] = set()  # of UUIDs, which are hashed in Python
        self._chunks: list[Chunk] = []

    async def run(
        self,
        agents: Iterable[Agent],
        beliefs: BeliefBatch | None,
        total: int | None,
        progress: Callable[[LoadProgress], None] | None,
    ) -> BatchResult:
        """Load them all. At most as many chunks as connections, and one, are in memory with their beliefs.

        Raises what a chunk, the iterable or ``progress`` raised, once the chunks under way have ended.
        """
        slots = asyncio.Semaphore(self._context.limits.batch_connections)
        under_way: set[asyncio.Task[None]] = set()
        ended: set[asyncio.Task[None]] = set()
        done = stored = 0

        async def store(chunk: Chunk) -> None:
            nonlocal done, stored
            await self._store(chunk, slots)
            done, stored = done + len(chunk.ids), stored + int((chunk.status <= RowStatus.REPEATED).sum())
            if progress is not None:
                progress(LoadProgress(done=done, stored=stored, total=total))

        try:
            for chunk in self._cut(agents, beliefs):
                self._chunks.append(chunk)
                under_way.add(asyncio.create_task(store(chunk)))
                if len(under_way) > self._context.limits.batch_connections:
                    ended, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                    for task in ended:
                        task.result()
            await asyncio.gather(*under_way)
        except BaseException as error:
            await asyncio.gather(*under_way, *ended, return_exceptions=True)
            if stored and isinstance(error, InvalidInput):
                error.add_note(f"{stored:,} agents before it are stored")
            if isinstance(error, OutcomeUnknown) or (stored and isinstance(error, Unavailable)):
                raise self._broken_off(stored) from error
            raise
        return self._result()

    def _cut(self, agents: Iterable[Agent], beliefs: BeliefBatch | None) -> Iterator[Chunk]:
        rest, start = iter(agents), 0
        nbytes = None if beliefs is None else beliefs.nbytes
        while part := list(islice(rest, self._context.limits.batch_rows)):
            for i, agent in enumerate(part):
                if not isinstance(agent, Agent):
                    raise InvalidInput(f"agents[{start + i}]", f"is a {type(agent).__name__}", "Pass an Agent.")
            if beliefs is None or nbytes is None:
                own = BeliefBatch.from_rows([agent.beliefs for agent in part])
                yield Chunk(self._load, part, own, own.nbytes, 0)
            elif start + len(part) <= len(beliefs):
                yield Chunk(self._load, part, beliefs, nbytes, start)
            else:
                raise InvalidInput("beliefs", f"have {len(beliefs):,} rows", "Pass one row for each agent.")
            start += len(part)
        if beliefs is not None and start != len(beliefs):
            raise InvalidInput("beliefs", f"have {len(beliefs):,} rows for {start:,} agents", "Pass one for each.")

    async def _store(self, chunk: Chunk, slots: asyncio.Semaphore) -> None:
        beliefs, limits = chunk.beliefs, self._context.limits
        assert beliefs is not None  # noqa: S101 - a chunk that was not stored has its input
        rows = self._storable(chunk, beliefs)
        for part in chunks(chunk.nbytes, rows + chunk.first, limits.batch_rows, limits.batch_bytes):
            numbers = (part - chunk.first).tolist()
            ids, revisions = [chunk.ids[i] for i in numbers], [chunk.revisions[i] for i in numbers]
            envelopes = await seal_agents(self._context, ids, revisions, beliefs, part)
            columns = agent_columns([chunk.agents[i] for i in numbers])
            given = (ids, revisions, *columns[1:], envelopes, *statistics_columns(beliefs, part))
            await self._context.pace.keep(len(numbers))
            async with slots:
                await self._send(chunk, np.array(numbers, dtype=np.int64), given)
        self._context.wake()
        # those that were deleted before, and those that are to be replaced
        replaced = RowStatus.EXISTS if self._on_conflict == "update" else RowStatus.UNKNOWN_AGENT
        left = np.flatnonzero((chunk.status == RowStatus.UNKNOWN_AGENT) | (chunk.status == replaced))
        if len(left):
            async with slots:
                await self._save(chunk, left)
        if self._on_conflict == "skip":
            chunk.status[chunk.status == RowStatus.EXISTS] = RowStatus.REPEATED
        chunk.forget_input()

    def _storable(self, chunk: Chunk, beliefs: BeliefBatch) -> Rows:
        """The rows that may be sent; why the others may not is noted."""
        own = np.arange(chunk.first, chunk.first + len(chunk.ids), dtype=np.int64)
        refused = {row: error for row, error in beliefs.refused.items() if own[0] <= row <= own[-1]}
        for row, problem in {**refused, **beliefs.problems(own[beliefs.present[own]])}.items():
            chunk.refuse(row - chunk.first, RowStatus.INVALID, problem)
        for row, agent_id in enumerate(chunk.ids):
            number = agent_id.int
            if number in self._seen:
                again = InvalidInput("agents", f"hold agent {agent_id} twice", "Load each agent once.")
                chunk.refuse(row, RowStatus.INVALID, again)
            self._seen.add(number)
        return np.flatnonzero(chunk.status != RowStatus.INVALID)

    async def _send(self, chunk: Chunk, rows: Rows, columns: tuple[Sequence[Any], ...]) -> None:
        database, memory = self._context.database, self._context.limits.revision_memory
        arguments = (self._context.tenant_id, *columns, memory)
        try:
            row = await retried(database, lambda: database.call(STATEMENT, *arguments, revisions=columns[1]))
        except InvalidInput as error:
            # one agent that PostgreSQL refuses fails its statement: halve until it is alone
            if len(rows) == 1:
                chunk.refuse(int(rows[0]), RowStatus.REFUSED, error)
                return
            middle = len(rows) // 2
            await self._send(chunk, rows[:middle], tuple(column[:middle] for column in columns))
            await self._send(chunk, rows[middle:], tuple(column[middle:] for column in columns))
        else:
            chunk.status[rows], chunk.versions[rows] = row["statuses"], row["versions"]

    async def _save(self, chunk: Chunk, rows: Rows) -> None:
        """The same by the statement that also knows deleted agents, and updates where the caller allows."""
        assert chunk.beliefs is not None  # noqa: S101 - a chunk that was not stored has its input
        numbers, beliefs = rows.tolist(), chunk.beliefs
        agents = [dataclasses.replace(chunk.agents[i], beliefs=beliefs.get(chunk.first + i)) for i in numbers]
        revisions, may_update = [chunk.revisions[i] for i in numbers], self._on_conflict == "update"
        result, _ = await self._writer.save(agents, [None] * len(agents), may_update=may_update, revisions=revisions)
        chunk.status[rows], chunk.versions[rows] = result.status, result.versions
        chunk.errors.update({numbers[i]: error for i, error in result.errors.items()})

    def _result(self) -> BatchResult:
        found, errors, start = self._chunks, {}, 0
        for chunk in found:
            errors.update({start + row: error for row, error in chunk.errors.items()})
            start += len(chunk.ids)
        nothing = [np.empty(0)]
        return BatchResult(
            ids=[agent_id for chunk in found for agent_id in chunk.ids],
            status=np.concatenate([chunk.status for chunk in found] or nothing).astype(np.int8),
            versions=np.concatenate([chunk.versions for chunk in found] or nothing).astype(np.int64),
            revisions=[revision for chunk in found for revision in chunk.revisions],
            errors=errors,
        )

    def _broken_off(self, stored: int) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"the load was broken off: {stored:,} agents are stored, others may or may not be. Repeat the whole call "
            "with revision=error.revisions[0]: it goes on, and stores each agent once.",
            revisions=(self._load,),
        )
