"""The measured server: its superuser, the staged table, and the same state before every measurement."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import asyncpg

from freeagentics_persistence.embedded import EmbeddedUrls

SCHEMA = Path(__file__).with_name("staged.sql")
SETTINGS = ("fsync", "synchronous_commit", "full_page_writes", "wal_compression", "shared_buffers")
STAGE = """
INSERT INTO benchmark.staged
SELECT $3, i.n, i.id, h.revision, h.belief_state, h.free_energy, h.belief_entropy, h.max_belief, h.belief_variance
FROM unnest($2::uuid[]) WITH ORDINALITY AS i (id, n)
JOIN agent_history h ON h.tenant_id = $1 AND h.agent_id = i.id
"""


class Server:
    """What only the superuser may do: empty tables, checkpoints, staging."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    @classmethod
    async def connect(cls, urls: EmbeddedUrls) -> Server:
        """Connect as the superuser."""
        return cls(await asyncpg.connect(urls.admin_url))

    async def close(self) -> None:
        """Leave."""
        await self._connection.close()

    async def facts(self) -> dict[str, str]:
        """Version and the settings that decide what a commit costs."""
        version = await self._connection.fetchval("SHOW server_version")
        shown = {name: await self._connection.fetchval(f"SHOW {name}") for name in SETTINGS}
        return {"server_version": version, **shown}

    async def forget_swarm(self) -> None:
        """Remove all agents with everything about them."""
        await self._connection.execute("TRUNCATE agents, agent_history, events CASCADE")

    async def forget_events(self) -> None:
        """Empty history and events."""
        await self._connection.execute("TRUNCATE agent_history, events")

    async def prepare_stage(self) -> None:
        """Make the staged table, empty, and the function that writes from it."""
        await self._connection.execute(SCHEMA.read_text())

    async def stage(self, tenant_id: UUID, ids: Sequence[UUID], step: int) -> None:
        """Stage what the store wrote last of these agents: sealed envelopes, revisions and scalars."""
        status = await self._connection.execute(STAGE, tenant_id, list(ids), step)
        if int(status.split()[-1]) != len(ids):
            raise RuntimeError(f"of {len(ids)} agents these were staged: {status}")
        await self.forget_events()
        await self._connection.execute("VACUUM ANALYZE benchmark.staged")

    async def example_envelope(self) -> bytes:
        """One staged envelope."""
        return await self._connection.fetchval("SELECT envelope FROM benchmark.staged WHERE (step, n) = (0, 1)")

    async def level(self, tenant_id: UUID) -> None:
        """Bring the server to where every measurement starts.

        Empty history and events, no write-back due, and each agent's page written once since the checkpoint: the
        first write of a page after a checkpoint logs the whole page, and would be charged to whoever comes first.
        """
        await self.forget_events()
        await self._connection.execute("VACUUM ANALYZE agents")
        await self._connection.execute("CHECKPOINT")
        last = await self._connection.fetchval("SELECT max(n) FROM benchmark.staged")
        await self._connection.fetchval("SELECT benchmark.write_staged($1, 0, 1, $2, true)", tenant_id, last)
        await self.forget_events()


class Stopwatch:
    """Counts what is done until the time is over."""

    def __init__(self, seconds: float) -> None:
        self._began = time.perf_counter()
        self._end = self._began + seconds
        self.done = 0

    @property
    def over(self) -> bool:
        """Whether the time is over."""
        return time.perf_counter() >= self._end

    def rate(self) -> float:
        """What was done per second, up to now."""
        return self.done / (time.perf_counter() - self._began)
