"""The limit: the same three writes, done inside the server from a staged table."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count, product
from statistics import median

import asyncpg

from benchmarks.place import Place
from benchmarks.row import Slices
from benchmarks.scene import Scene
from benchmarks.swarm import STEPS, Swarm
from benchmarks.timing import Sample, Stopwatch
from freeagentics_persistence import DEFAULT_TENANT_ID
from freeagentics_persistence.database.bootstrap import APP

WRITE = "SELECT benchmark.write_staged($1, $2, $3, $4, $5)"
CONNECTIONS = (1, 2)
ROWS = (512, 1000, 2000, 5000, 10_000)
QUICK_ROWS = (512, 2000)
WARM_UP_CALLS = 6  # from the sixth call on plans are kept


class InServer:
    """One statement after another on each connection; no statement waits for another connection's.

    ``repeat``: the envelope is in the agent's row, in history and in the event; else the event points at history,
    which is what the store itself writes ("lean").
    """

    def __init__(self, place: Place, agents: int, *, rows: int, connections: int, repeat: bool = True) -> None:
        self.name = f"in-server {connections}x{rows:,}{'' if repeat else ' lean'}"
        self._place, self._agents, self._rows, self._repeat = place, agents, rows, repeat
        self._connections = connections

    async def run(self, seconds: float) -> Sample:
        """Updates per second."""
        url, role = self._place.urls.app_url, {"role": APP}
        connections = [await asyncpg.connect(url, server_settings=role) for _ in range(self._connections)]
        try:
            for connection in connections:
                for step in range(WARM_UP_CALLS):
                    await connection.fetchval(WRITE, DEFAULT_TENANT_ID, step % STEPS, 1, self._rows, self._repeat)
            watch = Stopwatch(seconds)
            await asyncio.gather(*(self._write(i, connection, watch) for i, connection in enumerate(connections)))
            return Sample(watch.rate())
        finally:
            for connection in connections:
                await connection.close()

    async def _write(self, number: int, connection: asyncpg.Connection, watch: Stopwatch) -> None:
        starts = range(1, self._agents + 1, self._rows)
        for step in count():
            for first in starts[number :: self._connections]:
                last = min(first + self._rows - 1, self._agents)
                # awaited before it is added: += would add to the count from before the other connection's statement
                written = await connection.fetchval(WRITE, DEFAULT_TENANT_ID, step % STEPS, first, last, self._repeat)
                watch.done += written
                if watch.over:
                    return


async def best_in_server(
    scene: Scene, swarm: Swarm, rounds: int, seconds: float, rows: Sequence[int] = ROWS
) -> tuple[InServer, InServer]:
    """The fastest way to write the swarm inside the server, and the same one lean.

    Every number of connections and of ``rows`` a statement is tried, in slices of its own, once for each swarm.
    """
    agents = len(swarm.ids)
    key = (agents, swarm.dimension)
    if key not in scene.best_in_server:
        ways = [(c, r) for c, r in product(CONNECTIONS, rows) if c * r <= agents]
        tried = {InServer(scene.place, agents, rows=r, connections=c): (c, r) for c, r in ways}
        slices = Slices(rounds, seconds, scene.say, scene.place.server.level, f"{swarm.label}, finding the limit")
        samples = await slices.take(list(tried))
        best = max(tried, key=lambda each: median(sample.value for sample in samples[each.name]))
        scene.best_in_server[key] = tried[best]
    connections, size = scene.best_in_server[key]
    full = InServer(scene.place, agents, rows=size, connections=connections)
    return full, InServer(scene.place, agents, rows=size, connections=connections, repeat=False)
