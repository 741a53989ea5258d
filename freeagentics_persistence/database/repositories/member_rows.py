"""Members of coalitions: the statements that change and read them, and their rows as entities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from freeagentics_persistence.database.models import coalition_members as members
from freeagentics_persistence.domain.coalitions import MAX_MEMBERS, Member
from freeagentics_persistence.domain.validation import require_uuid
from freeagentics_persistence.errors import InvalidInput, WriteRefused

BELIEFS = """
SELECT a.id, a.version, a.revision, a.belief_state
FROM coalition_members m JOIN agents a ON a.tenant_id = m.tenant_id AND a.id = m.agent_id
WHERE m.tenant_id = $1 AND m.coalition_id = $2
ORDER BY m.agent_id
"""


def distinct_ids(ids: Sequence[UUID]) -> list[UUID]:
    """The ids in one order, so that two changes of the same agents never deadlock. Raises InvalidInput."""
    if not 1 <= len(ids) <= MAX_MEMBERS:
        raise InvalidInput("ids", f"are {len(ids):,}", f"Pass 1 to {MAX_MEMBERS:,} agents.")
    return sorted({require_uuid(f"ids[{i}]", value) for i, value in enumerate(ids)}, key=lambda value: value.int)


def joining(tenant_id: UUID, coalition_id: UUID, ids: Sequence[UUID], role: str) -> Any:
    """Adds agents, or changes their role; a row for each, true where it is new."""
    columns = (
        sa.literal(tenant_id, sa.Uuid),
        sa.literal(coalition_id, sa.Uuid),
        sa.func.unnest(sa.cast(ids, sa.ARRAY(sa.Uuid))),
        sa.literal(role),
    )
    names = ["tenant_id", "coalition_id", "agent_id", "role"]
    joined = insert(members).from_select(names, sa.select(*columns), include_defaults=False)
    upsert = joined.on_conflict_do_update(constraint="coalition_members_pkey", set_={"role": role})
    return upsert.returning(sa.literal_column("xmax = 0"))


def leaving(tenant_id: UUID, coalition_id: UUID, ids: Sequence[UUID]) -> Any:
    """Removes agents; a row for each that was a member."""
    return (
        sa.delete(members)
        .where(*_of(tenant_id, coalition_id), members.c.agent_id == sa.any_(sa.cast(ids, sa.ARRAY(sa.Uuid))))
        .returning(sa.literal_column("true"))
    )


async def count(connection: AsyncConnection, tenant_id: UUID, coalition_id: UUID) -> int:
    """How many members a coalition has."""
    found = await connection.scalar(sa.select(sa.func.count()).where(*_of(tenant_id, coalition_id)))
    return int(found or 0)


async def require_room(connection: AsyncConnection, tenant_id: UUID, coalition_id: UUID) -> None:
    """Raise WriteRefused where a locked coalition has more members than it may."""
    found = await count(connection, tenant_id, coalition_id)
    if found > MAX_MEMBERS:
        raise WriteRefused(
            f"coalition {coalition_id} would have {found:,} members, and {MAX_MEMBERS:,} is the most. "
            "Nothing was written: remove members first, or make another coalition."
        )


async def page(
    connection: AsyncConnection, tenant_id: UUID, coalition_id: UUID, *, limit: int, after: UUID | None
) -> list[Member]:
    """Members by agent id."""
    query = sa.select(members).where(*_of(tenant_id, coalition_id))
    if after is not None:
        query = query.where(members.c.agent_id > after)
    rows = await connection.execute(query.order_by(members.c.agent_id).limit(limit))
    return [
        Member(
            coalition_id=coalition_id,
            agent_id=UUID(int=row.agent_id.int),
            role=row.role,
            contribution_score=row.contribution_score,
            joined_at=row.joined_at,
        )
        for row in rows.all()
    ]


async def ids_of(connection: AsyncConnection, tenant_id: UUID, coalition_id: UUID) -> frozenset[UUID]:
    """The agents that are members."""
    found = await connection.execute(sa.select(members.c.agent_id).where(*_of(tenant_id, coalition_id)))
    return frozenset(UUID(int=agent_id.int) for agent_id in found.scalars().all())


def _of(tenant_id: UUID, coalition_id: UUID) -> tuple[sa.ColumnElement[bool], ...]:
    return members.c.tenant_id == tenant_id, members.c.coalition_id == coalition_id
