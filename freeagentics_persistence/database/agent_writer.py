"""Saves whole agents: one statement a batch that inserts, updates, and adds history and events."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import numpy as np
import orjson

from freeagentics_persistence.database import driver_errors
from freeagentics_persistence.database.belief_writer import MAX_RETRIES, nullable
from freeagentics_persistence.database.context import TenantContext
from freeagentics_persistence.database.partitions import ensure_partitions
from freeagentics_persistence.domain.agents import Agent
from freeagentics_persistence.domain.belief_batch import BeliefBatch
from freeagentics_persistence.domain.identifiers import new_revisions
from freeagentics_persistence.domain.locations import cell_to_int
from freeagentics_persistence.domain.results import BatchResult, RowStatus
from freeagentics_persistence.errors import InvalidInput, OutcomeUnknown, PersistenceError
from freeagentics_persistence.ports.cache import CacheEntry
from freeagentics_persistence.ports.sealing import Kind

STATEMENT = "SELECT * FROM save_agents($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)"


class AgentWriter:
    """Saves for one tenant."""

    def __init__(self, context: TenantContext) -> None:
        self._context = context

    async def save(
        self, agents: Sequence[Agent], expected: Sequence[int | None], *, may_update: bool
    ) -> tuple[BatchResult, list[Agent]]:
        """Save agents with distinct ids; the result, and the agents as stored (as given where not stored).

        ``expected`` 0: must be new; n: must be at that version; None: new, or updated where ``may_update``.
        """
        size = self._context.limits.batch_rows
        revisions = new_revisions(len(agents))
        parts = []
        for start in range(0, len(agents), size):
            stop = min(start + size, len(agents))
            part = agents[start:stop], expected[start:stop], revisions[start:stop]
            try:
                parts.append(await self._save_chunk(*part, may_update=may_update))
            except PersistenceError as error:
                if start == 0:
                    raise
                raise OutcomeUnknown(
                    f"the first {start:,} of {len(agents):,} agents were saved, the others may or may not be: {error} "
                    "Repeat the call with on_conflict='skip' or 'update'."
                ) from error
        saved = [agent for _, stored in parts for agent in stored]
        result = BatchResult(
            ids=[agent.id for agent in agents],
            status=np.concatenate([part.status for part, _ in parts]),
            versions=np.concatenate([part.versions for part, _ in parts]),
            revisions=revisions,
            expected=np.array([-1 if value is None else value for value in expected], dtype=np.int64),
            errors={start * size + row: e for start, (part, _) in enumerate(parts) for row, e in part.errors.items()},
        )
        return result, saved

    async def _save_chunk(
        self,
        agents: Sequence[Agent],
        expected: Sequence[int | None],
        revisions: Sequence[UUID],
        *,
        may_update: bool,
    ) -> tuple[BatchResult, list[Agent]]:
        envelopes = await self._seal(agents, revisions)
        arguments = self._arguments(agents, expected, revisions, envelopes)
        try:
            row = await self._call((*arguments, may_update), revisions)
        except InvalidInput as error:
            if len(agents) == 1:
                return _refused(agents, revisions, error)
            middle = len(agents) // 2
            halves = [
                await self._save_chunk(agents[s], expected[s], revisions[s], may_update=may_update)
                for s in (slice(0, middle), slice(middle, None))
            ]
            return _joined(halves, middle)
        return await self._stored(agents, revisions, envelopes, row)

    async def _call(self, arguments: tuple[Any, ...], revisions: Sequence[UUID]) -> Any:
        database = self._context.database
        for attempt in range(MAX_RETRIES):
            try:
                return await database.call(STATEMENT, *arguments, revisions=revisions)
            except PersistenceError as error:
                cause = error.__cause__
                if cause is not None and driver_errors.is_missing_partition(cause):
                    await ensure_partitions(database)
                elif cause is not None and driver_errors.is_retryable(cause):
                    await asyncio.sleep(random.uniform(0, 0.02 * 2**attempt))  # noqa: S311 - jitter
                else:
                    raise
        return await database.call(STATEMENT, *arguments, revisions=revisions)

    async def _seal(self, agents: Sequence[Agent], revisions: Sequence[UUID]) -> list[bytes | None]:
        having = [i for i, agent in enumerate(agents) if agent.beliefs is not None]
        payloads = [beliefs.to_bytes() for agent in agents if (beliefs := agent.beliefs) is not None]
        tenant, ids = self._context.tenant_id, [agents[i].id for i in having]
        seal = self._context.sealer.seal_many
        sealed = await seal(tenant, Kind.BELIEFS, ids, [revisions[i] for i in having], payloads)
        envelopes: list[bytes | None] = [None] * len(agents)
        for i, envelope in zip(having, sealed, strict=True):
            envelopes[i] = envelope
        return envelopes

    def _arguments(
        self,
        agents: Sequence[Agent],
        expected: Sequence[int | None],
        revisions: Sequence[UUID],
        envelopes: Sequence[bytes | None],
    ) -> tuple[Any, ...]:
        statistics = BeliefBatch.from_rows([agent.beliefs for agent in agents]).statistics()
        return (
            self._context.tenant_id,
            [agent.id for agent in agents],
            list(expected),
            list(revisions),
            [agent.name for agent in agents],
            [agent.agent_type for agent in agents],
            [orjson.dumps(agent.personality.to_dict()).decode() for agent in agents],
            [agent.energy for agent in agents],
            [None if agent.location is None else cell_to_int(agent.location) for agent in agents],
            [agent.status.value for agent in agents],
            list(envelopes),
            nullable(statistics.entropy),
            nullable(statistics.max_belief),
            nullable(statistics.variance),
        )

    async def _stored(
        self, agents: Sequence[Agent], revisions: Sequence[UUID], envelopes: Sequence[bytes | None], row: Any
    ) -> tuple[BatchResult, list[Agent]]:
        context = self._context
        result = BatchResult(
            ids=[agent.id for agent in agents],
            status=np.array(row["statuses"], dtype=np.int8),
            versions=np.array(row["versions"], dtype=np.int64),
            revisions=revisions,
        )
        stored, entries = list(agents), []
        for i in np.flatnonzero(result.status == RowStatus.WRITTEN).tolist():
            version = int(result.versions[i])
            stored[i] = dataclasses.replace(
                agents[i],
                tenant_id=context.tenant_id,
                version=version,
                revision=revisions[i],
                created_at=row["created"][i],
                updated_at=row["recorded"][i],
                last_active_at=row["active"][i],
            )
            entries.append(CacheEntry(agents[i].id, version, revisions[i], envelopes[i]))
        if entries:
            context.wake()
        context.floors.saw_many(context.tenant_id, ((entry.agent_id, entry.version) for entry in entries))
        await context.cache_written(entries)
        return result, stored


def _refused(
    agents: Sequence[Agent], revisions: Sequence[UUID], error: PersistenceError
) -> tuple[BatchResult, list[Agent]]:
    status = np.array([RowStatus.REFUSED], dtype=np.int8)
    versions = np.zeros(1, dtype=np.int64)
    ids = [agent.id for agent in agents]
    return BatchResult(ids=ids, status=status, versions=versions, revisions=revisions, errors={0: error}), list(agents)


def _joined(halves: list[tuple[BatchResult, list[Agent]]], middle: int) -> tuple[BatchResult, list[Agent]]:
    (left, first), (right, second) = halves
    result = BatchResult(
        ids=[*left.ids, *right.ids],
        status=np.concatenate([left.status, right.status]),
        versions=np.concatenate([left.versions, right.versions]),
        revisions=[*left.revisions, *right.revisions],
        errors={**left.errors, **{middle + row: error for row, error in right.errors.items()}},
    )
    return result, first + second
