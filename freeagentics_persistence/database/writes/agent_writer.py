"""Saves whole agents: one statement a batch that inserts, updates, and adds history and events."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import numpy as np
import orjson

from freeagentics_persistence.database.context import TenantContext
from freeagentics_persistence.database.engine import SAVED_AGAIN
from freeagentics_persistence.database.writes.belief_rows import chunks, nullable
from freeagentics_persistence.database.writes.retries import retried
from freeagentics_persistence.domain.agents import Agent
from freeagentics_persistence.domain.beliefs.batch import BeliefBatch, Rows
from freeagentics_persistence.domain.identifiers import new_revisions
from freeagentics_persistence.domain.locations import cell_to_int
from freeagentics_persistence.domain.results import BatchResult, RowStatus
from freeagentics_persistence.errors import InvalidInput, OutcomeUnknown, PersistenceError
from freeagentics_persistence.ports.cache import CacheEntry
from freeagentics_persistence.ports.sealing import Kind

STATEMENT = "SELECT * FROM save_agents($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)"


class _Save:
    """A batch under way: what is to be saved, and what became of it so far."""

    def __init__(
        self,
        agents: Sequence[Agent],
        expected: Sequence[int | None],
        revisions: Sequence[UUID] | None,
        *,
        may_update: bool,
    ) -> None:
        self.given = agents
        self.expected = expected
        self.may_update = may_update
        self.beliefs = BeliefBatch.from_rows([agent.beliefs for agent in agents])
        self.revisions = new_revisions(len(agents)) if revisions is None else revisions
        self.stored = list(agents)
        self.status = np.full(len(agents), RowStatus.NOT_WRITTEN, dtype=np.int8)
        self.versions = np.zeros(len(agents), dtype=np.int64)
        self.errors: dict[int, PersistenceError] = {}

    def result(self) -> BatchResult:
        return BatchResult(
            ids=[agent.id for agent in self.given],
            status=self.status,
            versions=self.versions,
            revisions=self.revisions,
            expected=np.array([-1 if value is None else value for value in self.expected], dtype=np.int64),
            errors=self.errors,
        )

    def broken_off(self, error: PersistenceError) -> PersistenceError:
        """The error of the whole call where a statement failed."""
        saved = int((self.status == RowStatus.WRITTEN).sum())
        if not saved:
            return error
        return OutcomeUnknown(
            f"{saved:,} of {len(self.given):,} agents were saved, the others may or may not be: {error} "
            "Repeat the call with on_conflict='skip' or 'update'."
        )


class AgentWriter:
    """Saves for one tenant."""

    def __init__(self, context: TenantContext) -> None:
        self._context = context

    async def save(
        self,
        agents: Sequence[Agent],
        expected: Sequence[int | None],
        *,
        may_update: bool,
        revisions: Sequence[UUID] | None = None,
    ) -> tuple[BatchResult, list[Agent]]:
        """Save agents with distinct ids; the result, and the agents as stored (as given where not stored).

        ``expected`` 0: must be new; n: must be at that version; None: new, or updated where ``may_update``.
        """
        save, limits = _Save(agents, expected, revisions, may_update=may_update), self._context.limits
        every = np.arange(len(agents), dtype=np.int64)
        try:
            for rows in chunks(save.beliefs.nbytes, every, limits.batch_rows, limits.batch_bytes):
                await self._context.pace.keep(len(rows))
                await self._save_rows(save, rows)
        except PersistenceError as error:
            whole = save.broken_off(error)
            if whole is error:
                raise
            raise whole from error
        return save.result(), save.stored

    async def _save_rows(self, save: _Save, rows: Rows) -> None:
        ids, revisions = [save.given[i].id for i in rows.tolist()], [save.revisions[i] for i in rows.tolist()]
        envelopes = await seal_agents(self._context, ids, revisions, save.beliefs, rows)
        arguments = self._arguments(save, rows, envelopes)
        database = self._context.database
        try:
            row = await retried(database, lambda: database.call(STATEMENT, *arguments, if_unknown=SAVED_AGAIN))
        except InvalidInput as error:
            # one agent that PostgreSQL refuses fails its statement: halve until it is alone
            if len(rows) == 1:
                save.status[rows], save.errors[int(rows[0])] = RowStatus.REFUSED, error
                return
            for half in np.array_split(rows, 2):
                await self._save_rows(save, half)
        else:
            await self._after_commit(save, rows, envelopes, row)

    def _arguments(self, save: _Save, rows: Rows, envelopes: list[bytes | None]) -> tuple[Any, ...]:
        numbers = rows.tolist()
        columns = agent_columns([save.given[i] for i in numbers])
        return (
            self._context.tenant_id,
            columns[0],
            [save.expected[i] for i in numbers],
            [save.revisions[i] for i in numbers],
            *columns[1:],
            envelopes,
            *statistics_columns(save.beliefs, rows),
            save.may_update,
        )

    async def _after_commit(self, save: _Save, rows: Rows, envelopes: list[bytes | None], row: Any) -> None:
        context = self._context
        save.status[rows], save.versions[rows] = row["statuses"], row["versions"]
        entries, recorded = [], []
        for place in np.flatnonzero(save.status[rows] == RowStatus.WRITTEN).tolist():
            i = int(rows[place])
            agent, version, revision = save.given[i], int(save.versions[i]), save.revisions[i]
            save.stored[i] = dataclasses.replace(
                agent,
                tenant_id=context.tenant_id,
                version=version,
                revision=revision,
                created_at=row["created"][place],
                updated_at=row["recorded"][place],
                last_active_at=row["active"][place],
            )
            entries.append(CacheEntry(agent.id, version, revision, envelopes[place]))
            recorded.append(row["recorded"][place])
        if entries:
            context.wake()
        # of conflicts too: whoever was told of a version is never shown an older one
        seen = zip((save.given[i].id for i in rows.tolist()), save.versions[rows].tolist(), strict=True)
        context.floors.saw_many(context.tenant_id, seen)
        await context.cache_written(entries, recorded)


def agent_columns(agents: Sequence[Agent]) -> tuple[list[Any], ...]:
    """Ids, names, types, traits, energies, locations and statuses, as the functions that store agents take them."""
    return (
        [agent.id for agent in agents],
        [agent.name for agent in agents],
        [agent.agent_type for agent in agents],
        [orjson.dumps(agent.personality.to_dict()).decode() if agent.personality.traits else "{}" for agent in agents],
        [agent.energy for agent in agents],
        [None if agent.location is None else cell_to_int(agent.location) for agent in agents],
        [agent.status.value for agent in agents],
    )


def statistics_columns(beliefs: BeliefBatch, rows: Rows) -> tuple[list[float | None], ...]:
    """Entropies, maxima and variances of these rows, None where there is none."""
    found = beliefs.statistics(rows)
    return nullable(found.entropy), nullable(found.max_belief), nullable(found.variance)


async def seal_agents(
    context: TenantContext, ids: Sequence[UUID], revisions: Sequence[UUID], beliefs: BeliefBatch, rows: Rows
) -> list[bytes | None]:
    """Envelopes of these rows' beliefs, None where there are none; ``ids`` and ``revisions`` are those of ``rows``."""
    having = np.flatnonzero(beliefs.present[rows])
    agents, own = [ids[i] for i in having.tolist()], [revisions[i] for i in having.tolist()]
    payloads = beliefs.payloads_of(rows[having])
    sealed = await context.sealer.seal_many(context.tenant_id, Kind.BELIEFS, agents, own, payloads)
    envelopes: list[bytes | None] = [None] * len(rows)
    for i, envelope in zip(having.tolist(), sealed, strict=True):
        envelopes[i] = envelope
    return envelopes
