"""Rows of the outbox, written in the transaction that makes them true."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from freeagentics_persistence.database.models import coalitions, events
from freeagentics_persistence.domain.events import EventType

LATER = sa.func.greatest(sa.func.clock_timestamp(), coalitions.c.updated_at + sa.text("interval '1 microsecond'"))


async def insert_event(connection: AsyncConnection, **values: Any) -> None:
    """Insert one event; the subject's row must be locked already, so that ids follow its versions."""
    await connection.execute(sa.insert(events).values(**values))


async def bump_coalition(
    connection: AsyncConnection,
    tenant_id: UUID,
    coalition_id: UUID,
    event: EventType,
    revision: UUID,
    *,
    changes: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
) -> int:
    """Apply changes to a locked coalition as its next version, with their event; the version."""
    changed = await connection.execute(
        sa.update(coalitions)
        .where(coalitions.c.tenant_id == tenant_id, coalitions.c.id == coalition_id)
        .values(version=coalitions.c.version + 1, revision=revision, updated_at=LATER, **(changes or {}))
        .returning(coalitions.c.version, coalitions.c.updated_at)
    )
    version, updated_at = changed.one()
    await insert_event(
        connection,
        tenant_id=tenant_id,
        subject_id=coalition_id,
        type=event,
        version=version,
        revision=revision,
        recorded_at=updated_at,
        data=data,
    )
    return int(version)
