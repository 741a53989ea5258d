"""The epoch: names one unbroken life of the database, new after every restore."""

from __future__ import annotations

from uuid import UUID

from freeagentics_persistence.database.engine import Database


async def current_epoch(database: Database, *, force: str | None = None) -> UUID:
    """The epoch's id. A new one begins where the server or its timeline is another, or ``force`` gives a reason."""
    row = await database.call("SELECT current_epoch($1) AS id", force)
    return UUID(int=row["id"].int)
