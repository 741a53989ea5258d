"""Deleting an agent: its row and memberships go; history, an event and its last version stay."""

from __future__ import annotations

from contextlib import suppress
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from freeagentics_persistence.database.context import TenantContext
from freeagentics_persistence.database.engine import HARMLESS
from freeagentics_persistence.database.models import (
    agent_history,
    agents,
    coalition_members,
    coalitions,
    deleted_agents,
)
from freeagentics_persistence.database.writes.coalition_changes import change_coalition
from freeagentics_persistence.database.writes.event_rows import insert_event
from freeagentics_persistence.database.writes.retries import retried
from freeagentics_persistence.domain.events import EventType
from freeagentics_persistence.domain.identifiers import new_revision
from freeagentics_persistence.errors import Overloaded
from freeagentics_persistence.ports.cache import CacheEntry

MAX_ATTEMPTS = 20


class _Joined(Exception):
    """The agent joined a coalition between the locks of its coalitions and its own."""


async def delete_agent(context: TenantContext, agent_id: UUID) -> bool:
    """Delete the agent and its memberships; whether it existed."""
    await context.pace.keep(1)
    for _ in range(MAX_ATTEMPTS):
        with suppress(_Joined):
            return await retried(context.database, lambda: _delete(context, agent_id))
    raise Overloaded(f"agent {agent_id} joins coalitions faster than it can be deleted. Try again.")


async def _delete(context: TenantContext, agent_id: UUID) -> bool:
    tenant_id, revision = context.tenant_id, new_revision()
    async with context.database.write(tenant_id, if_unknown=HARMLESS) as connection:
        # coalitions before agents, as add_members locks them
        left = await _leave_coalitions(connection, tenant_id, agent_id, revision)
        found = await connection.execute(
            sa.select(
                agents.c.version,
                agents.c.newest_revision,
                sa.func.greatest(sa.func.clock_timestamp(), agents.c.updated_at).label("at"),
            )
            .where(agents.c.tenant_id == tenant_id, agents.c.id == agent_id)
            .with_for_update()
        )
        row = found.first()
        if row is None:
            return False
        memberships = await connection.execute(_memberships(tenant_id, agent_id))
        if memberships.first() is not None:
            raise _Joined
        version = row.version + 1
        recorded_at = (
            await connection.execute(sa.select(sa.literal(row.at) + sa.text("interval '1 microsecond'")))
        ).scalar_one()
        await connection.execute(sa.delete(agents).where(agents.c.tenant_id == tenant_id, agents.c.id == agent_id))
        await connection.execute(
            sa.insert(deleted_agents).values(
                tenant_id=tenant_id,
                id=agent_id,
                version=version,
                newest_revision=row.newest_revision,
                deleted_at=recorded_at,
            )
        )
        change = {"tenant_id": tenant_id, "version": version, "revision": revision, "recorded_at": recorded_at}
        await connection.execute(sa.insert(agent_history).values(agent_id=agent_id, **change))
        await insert_event(connection, type=EventType.AGENT_DELETED, subject_id=agent_id, **change)
    context.wake()
    context.floors.saw(tenant_id, agent_id, version)
    await context.cache_written([CacheEntry(agent_id, version, revision, None)], [recorded_at])
    for coalition_id, coalition_version in left:
        await context.drop_members(coalition_id, coalition_version)
    return True


async def _leave_coalitions(
    connection: AsyncConnection, tenant_id: UUID, agent_id: UUID, revision: UUID
) -> list[tuple[UUID, int]]:
    member = _memberships(tenant_id, agent_id)
    joined = await connection.execute(
        sa.select(coalitions.c.id)
        .where(coalitions.c.tenant_id == tenant_id, coalitions.c.id.in_(member))
        .order_by(coalitions.c.id)
        .with_for_update(key_share=True)
    )
    locked = joined.scalars().all()
    c = coalition_members.c
    own = (
        c.tenant_id == tenant_id,
        c.agent_id == agent_id,
        c.coalition_id == sa.any_(sa.cast(locked, sa.ARRAY(sa.Uuid))),
    )
    gone = await connection.execute(sa.delete(coalition_members).where(*own).returning(c.coalition_id))
    left, data = [], {"removed": [str(agent_id)]}
    for coalition_id in (UUID(int=found.int) for found in gone.scalars().all()):
        row = await change_coalition(
            connection, tenant_id, coalition_id, EventType.COALITION_MEMBERS, revision, data=data
        )
        left.append((coalition_id, int(row.version)))
    return left


def _memberships(tenant_id: UUID, agent_id: UUID) -> sa.Select[tuple[UUID]]:
    own = coalition_members.c.tenant_id == tenant_id, coalition_members.c.agent_id == agent_id
    return sa.select(coalition_members.c.coalition_id).where(*own)
