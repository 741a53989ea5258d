"""The epoch: names one unbroken life of the database, new after every restore."""

from __future__ import annotations

from uuid import UUID

from freeagentics_persistence.database.engine import Database


async def current_epoch(database: Database) -> UUID:
    """The epoch's id. A new one begins where the server or its timeline is another than it was."""
    rows = await database.fetch("SELECT current_epoch() AS id")
    return UUID(int=rows[0]["id"].int)


async def begin_epoch(owner: Database, reason: str) -> UUID:
    """Begin a new epoch, as after a restore; ``owner`` is a connection in the owner's role."""
    row = await owner.call("SELECT begin_epoch($1) AS id", reason)
    return UUID(int=row["id"].int)
