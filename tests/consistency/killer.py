"""What goes wrong beside the callers: processes are killed, connections cut, data lost, one after another at random."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

import asyncpg

from tests.support.redis_server import LocalRedis

PAUSE_SECONDS = 1.0  # the mean between two faults
STOPPED_SECONDS = 1.0  # for which a stopped server stands still
_CUT_BACKENDS = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


class Killer:
    """Does the chosen ``faults`` until it is stopped; ``done`` counts them.

    relay: SIGKILL to a process that is the only relay. redis: SIGKILL, and the server comes back empty. stop: SIGSTOP
    to Redis for a second. flush: FLUSHALL. clients: Redis closes all connections. backends: PostgreSQL ends all
    sessions. ``redis`` is a server of the checker's own, ``admin_url`` a superuser's.
    """

    FAULTS = ("relay", "redis", "stop", "flush", "clients", "backends")

    def __init__(
        self, faults: Sequence[str], environment: Mapping[str, str], redis: LocalRedis, admin_url: str, seed: int = 0
    ) -> None:
        self.faults = faults
        self.done: Counter[str] = Counter()
        self._environment = environment
        self._redis = redis
        self._admin_url = admin_url
        self._chance = random.Random(seed)
        self._relay: asyncio.subprocess.Process | None = None
        self._ways: dict[str, Callable[[], Awaitable[None]]] = {
            "relay": self._kill_relay,
            "redis": self._kill_redis,
            "stop": self._stop_redis,
            "flush": self._ask_redis("FLUSHALL"),
            "clients": self._cut_clients,
            "backends": self._cut_backends,
        }

    async def start(self) -> None:
        """Start what is to be killed."""
        if "relay" in self.faults:
            command = [sys.executable, "-m", "freeagentics_persistence", "relay"]
            quiet = asyncio.subprocess.DEVNULL
            self._relay = await asyncio.create_subprocess_exec(
                *command, env=dict(self._environment), stdout=quiet, stderr=quiet
            )

    async def stop(self) -> None:
        """Stop what was started."""
        relay, self._relay = self._relay, None
        if relay is not None:
            relay.kill()
            await relay.wait()

    async def go_on_until(self, end: asyncio.Event) -> None:
        """Each fault once, then any of them until the event is set; from then on nothing is broken any more."""
        waiting = self._chance.sample(self.faults, len(self.faults))
        while waiting or not end.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._chance.uniform(0.3, 1.7) * PAUSE_SECONDS):
                    await end.wait()
            if waiting or not end.is_set():
                fault = waiting.pop() if waiting else self._chance.choice(self.faults)
                await self._ways[fault]()
                self.done[fault] += 1

    async def _kill_relay(self) -> None:
        await self.stop()
        await self.start()

    async def _kill_redis(self) -> None:
        await asyncio.to_thread(self._redis.stop, kill=True)
        await asyncio.sleep(self._chance.choice((0, 0.5)))
        await asyncio.to_thread(self._redis.start)

    async def _stop_redis(self) -> None:
        os.kill(self._redis.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(STOPPED_SECONDS)
        finally:
            os.kill(self._redis.pid, signal.SIGCONT)

    def _ask_redis(self, *command: str) -> Callable[[], Awaitable[None]]:
        async def ask() -> None:
            await asyncio.to_thread(self._redis.ask, *command)

        return ask

    async def _cut_clients(self) -> None:
        for kind in ("normal", "pubsub"):
            await self._ask_redis("CLIENT", "KILL", "TYPE", kind)()

    async def _cut_backends(self) -> None:
        connection = await asyncpg.connect(self._admin_url)
        try:
            await connection.execute(_CUT_BACKENDS)
        finally:
            await connection.close()
