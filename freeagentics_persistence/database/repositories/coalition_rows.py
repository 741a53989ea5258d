"""Rows of coalitions: read, locked for a change, and turned into entities."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from freeagentics_persistence.database.models import coalitions as table
from freeagentics_persistence.database.repositories.member_rows import count
from freeagentics_persistence.domain.coalitions import Coalition, CoalitionStatus, next_status
from freeagentics_persistence.errors import CoalitionDissolved, ConcurrentUpdate, UnknownCoalition


def select(tenant_id: UUID, coalition_id: UUID) -> sa.Select[Any]:
    """The row of one coalition."""
    return sa.select(table).where(table.c.tenant_id == tenant_id, table.c.id == coalition_id)


async def load(connection: AsyncConnection, tenant_id: UUID, coalition_id: UUID) -> Any:
    """The row. Raises UnknownCoalition."""
    row = (await connection.execute(select(tenant_id, coalition_id))).first()
    if row is None:
        raise UnknownCoalition(coalition_id)
    return row


async def lock(connection: AsyncConnection, tenant_id: UUID, coalition_id: UUID, expected: int | None = None) -> Any:
    """The row, locked for a change. Raises UnknownCoalition, ConcurrentUpdate, CoalitionDissolved."""
    try:
        row = await lock_any(connection, tenant_id, coalition_id)
    except UnknownCoalition:
        if expected is None:
            raise
        raise ConcurrentUpdate(f"coalition {coalition_id}", expected, None) from None
    if expected is not None and row.version != expected:
        raise ConcurrentUpdate(f"coalition {coalition_id}", expected, row.version)
    require_not_dissolved(row)
    return row


async def lock_any(connection: AsyncConnection, tenant_id: UUID, coalition_id: UUID) -> Any:
    """The row, locked, also of a dissolved coalition. Raises UnknownCoalition."""
    row = (await connection.execute(select(tenant_id, coalition_id).with_for_update(key_share=True))).first()
    if row is None:
        raise UnknownCoalition(coalition_id)
    return row


async def insert_new(
    connection: AsyncConnection, tenant_id: UUID, coalition_id: UUID, values: dict[str, Any], revision: UUID
) -> Any:
    """The row of a new coalition at version 1, None where there is one with this id."""
    new = insert(table).values(tenant_id=tenant_id, id=coalition_id, revision=revision, **values)
    inserted = new.on_conflict_do_nothing(constraint="coalitions_pkey").returning(*table.c)
    return (await connection.execute(inserted)).first()


def require_not_dissolved(row: Any) -> None:
    """Raise CoalitionDissolved where it takes no more changes."""
    if row.status == CoalitionStatus.DISSOLVED:
        raise CoalitionDissolved(
            f"coalition {row.id} was dissolved at {row.dissolved_at:%Y-%m-%d %H:%M}, which is final: it takes no "
            "status, member or revenue any more. Nothing was written: save another coalition."
        )


async def status_after(
    connection: AsyncConnection,
    row: Any,
    wanted: str,
    *,
    initial_capital: Decimal | None = None,
    total_revenue: Decimal | None = None,
) -> str:
    """The status of a locked coalition after a change; money that changes is given. See next_status."""
    present, members = CoalitionStatus(row.status), 0
    if present is CoalitionStatus.FORMING and wanted == CoalitionStatus.ACTIVE:
        members = await count(connection, row.tenant_id, row.id)
    status = next_status(
        UUID(int=row.id.int),
        present,
        CoalitionStatus(wanted),
        members=members,
        initial_capital=row.initial_capital if initial_capital is None else initial_capital,
        total_revenue=row.total_revenue if total_revenue is None else total_revenue,
    )
    return status.value


def coalition_of_row(row: Any) -> Coalition:
    """The coalition of a row of ``coalitions``."""
    return Coalition(
        id=row.id,
        tenant_id=UUID(int=row.tenant_id.int),
        name=row.name,
        business_model=row.business_model,
        formation_criteria=row.formation_criteria,
        business_config=row.business_config,
        initial_capital=row.initial_capital,
        current_capital=row.current_capital,
        total_revenue=row.total_revenue,
        status=CoalitionStatus(row.status),
        version=row.version,
        created_at=row.created_at,
        updated_at=row.updated_at,
        dissolved_at=row.dissolved_at,
    )
