"""Connections are cut under a batch: the error is right, and repeating the call stores each row once."""

from __future__ import annotations

import asyncio

import asyncpg
import numpy as np
import pytest

from freeagentics_persistence import Agent, Beliefs, Persistence, Settings
from freeagentics_persistence.errors import ConfigurationError, OutcomeUnknown
from freeagentics_persistence.operations.servers import ServerUrls
from tests.conftest import settings_of

ROWS = 6000
CUT = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'freeagentics-persistence'
"""
WAITS = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"


async def test_a_batch_that_was_cut_is_repeated_whole(settings: Settings, admin: asyncpg.Connection) -> None:
    small = settings.model_copy(update={"database": settings.database.model_copy(update={"batch_rows": 250})})
    async with Persistence.open(small, relay="off") as store:
        agents = [Agent(name=f"a{i}", agent_type="t", beliefs=Beliefs.uniform(64)) for i in range(ROWS)]
        (await store.agents.save_agents(agents)).raise_for_conflicts()
        ids = [agent.id for agent in agents]
        q = np.random.default_rng(1).dirichlet(np.ones(64), ROWS)
        async with admin.transaction():
            # a lock keeps one statement under way until the cut
            await admin.execute("SELECT FROM agents WHERE id = $1 FOR UPDATE", ids[-1])
            writing = asyncio.create_task(store.agents.update_beliefs_many(ids, q))
            while await admin.fetchval("SELECT count(*) FROM agents WHERE version = 2") == 0:
                await asyncio.sleep(0.001)
            while not await admin.fetchval(WAITS):
                await asyncio.sleep(0.001)
            await admin.fetchval(CUT)
        with pytest.raises(OutcomeUnknown, match="rows are stored") as caught:
            await writing
        assert len(caught.value.revisions) == ROWS
        assert await admin.fetchval("SELECT count(*) FROM agents WHERE version = 1") > 0
        again = await store.agents.update_beliefs_many(ids, q, revisions=caught.value.revisions)
        assert again.ok
        assert 0 < again.written < ROWS
        assert (again.versions == 2).all()
        stored = await store.agents.get_beliefs_many(ids, consistency="strong")
        assert np.array_equal(stored.factors[0], q)
        assert await admin.fetchval("SELECT count(*) FROM events WHERE version = 2") == ROWS


async def test_production_refuses_a_login_that_could_pass_row_level_security(urls: ServerUrls) -> None:
    assert urls.admin is not None
    database = {"url": urls.admin, "auto_migrate": False}
    with pytest.raises(ConfigurationError, match="row-level security"):
        async with Persistence.open(settings_of(urls, env="production", database=database), relay="off"):
            pass
    database["url"] = urls.app
    async with Persistence.open(settings_of(urls, env="production", database=database), relay="off"):
        pass
