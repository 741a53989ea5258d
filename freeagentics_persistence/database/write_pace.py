"""Keeps writers from running away from the relay: once many events wait for a sink, they go on at its pace."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from uuid import UUID

from freeagentics_persistence.database.engine import Database
from freeagentics_persistence.errors import Overloaded, PersistenceError

LOOK_SHARE = 10  # a store looks again once it has written a tenth of what may wait
LOOK_SECONDS = 0.02  # between the looks of one that waits
LEAST_SHARE = 0.1
# sinks that a living relay serves, and that made headway lately: nobody waits for others
_WAITING = """
SELECT p.sink, s.last_value - p.reached_id AS waiting, p.reached_id
FROM relay_positions p CROSS JOIN events_id_seq s
WHERE p.epoch = $1 AND NOT p.retired AND p.reached_at > clock_timestamp() - interval '15 seconds'
    AND EXISTS (
        SELECT FROM pg_locks l
        WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
            AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND l.classid::bigint = hashtext('freeagentics relay')::bigint & 4294967295
            AND l.objid::bigint = hashtext(p.sink)::bigint & 4294967295)
ORDER BY waiting DESC LIMIT 1
"""
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Slowest:
    """The sink that most events wait for, and up to which id it has come."""

    sink: str
    waiting: int
    reached: int


class WritePace:
    """Lets writes of one store through: at once while at most ``limit`` events wait for each sink that is served.

    Above, for each event that the slowest sink takes one is let through, or less: a tenth of one where twice as many
    wait, so that several processes find their pace too. Without a limit, a relay, or headway nobody waits.
    """

    def __init__(self, database: Database, epoch: UUID, limit: int, timeout: float) -> None:
        self._database = database
        self._epoch = epoch
        self._limit = limit
        self._timeout = timeout
        self._turn = asyncio.Lock()
        self._unseen = 0  # rows written since the last look
        self._slowest: _Slowest | None = None  # while writers wait for it
        self._credit = 0.0

    async def keep(self, rows: int) -> None:
        """So many rows are about to be written. Raises Overloaded where they would have to wait for too long."""
        if not self._limit:
            return
        self._unseen += rows
        if self._slowest is None and self._unseen * LOOK_SHARE < self._limit:
            return
        try:
            async with asyncio.timeout(self._timeout), self._turn:
                await self._wait(rows)
        except TimeoutError:
            raise self._overloaded() from None

    async def _wait(self, rows: int) -> None:
        if self._slowest is None and self._unseen * LOOK_SHARE >= self._limit:
            await self._look()
        while self._slowest is not None and self._credit <= 0:
            await asyncio.sleep(LOOK_SECONDS)
            await self._look()
        self._credit -= rows

    async def _look(self) -> None:
        self._unseen = 0
        try:
            rows = await self._database.fetch(_WAITING, self._epoch)
        except PersistenceError as error:
            _log.debug("how many events wait for the relay could not be looked at: %s", error)
            rows = []
        before, self._slowest = self._slowest, None
        if not rows or rows[0]["waiting"] <= self._limit:
            return
        found = self._slowest = _Slowest(rows[0]["sink"], rows[0]["waiting"], rows[0]["reached_id"])
        if before is None or before.sink != found.sink:
            self._credit = 0.0
            return
        share = max(LEAST_SHARE, min(1.0, 2 - found.waiting / self._limit))
        self._credit = min(self._credit + (found.reached - before.reached) * share, self._limit / LOOK_SHARE)

    def _overloaded(self) -> Overloaded:
        found = self._slowest
        who = "the relay" if found is None else f"the relay to {found.sink}, for which {found.waiting:,} events wait"
        return Overloaded(
            f"nothing was written: the write waited {self._timeout:g} s for {who}. Write less at once, see why it is "
            "slow with `freeagentics-db check`, or raise RELAY_MAX_WAITING_EVENTS or RELAY_WRITE_TIMEOUT."
        )
