"""A backlog of events, and how long the store's relay takes to carry it to every sink."""

from __future__ import annotations

import asyncio
import time

import asyncpg

from benchmarks.place import Place
from benchmarks.swarm import STEPS
from benchmarks.timing import Sample
from benchmarks.yardsticks.in_server import WRITE
from freeagentics_persistence import DEFAULT_TENANT_ID, Persistence, Settings
from freeagentics_persistence.database.bootstrap import APP

LOOK_SECONDS = 0.002
MAX_SECONDS = 300.0
METRICS = "metrics"
DELIVERED = "SELECT sink, delivered FROM relay_positions"
RELAYS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"


class Drain:
    """Writes events with no relay running, as the store writes them, then starts one: events a second.

    ``more`` has the rate of each sink by itself: ``cache_per_s``, ``updates_per_s`` (channels and feed) and
    ``metrics_per_s``; the main figure is that of the slowest. All of them run in one process, as with
    ``relay="auto"``.
    """

    def __init__(self, place: Place, settings: Settings, agents: int, passes: int, name: str = "the relay") -> None:
        self.name = name
        self._place, self._settings, self._agents, self._passes = place, settings, agents, passes

    async def run(self, seconds: float) -> Sample:
        """The amount of work is given by the number of events, so ``seconds`` are not used."""
        await self._until_free()
        await self._write()
        try:
            async with Persistence.open(self._settings, relay="off") as store:
                relay = store.make_relay()
                before = dict(await self._place.server.connection.fetch(DELIVERED))
                wanted = {name: before.get(name, 0) + self._agents * self._passes for name in relay.states}
                took: dict[str, float] = {}
                began = time.perf_counter()
                relay.start()
                try:
                    while len(took) < len(wanted):
                        await asyncio.sleep(LOOK_SECONDS)
                        passed = time.perf_counter() - began
                        done = [name for name, count in wanted.items() if relay.states[name].delivered >= count]
                        took |= {name: passed for name in done if name not in took}
                        if passed > MAX_SECONDS:
                            raise RuntimeError(f"the relay did not come to its end: {relay.states}")
                finally:
                    await relay.close()
        finally:
            await self._place.server.connection.execute("DELETE FROM relay_positions WHERE sink = $1", METRICS)
        events = self._agents * self._passes
        return Sample(events / max(took.values()), {f"{name}_per_s": events / each for name, each in took.items()})

    async def _write(self) -> None:
        connection = await asyncpg.connect(self._place.urls.app_url, server_settings={"role": APP})
        try:
            for step in range(self._passes):
                for first in range(1, self._agents + 1, 1000):
                    last = min(first + 999, self._agents)
                    await connection.fetchval(WRITE, DEFAULT_TENANT_ID, step % STEPS, first, last, False)
        finally:
            await connection.close()

    async def _until_free(self) -> None:
        """A relay that has just ended holds its locks until PostgreSQL has noticed."""
        async with asyncio.timeout(MAX_SECONDS):
            while await self._place.server.connection.fetchval(RELAYS):  # noqa: ASYNC110 - another process's
                await asyncio.sleep(0.01)
