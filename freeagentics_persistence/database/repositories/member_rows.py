"""Members of coalitions: the statements that change and read them, and their rows as entities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from freeagentics_persistence.database.engine import driver_of
from freeagentics_persistence.database.models import coalition_members as members
from freeagentics_persistence.domain.coalitions import MAX_MEMBERS, Member
from freeagentics_persistence.domain.cursors import LOWEST_ID, Position
from freeagentics_persistence.domain.validation import require_score, require_sequence, require_uuid
from freeagentics_persistence.errors import InvalidInput, UnknownMember, WriteRefused

ABOVE_ALL = Position(LOWEST_ID, 100_000)  # hundredths of a score
RANKED = """
SELECT agent_id, role, contribution_score, joined_at FROM coalition_members
WHERE tenant_id = $1 AND coalition_id = $2 AND (rank_key, agent_id) > ($3, $4)
ORDER BY rank_key, agent_id LIMIT $5
"""

SCORE = """
UPDATE coalition_members m SET contribution_score = s.score, rank_key = - s.score * 100
FROM unnest($3::uuid[], $4::numeric[]) AS s (agent_id, score)
WHERE m.tenant_id = $1 AND m.coalition_id = $2 AND m.agent_id = ANY ($3) AND m.agent_id = s.agent_id
RETURNING m.agent_id
"""


def distinct_ids(ids: Sequence[UUID] | Set[UUID]) -> list[UUID]:
    """The ids in one order, so that two changes of the same agents never deadlock. Raises InvalidInput."""
    found = list(ids) if isinstance(ids, Set) else require_sequence("ids", ids)
    if not 1 <= len(found) <= MAX_MEMBERS:
        raise InvalidInput("ids", f"are {len(found):,}", f"Pass 1 to {MAX_MEMBERS:,} agents.")
    return sorted({require_uuid(f"ids[{i}]", value) for i, value in enumerate(found)}, key=lambda value: value.int)


def checked_scores(scores: Mapping[UUID, Decimal | int]) -> dict[UUID, Decimal]:
    """Scores by agent. Raises InvalidInput."""
    if not isinstance(scores, Mapping):
        raise InvalidInput("scores", f"is a {type(scores).__name__}", "Pass a mapping of agent ids to scores.")
    if not 1 <= len(scores) <= MAX_MEMBERS:
        raise InvalidInput("scores", f"are {len(scores):,}", f"Pass 1 to {MAX_MEMBERS:,} scores.")
    checked = {
        require_uuid("scores", agent_id): require_score(f"scores[{agent_id}]", score)
        for agent_id, score in scores.items()
    }
    if len(checked) < len(scores):
        raise InvalidInput("scores", "name an agent twice, as a UUID and as text", "Pass one score for each agent.")
    return checked


def place(member: Member) -> Position:
    """Where a member stands in the order of scores."""
    numerator, denominator = member.contribution_score.as_integer_ratio()
    return Position(member.agent_id, numerator * 100 // denominator)


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


def require_room(coalition_id: UUID, found: int) -> None:
    """Raise WriteRefused where a coalition would have more members than it may."""
    if found > MAX_MEMBERS:
        raise WriteRefused(
            f"coalition {coalition_id} would have {found:,} members, and {MAX_MEMBERS:,} is the most. "
            "Nothing was written: remove members first, or make another coalition."
        )


async def page(
    connection: AsyncConnection, tenant_id: UUID, coalition_id: UUID, *, limit: int, after: Position | None
) -> list[Member]:
    """Members by agent id; those behind a place in this order."""
    query = sa.select(members).where(*_of(tenant_id, coalition_id))
    if after is not None:
        query = query.where(members.c.agent_id > after.id)
    rows = await connection.execute(query.order_by(members.c.agent_id).limit(limit))
    return [_member(coalition_id, row.agent_id, row.role, row.contribution_score, row.joined_at) for row in rows.all()]


async def ranked(
    connection: AsyncConnection, tenant_id: UUID, coalition_id: UUID, *, limit: int, after: Position
) -> list[Member]:
    """Members by score, the highest first, then by agent id; those after a place in this order."""
    key = -after.distance
    rows = await (await driver_of(connection)).fetch(RANKED, tenant_id, coalition_id, key, after.id, limit)
    return [_member(coalition_id, *row) for row in rows]


async def score(
    connection: AsyncConnection, tenant_id: UUID, coalition_id: UUID, scores: Mapping[UUID, Decimal]
) -> None:
    """Set the scores of members of a locked coalition. Raises UnknownMember."""
    ids = list(scores)
    rows = await (await driver_of(connection)).fetch(SCORE, tenant_id, coalition_id, ids, list(scores.values()))
    if len(rows) < len(ids):
        found = {row["agent_id"] for row in rows}
        raise UnknownMember(coalition_id, next(agent_id for agent_id in ids if agent_id not in found))


async def first_unknown(connection: AsyncConnection, tenant_id: UUID, ids: Sequence[UUID]) -> UUID:
    """The first of these ids that is no agent's."""
    query = "SELECT id FROM agents WHERE tenant_id = $1 AND id = ANY ($2)"
    known = {row[0] for row in await (await driver_of(connection)).fetch(query, tenant_id, list(ids))}
    return next((agent_id for agent_id in ids if agent_id not in known), ids[0])


async def ids_of(connection: AsyncConnection, tenant_id: UUID, coalition_id: UUID) -> frozenset[UUID]:
    """The agents that are members."""
    found = await connection.execute(sa.select(members.c.agent_id).where(*_of(tenant_id, coalition_id)))
    return frozenset(UUID(int=agent_id.int) for agent_id in found.scalars().all())


def _member(coalition_id: UUID, agent_id: UUID, role: str, score: Decimal, joined_at: datetime) -> Member:
    return Member(
        coalition_id=coalition_id,
        agent_id=UUID(int=agent_id.int),
        role=role,
        contribution_score=score,
        joined_at=joined_at,
    )


def _of(tenant_id: UUID, coalition_id: UUID) -> tuple[sa.ColumnElement[bool], ...]:
    return members.c.tenant_id == tenant_id, members.c.coalition_id == coalition_id
