"""The epoch: names one unbroken life of the database, new after every restore."""

from __future__ import annotations

import asyncio
import logging
from uuid import UUID

from freeagentics_persistence.database.engine import Database
from freeagentics_persistence.domain.epochs import Epoch
from freeagentics_persistence.errors import NewEpoch, PersistenceError

WATCH_SECONDS = 2.0
_log = logging.getLogger(__name__)


async def current_epoch(database: Database) -> UUID:
    """The epoch's id. A new one begins where the server or its timeline is another than it was."""
    rows = await database.fetch("SELECT current_epoch() AS id")
    return UUID(int=rows[0]["id"].int)


async def begin_epoch(owner: Database, reason: str) -> UUID:
    """Begin a new epoch, as after a restore; ``owner`` is a connection in the owner's role."""
    row = await owner.call("SELECT begin_epoch($1) AS id", reason)
    return UUID(int=row["id"].int)


async def former_epochs(database: Database) -> list[UUID]:
    """Those that ended before the present one."""
    rows = await database.fetch("SELECT id FROM epochs ORDER BY number DESC OFFSET 1")
    return [UUID(int=row["id"].int) for row in rows]


class EpochWatch:
    """Looks every two seconds whether the epoch goes on, and ends it where it does not."""

    def __init__(self, database: Database, epoch: Epoch) -> None:
        self._database = database
        self._epoch = epoch
        self._task = asyncio.get_running_loop().create_task(self._watch(), name="freeagentics epoch")

    async def _watch(self) -> None:
        while not self._epoch.ended:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                if await current_epoch(self._database) != self._epoch.id:
                    _log.error("%s", NewEpoch())
                    self._epoch.end()
            except PersistenceError as error:
                _log.debug("the epoch could not be looked at: %s", error)

    async def close(self) -> None:
        """Look no longer."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
