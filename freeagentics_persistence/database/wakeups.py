"""Wakes relays after commits: one coalesced NOTIFY, never inside a transaction (there it would serialise commits)."""

from __future__ import annotations

import asyncio
import logging

from freeagentics_persistence.database.engine import Database
from freeagentics_persistence.errors import PersistenceError

CHANNEL = "freeagentics_events"
INTERVAL = 0.005
_log = logging.getLogger(__name__)


class Wakeups:
    """``wake()`` after a commit; at most one NOTIFY every 5 ms leaves."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._task: asyncio.Task[None] | None = None
        self._again = False

    def wake(self) -> None:
        """Something was committed."""
        self._again = True
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._send(), name="freeagentics wake-ups")

    async def _send(self) -> None:
        while self._again:
            self._again = False
            try:
                await self._database.fetch(f"SELECT pg_notify('{CHANNEL}', '')")
            except PersistenceError as error:
                _log.info("a wake-up was not sent, so relays find the events by polling: %s", error)
            await asyncio.sleep(INTERVAL)

    async def close(self) -> None:
        """Send what is due."""
        if self._task is not None:
            await self._task
