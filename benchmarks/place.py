"""One set of embedded servers, and the state from which every slice starts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import redis.asyncio as redis

from freeagentics_persistence import DEFAULT_TENANT_ID, Settings
from freeagentics_persistence.embedded import EmbeddedServers, EmbeddedUrls

SCHEMA = Path(__file__).parent / "yardsticks" / "staged.sql"
SETTINGS = (
    *("fsync", "synchronous_commit", "full_page_writes", "wal_level", "wal_compression", "max_wal_size"),
    *("shared_buffers", "work_mem", "max_connections", "jit", "autovacuum_naptime"),
)
STAGE = """
INSERT INTO benchmark.staged
SELECT $3, i.n, i.id, h.revision, h.belief_state, h.free_energy, h.belief_entropy, h.max_belief, h.belief_variance
FROM unnest($2::uuid[]) WITH ORDINALITY AS i (id, n)
JOIN agent_history h ON h.tenant_id = $1 AND h.agent_id = i.id
"""


class Server:
    """What only the superuser may do: empty tables, checkpoints, staging."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection

    async def facts(self) -> dict[str, str]:
        """Version and the settings that decide what a commit costs."""
        version = await self.connection.fetchval("SHOW server_version")
        shown = {name: await self.connection.fetchval(f"SHOW {name}") for name in SETTINGS}
        return {"server_version": version, **shown}

    async def forget_swarm(self) -> None:
        """Remove all agents with everything about them."""
        await self.connection.execute("TRUNCATE agents, deleted_agents, agent_history, events CASCADE")

    async def forget_events(self) -> None:
        """Empty history and events."""
        await self.connection.execute("TRUNCATE agent_history, events")

    async def prepare_stage(self) -> None:
        """Make the staged table, empty, and the function that writes from it."""
        await self.connection.execute(SCHEMA.read_text())

    async def stage(self, ids: Sequence[UUID], step: int) -> None:
        """Stage what the store wrote last of these agents: sealed envelopes, revisions and scalars."""
        status = await self.connection.execute(STAGE, DEFAULT_TENANT_ID, list(ids), step)
        if int(status.split()[-1]) != len(ids):
            raise RuntimeError(f"of {len(ids)} agents these were staged: {status}")
        await self.forget_events()
        await self.connection.execute("VACUUM ANALYZE benchmark.staged")

    async def envelope_bytes(self) -> int:
        """How large a staged envelope is."""
        return await self.connection.fetchval("SELECT octet_length(envelope) FROM benchmark.staged LIMIT 1")

    async def level(self) -> None:
        """Bring the server to where every slice starts.

        Empty history and events, no write-back due, and each agent's page written once since the checkpoint: the
        first write of a page after a checkpoint logs the whole page, and would be charged to whoever comes first.
        """
        await self.forget_events()
        await self.connection.execute("VACUUM ANALYZE agents")
        await self.connection.execute("CHECKPOINT")
        last = await self.connection.fetchval("SELECT max(n) FROM benchmark.staged")
        await self.connection.fetchval("SELECT benchmark.write_staged($1, 0, 1, $2, true)", DEFAULT_TENANT_ID, last)
        await self.forget_events()

    async def make_database(self, name: str) -> None:
        """Make an empty database, in place of one of that name."""
        await self.connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await self.connection.execute(f"CREATE DATABASE {name}")


@dataclass(frozen=True, slots=True)
class Place:
    """A data folder with its running servers. ``settings`` open a store on them, metrics over PostgreSQL."""

    folder: Path
    settings: Settings
    urls: EmbeddedUrls
    server: Server

    def settings_with(self, **groups: dict[str, Any]) -> Settings:
        """Settings for these servers, with other values where ``groups`` has them."""
        without_influx = {"influx": {"url": None, "token": None}}
        return Settings.load(env="embedded", data_folder=self.folder, **{**without_influx, **groups})

    def redis(self) -> redis.Redis:
        """A plain client of the cache's server."""
        return redis.Redis.from_url(self.urls.redis_url)

    async def forget_cached(self) -> None:
        """Remove all cached beliefs."""
        async with self.redis() as client:
            keys = [key async for key in client.scan_iter(match="fa:*:agent:beliefs:*", count=1000)]
            for first in range(0, len(keys), 1000):
                await client.unlink(*keys[first : first + 1000])

    @property
    def admin_url_of(self) -> Callable[[str], str]:
        """The superuser's URL of a database by name."""
        before, _, after = self.urls.admin_url.partition("/freeagentics?")
        return lambda database: f"{before}/{database}?{after}"


@asynccontextmanager
async def open_place(folder: Path, say: Callable[[str], None]) -> AsyncIterator[Place]:
    """Run embedded servers in a folder meanwhile."""
    settings = Settings.load(env="embedded", data_folder=folder, influx={"url": None, "token": None})
    async with AsyncExitStack() as stack:
        urls = await stack.enter_async_context(EmbeddedServers(folder, progress=say))
        connection = await asyncpg.connect(urls.admin_url, command_timeout=3600)
        stack.push_async_callback(connection.close)
        yield Place(folder, settings, urls, Server(connection))
