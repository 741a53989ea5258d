"""Rows of the outbox, written in the transaction that makes them true."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from freeagentics_persistence.database.models import events


async def insert_event(connection: AsyncConnection, **values: Any) -> None:
    """Insert one event; the subject's row must be locked already, so that ids follow its versions."""
    await connection.execute(sa.insert(events).values(**values))
