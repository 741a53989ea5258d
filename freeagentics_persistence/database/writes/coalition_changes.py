"""Changes of coalitions: each is the next version, with its performance and its event in the same transaction."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from freeagentics_persistence.database.models import coalition_members, coalition_performance, coalitions
from freeagentics_persistence.database.writes.event_rows import insert_event
from freeagentics_persistence.domain.events import EventType
from freeagentics_persistence.domain.performance import performance_data

LATER = sa.func.greatest(sa.func.clock_timestamp(), coalitions.c.updated_at + sa.text("interval '1 microsecond'"))
_MEMBERS = (
    sa.select(sa.func.count())
    .where(coalition_members.c.tenant_id == coalitions.c.tenant_id, coalition_members.c.coalition_id == coalitions.c.id)
    .correlate(coalitions)
    .scalar_subquery()
)


async def change_coalition(
    connection: AsyncConnection,
    tenant_id: UUID,
    coalition_id: UUID,
    event: EventType,
    revision: UUID,
    *,
    changes: Mapping[str, Any] | None = None,
    booked: Decimal | None = None,
    efficiency: float | None = None,
    data: Mapping[str, Any] | None = None,
) -> Any:
    """Apply changes to a locked coalition as its next version; its row as it is then.

    Members that changed are written before, as they are counted here. ``booked`` is revenue, already in ``changes``.
    """
    changed = await connection.execute(
        sa.update(coalitions)
        .where(coalitions.c.tenant_id == tenant_id, coalitions.c.id == coalition_id)
        .values(version=coalitions.c.version + 1, revision=revision, updated_at=LATER, **(changes or {}))
        .returning(*coalitions.c, _MEMBERS.label("members"))
    )
    row = changed.one()
    await record_change(connection, row, event, members=row.members, booked=booked, efficiency=efficiency, data=data)
    return row


async def record_change(
    connection: AsyncConnection,
    row: Any,
    event: EventType,
    *,
    members: int,
    booked: Decimal | None = None,
    efficiency: float | None = None,
    data: Mapping[str, Any] | None = None,
) -> None:
    """The performance and the event of a change that left a coalition as ``row``, with so many members."""
    performance = performance_data(members, None if booked is None else float(booked), efficiency)
    money = {"total_revenue": row.total_revenue, "current_capital": row.current_capital}
    common = {
        "tenant_id": row.tenant_id,
        "version": row.version,
        "revision": row.revision,
        "recorded_at": row.updated_at,
    }
    await connection.execute(
        sa.insert(coalition_performance).values(
            coalition_id=row.id, booked=booked, status=row.status, **common, **performance, **money
        )
    )
    readable = {**(data or {}), **performance, **{name: float(amount) for name, amount in money.items()}}
    await insert_event(connection, subject_id=row.id, type=event, data=readable, **common)
