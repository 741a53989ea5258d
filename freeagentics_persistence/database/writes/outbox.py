"""Announcements that are no changes of the store itself: agent updates of callers, and measurements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from freeagentics_persistence.database.engine import Database
from freeagentics_persistence.database.models import agent_history, agents, coalition_performance, coalitions
from freeagentics_persistence.database.write_pace import WritePace
from freeagentics_persistence.database.writes.event_rows import insert_event
from freeagentics_persistence.database.writes.retries import retried
from freeagentics_persistence.database.writes.revisions import revision_or_new, was_announced, was_recorded
from freeagentics_persistence.domain.beliefs.beliefs import Beliefs
from freeagentics_persistence.domain.events import EventType
from freeagentics_persistence.domain.performance import performance_data
from freeagentics_persistence.errors import UnknownAgent, UnknownCoalition
from freeagentics_persistence.ports.sealing import Kind, Sealer


class DatabaseOutbox:
    """The Outbox over PostgreSQL. A retry is recognised for ``revision_memory``, that of a coalition for ever."""

    def __init__(
        self,
        database: Database,
        sealer: Sealer,
        wake: Callable[[], None],
        pace: WritePace,
        *,
        revision_memory: timedelta,
    ) -> None:
        self._database = database
        self._sealer = sealer
        self._wake = wake
        self._pace = pace
        self._memory = revision_memory

    async def publish_update(
        self,
        tenant_id: UUID,
        agent_id: UUID,
        update_type: str,
        data: Mapping[str, Any],
        revision: UUID | None = None,
    ) -> UUID:
        """See ports.outbox.Outbox."""
        own = revision_or_new(revision)
        value = [orjson.dumps(dict(data))]
        sealed = await self._sealer.seal_many(tenant_id, Kind.UPDATE_DATA, [agent_id], [own], value)
        await self._announce(tenant_id, agent_id, update_type, own, sealed[0], {}, known=revision is not None)
        return own

    async def record_beliefs(
        self,
        tenant_id: UUID,
        agent_id: UUID,
        beliefs: Beliefs,
        free_energy: float | None,
        revision: UUID | None = None,
    ) -> UUID:
        """See ports.outbox.Outbox."""
        own, kind = revision_or_new(revision), EventType.BELIEFS_MEASURED
        sealed = await self._sealer.seal_many(tenant_id, Kind.BELIEFS, [agent_id], [own], [beliefs.to_bytes()])
        scalars = {
            "free_energy": free_energy,
            "belief_entropy": beliefs.entropy,
            "max_belief": beliefs.max_belief,
            "belief_variance": beliefs.variance,
        }
        await self._announce(tenant_id, agent_id, kind, own, sealed[0], scalars, known=revision is not None)
        return own

    async def record_performance(
        self,
        tenant_id: UUID,
        coalition_id: UUID,
        member_count: int,
        revenue: float,
        efficiency: float | None,
        revision: UUID | None = None,
    ) -> UUID:
        """See ports.outbox.Outbox."""
        own, data = revision_or_new(revision), performance_data(member_count, revenue, efficiency)
        await self._pace.keep(1)
        async with self._database.write(tenant_id, revisions=[own]) as connection:
            found = await connection.execute(
                sa.select(coalitions.c.version, sa.func.clock_timestamp())
                .where(coalitions.c.tenant_id == tenant_id, coalitions.c.id == coalition_id)
                .with_for_update(key_share=True)
            )
            row = found.first()
            if row is None:
                raise UnknownCoalition(coalition_id)
            if revision is not None and await was_recorded(connection, tenant_id, coalition_id, own, booked=None):
                return own
            common = {"tenant_id": tenant_id, "revision": own, "recorded_at": row[1]}
            await connection.execute(
                sa.insert(coalition_performance).values(coalition_id=coalition_id, **common, **data)
            )
            await insert_event(
                connection,
                subject_id=coalition_id,
                type=EventType.COALITION_MEASURED,
                version=row[0],
                data=data,
                **common,
            )
        self._wake()
        return own

    async def _announce(
        self,
        tenant_id: UUID,
        agent_id: UUID,
        kind: str,
        revision: UUID,
        envelope: bytes,
        scalars: Mapping[str, float | None],
        *,
        known: bool,
    ) -> None:
        """An event of an agent that does not change it, once; history remembers it. ``known``: may be a retry."""

        async def write() -> None:
            async with self._database.write(tenant_id, revisions=[revision]) as connection:
                version, now = await _locked_agent(connection, tenant_id, agent_id)
                if known and await was_announced(
                    connection, tenant_id, agent_id, revision, kind, now=now, memory=self._memory
                ):
                    return
                common = {"tenant_id": tenant_id, "type": kind, "revision": revision, "recorded_at": now, **scalars}
                await connection.execute(sa.insert(agent_history).values(agent_id=agent_id, version=None, **common))
                await insert_event(connection, subject_id=agent_id, version=version, envelope=envelope, **common)

        await self._pace.keep(1)
        await retried(self._database, write)
        self._wake()


async def _locked_agent(connection: AsyncConnection, tenant_id: UUID, agent_id: UUID) -> tuple[int, datetime]:
    """Version of the agent, and a moment of PostgreSQL's clock after its last change; its row stays locked."""
    later = sa.func.greatest(sa.func.clock_timestamp(), agents.c.updated_at + sa.text("interval '1 microsecond'"))
    found = await connection.execute(
        sa.select(agents.c.version, later)
        .where(agents.c.tenant_id == tenant_id, agents.c.id == agent_id)
        .with_for_update(key_share=True)
    )
    row = found.first()
    if row is None:
        raise UnknownAgent(agent_id)
    return int(row[0]), row[1]
