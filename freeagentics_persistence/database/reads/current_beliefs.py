"""Reads beliefs as they are now: from the cache where the level of consistency allows, else from PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

from freeagentics_persistence.database.context import TenantContext, note_cache_trouble
from freeagentics_persistence.database.reads.opening import batch_of, beliefs_of, open_stored, rows_by_id
from freeagentics_persistence.database.reads.parts import in_parts
from freeagentics_persistence.database.reads.shared_reads import SharedReads
from freeagentics_persistence.domain.beliefs.batch import BeliefBatch
from freeagentics_persistence.domain.beliefs.beliefs import Beliefs
from freeagentics_persistence.domain.consistency import Consistency
from freeagentics_persistence.errors import PersistenceError, StoreClosed, Unavailable
from freeagentics_persistence.ports.cache import CacheEntry, StoredBeliefs

# ids and revisions as bytes, as the driver's own UUIDs would be made only to be taken apart again
STATEMENT = "SELECT uuid_send(id), version, uuid_send(revision), belief_state FROM read_beliefs($1, $2)"
Single = SharedReads[tuple[UUID, timedelta | None], Beliefs | None]


class CurrentBeliefs:
    """Reads for one tenant.

    What the cache cannot answer is read from PostgreSQL under leases, and put where the lease still holds (see
    cache.redis_cache). Strong reads leave the cache alone: they have no lease.
    """

    def __init__(self, context: TenantContext) -> None:
        self._context = context
        limit = context.limits.read_queue
        self._single: dict[str, Single] = {
            level: SharedReads(partial(self._read_singles, level), limit=limit)
            for level in ("strong", "session", "bounded")
        }

    def get(self, agent_id: UUID, consistency: Consistency) -> Awaitable[Beliefs | None]:
        """One agent's beliefs; calls of the same level that wait at the same time share their round trips."""
        return self._single[consistency.level].get((agent_id, consistency.max_staleness))

    async def read(self, ids: Sequence[UUID], consistency: Consistency) -> BeliefBatch:
        """The beliefs of agents in the order of ``ids``; rows of unknown agents are not present."""
        at_once = self._context.limits.batch_connections
        parts = await in_parts(ids, at_once, lambda part: self._read_part(part, consistency))
        return BeliefBatch.joined(parts)

    async def close(self) -> None:
        """End the single reads that wait, and take no more."""
        await asyncio.gather(*(single.close() for single in self._single.values()))

    async def _read_part(self, ids: Sequence[UUID], consistency: Consistency) -> BeliefBatch:
        wanted = list({agent_id.int: agent_id for agent_id in ids}.values())
        found = await self._find(wanted, consistency)
        payloads = await open_stored(self._context, found)
        if len(wanted) != len(ids):
            places = {agent_id: place for place, agent_id in enumerate(wanted)}
            order = [places[agent_id] for agent_id in ids]
            found, payloads = found.chosen(order), [payloads[place] for place in order]
        return batch_of(found, payloads)

    async def _read_singles(
        self, level: str, keys: Sequence[tuple[UUID, timedelta | None]]
    ) -> list[Beliefs | PersistenceError | None]:
        ids = list(dict.fromkeys(agent_id for agent_id, _ in keys))
        # what is fresh enough for the most demanding is so for all
        bounds = [bound for _, bound in keys if bound is not None]
        found = await self._find(ids, Consistency(level, min(bounds, default=None)))  # type: ignore[arg-type]
        beliefs = list(map(beliefs_of, await open_stored(self._context, found)))
        if len(ids) == len(keys):
            return beliefs
        by_id = dict(zip(ids, beliefs, strict=True))
        return [by_id[agent_id] for agent_id, _ in keys]

    async def _find(self, ids: Sequence[UUID], consistency: Consistency) -> StoredBeliefs:
        """What there is of each agent."""
        if consistency.level == "strong":
            return await self._stored(ids)
        try:
            if consistency.level == "bounded" and not await self._is_fresh(consistency):
                return await self._stored(ids)
            found = await self._cached(ids)
            rows = found.missing()
            if not rows:
                return found
            missing = [ids[row] for row in rows]
            leases = await self._context.beliefs.take_leases(self._context.tenant_id, missing)
        except Unavailable as error:
            note_cache_trouble(error)
            return await self._stored(ids)
        stored = await self._stored(missing)
        await self._fill(stored.entries(), leases)
        found.fill(rows, stored)  # what something else wrote is told once, and has been replaced
        return found

    async def _cached(self, ids: Sequence[UUID]) -> StoredBeliefs:
        """What the cache has and this store has not seen a newer version of."""
        context = self._context
        found = await context.beliefs.fetch_beliefs(context.tenant_id, ids)
        floors = context.floors.floors(context.tenant_id, ids)
        for row, (version, floor) in enumerate(zip(found.versions, floors, strict=True)):
            if floor is None or version < floor:
                found.versions[row], found.envelopes[row] = 0, None
        return found

    async def _stored(self, ids: Sequence[UUID]) -> StoredBeliefs:
        """What PostgreSQL has now."""
        return rows_by_id(ids, await self._context.database.fetch(STATEMENT, self._context.tenant_id, ids))

    async def _fill(self, entries: Sequence[CacheEntry], leases: dict[UUID, bytes]) -> None:
        try:
            await self._context.beliefs.fill_beliefs(self._context.tenant_id, entries, leases)
        except (Unavailable, StoreClosed) as error:
            note_cache_trouble(error)

    async def _is_fresh(self, consistency: Consistency) -> bool:
        watermark = await self._context.beliefs.watermark()
        if watermark is None or consistency.max_staleness is None:
            return False
        now = datetime.now(UTC) + self._context.database.clock_offset
        return now - watermark <= consistency.max_staleness
