"""The yardstick: the same three writes, done inside the server from a staged table."""

from __future__ import annotations

import asyncio
from itertools import count

import asyncpg

from benchmarks.plan import Plan
from benchmarks.server import Stopwatch
from freeagentics_persistence import DEFAULT_TENANT_ID
from freeagentics_persistence.database.bootstrap import APP
from freeagentics_persistence.embedded import EmbeddedUrls

WRITE = "SELECT benchmark.write_staged($1, $2, $3, $4, $5)"


class InServer:
    """One statement after another on each connection; no statement waits for another connection's.

    ``repeat``: the envelope is in the agent's row, in history and in the event; else the event points at history.
    """

    def __init__(self, urls: EmbeddedUrls, plan: Plan, *, rows: int, connections: int, repeat: bool) -> None:
        self.name = f"in server x{connections}{'' if repeat else ', lean'}"
        self._urls, self._plan, self._rows, self._connections, self._repeat = urls, plan, rows, connections, repeat

    async def run(self, seconds: float) -> float:
        """Updates per second."""
        role = {"role": APP}
        connections = [
            await asyncpg.connect(self._urls.app_url, server_settings=role) for _ in range(self._connections)
        ]
        try:
            for connection in connections:
                for step in range(6):  # from the sixth call on plans are kept
                    await connection.fetchval(
                        WRITE, DEFAULT_TENANT_ID, step % self._plan.steps, 1, self._rows, self._repeat
                    )
            watch = Stopwatch(seconds)
            await asyncio.gather(*(self._write(i, connection, watch) for i, connection in enumerate(connections)))
            return watch.rate()
        finally:
            for connection in connections:
                await connection.close()

    async def _write(self, number: int, connection: asyncpg.Connection, watch: Stopwatch) -> None:
        starts = range(1, self._plan.agents + 1, self._rows)
        for step in count():
            for first in starts[number :: self._connections]:
                last = min(first + self._rows - 1, self._plan.agents)
                arguments = (step % self._plan.steps, first, last, self._repeat)
                written = await connection.fetchval(WRITE, DEFAULT_TENANT_ID, *arguments)
                watch.done += written
                if watch.over:
                    return
