"""PostgreSQL is killed under writers: what was acknowledged is there, and every other answer was right."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import asyncpg
import psutil
import pytest

from freeagentics_persistence import Agent, Beliefs, Persistence, new_revision
from freeagentics_persistence.embedded import EmbeddedServers
from freeagentics_persistence.errors import OutcomeUnknown, PersistenceError, Unavailable
from freeagentics_persistence.operations.servers import ServerUrls, ensure_schema, set_up_roles
from tests.conftest import settings_of

WRITERS = 60


class OwnServers:
    """Servers of this test alone, as it kills them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.embedded = EmbeddedServers(folder)
        self.urls: ServerUrls | None = None

    async def start(self) -> ServerUrls:
        urls = await self.embedded.start()
        self.urls = ServerUrls(
            admin=urls.admin_url,
            migrator=urls.migrator_url,
            app=urls.app_url,
            relay=urls.relay_url,
            redis=urls.redis_url,
        )
        return self.urls

    def kill_postgresql(self) -> None:
        """SIGKILL to the postmaster and all its children at once."""
        postmaster = psutil.Process(int((self.folder / "postgres" / "postmaster.pid").read_text().split()[0]))
        for process in [postmaster, *postmaster.children(recursive=True)]:
            os.kill(process.pid, signal.SIGKILL)


@pytest.fixture
async def own(tmp_path: Path) -> AsyncIterator[OwnServers]:
    servers = OwnServers(tmp_path / "data")
    urls = await servers.start()
    await set_up_roles(urls)
    await ensure_schema(settings_of(urls), urls)
    yield servers
    await servers.embedded.stop()


async def test_acknowledged_writes_survive_and_every_answer_is_right(own: OwnServers) -> None:
    assert own.urls is not None
    acknowledged: dict[UUID, tuple[UUID, int]] = {}
    refused: list[UUID] = []
    unknown: dict[UUID, UUID] = {}
    stop = False

    async def writer(store: Persistence, agent_id: UUID) -> None:
        while not stop:
            revision = new_revision()
            try:
                result = await store.agents.update_beliefs(agent_id, [0.5, 0.5], revision=revision)
            except OutcomeUnknown as error:
                unknown.update(dict.fromkeys(error.revisions, agent_id))
            except Unavailable:
                refused.append(revision)
                await asyncio.sleep(0.01)
            else:
                acknowledged[revision] = (agent_id, result.version)

    async with Persistence.open(settings_of(own.urls), relay="off") as store:
        agents = [Agent(name=f"a{i}", agent_type="t", beliefs=Beliefs.uniform(2)) for i in range(WRITERS)]
        (await store.agents.save_agents(agents)).raise_for_conflicts()
        tasks = [asyncio.create_task(writer(store, agent.id)) for agent in agents]
        for _ in range(3):
            await asyncio.sleep(0.4)
            # a lock keeps a statement under way, whatever else the moment finds
            blocker = await asyncpg.connect(own.urls.admin)
            await blocker.execute("BEGIN")
            await blocker.execute(f"SELECT FROM agents WHERE id = '{agents[0].id}' FOR UPDATE")
            await asyncio.sleep(0.1)
            own.kill_postgresql()
            blocker.terminate()
            await asyncio.sleep(0.1)
            await own.start()
        await asyncio.sleep(0.4)
        stop = True
        await asyncio.gather(*tasks)
        assert acknowledged
        assert unknown
        assert refused
        admin = await asyncpg.connect(own.urls.admin)
        rows = await admin.fetch("SELECT revision, agent_id, version FROM agent_history")
        stored = {row["revision"]: (row["agent_id"], row["version"]) for row in rows}
        assert len(stored) == len(rows)
        assert {revision: stored.get(revision) for revision in acknowledged} == acknowledged
        assert not stored.keys() & set(refused)
        for revision, agent_id in unknown.items():
            again = await store.agents.update_beliefs(agent_id, [0.5, 0.5], revision=revision)
            assert again.repeated == (revision in stored)
        events = await admin.fetchval("SELECT count(*) FROM events")
        assert events == await admin.fetchval("SELECT count(*) FROM agent_history")
        await admin.close()


async def test_a_store_without_its_server_says_so_and_heals(own: OwnServers) -> None:
    assert own.urls is not None
    async with Persistence.open(settings_of(own.urls)) as store:
        agent = await store.agents.save_agent(Agent(name="a", agent_type="t", beliefs=Beliefs.uniform(2)))
        own.kill_postgresql()
        for call in (
            store.agents.get_agent(agent.id),
            store.agents.save_agent(agent),
            store.agents.update_beliefs(agent.id, [1.0, 0]),
        ):
            with pytest.raises(PersistenceError) as caught:
                await call
            assert isinstance(caught.value, Unavailable | OutcomeUnknown)
            assert "PostgreSQL at" in str(caught.value)
        assert await store.agents.get_beliefs(agent.id) == Beliefs.uniform(2)  # the cache goes on
        await own.start()
        assert (await store.agents.update_beliefs(agent.id, [1.0, 0])).version >= 2
