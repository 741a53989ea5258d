"""Behind PgBouncer in transaction mode everything works, and acknowledged still means on disk."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import numpy as np
import pytest
import sqlalchemy as sa

from freeagentics_persistence import ALL, DEFAULT_TENANT_ID, Agent, Beliefs, Coalition, Persistence, Settings
from freeagentics_persistence.database.engine import Database, DatabaseOptions
from freeagentics_persistence.errors import TimedOut
from freeagentics_persistence.operations.servers import ServerUrls
from tests.conftest import settings_of
from tests.support.pgbouncer import pgbouncer

REFUSE_LOST_WRITES = """
CREATE FUNCTION refuse_lost_writes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('synchronous_commit') <> 'on' THEN
        RAISE EXCEPTION '% is written with synchronous_commit %', TG_TABLE_NAME, current_setting('synchronous_commit');
    END IF;
    RETURN NULL;
END
$$
"""
WRITTEN = ("agents", "agent_history", "events", "coalitions", "coalition_members", "tenants", "keyring", "epochs")


@pytest.fixture
def pooled_url(urls: ServerUrls) -> Iterator[str]:
    with pgbouncer(urls.app) as url:
        yield url


@pytest.fixture
def pooled(urls: ServerUrls, pooled_url: str) -> Settings:
    """Settings of a user behind the pooler, who names one way past it."""
    database = {"url": pooled_url, "pooler": "transaction", "direct_url": urls.admin}
    return settings_of(urls, database=database)


async def test_everything_works_and_is_on_disk(
    pooled: Settings, urls: ServerUrls, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    await admin.execute(f"ALTER DATABASE {urlsplit(urls.app).path.lstrip('/')} SET synchronous_commit = off")
    await admin.execute(REFUSE_LOST_WRITES)
    for table in WRITTEN:
        await admin.execute(
            f"CREATE TRIGGER on_disk AFTER INSERT OR UPDATE OR DELETE ON {table} EXECUTE FUNCTION refuse_lost_writes()"
        )
    async with (
        Persistence.open(pooled) as store,
        store.updates.subscribe_to_agent_updates(ALL, buffer=10_000) as updates,
    ):
        agents = [Agent(name=f"a{i}", agent_type="t", beliefs=Beliefs.uniform(4)) for i in range(600)]
        (await store.agents.save_agents(agents)).raise_for_conflicts()
        ids = [agent.id for agent in agents]
        q = np.random.default_rng(1).dirichlet(np.ones(4), len(ids))
        (await store.agents.update_beliefs_many(ids, q)).raise_for_conflicts()
        (await store.agents.update_beliefs_many(ids[:5], q[:5], atomic=True)).raise_for_conflicts()
        await asyncio.gather(*(store.agents.update_beliefs(i, row) for i, row in zip(ids, q, strict=True)))
        assert np.array_equal((await store.agents.get_beliefs_many(ids, consistency="strong")).factors[0], q)
        other = await store.create_tenant("other")
        coalition = await store.coalitions.save_coalition(Coalition(name="c", business_model="m"))
        assert await store.coalitions.add_members(coalition.id, ids[:20]) == 20
        many = [store.coalitions.get_coalition_beliefs(coalition.id) for _ in range(40)]
        many += [other.agents.get_beliefs_many(ids) for _ in range(40)]
        found = await asyncio.gather(*many, *(store.agents.get_agent(i) for i in ids[:40]))
        assert [len(batch) for batch in found[:40]] == [20] * 40
        assert not any(batch.present.any() for batch in found[40:80])
        assert [agent.version for agent in found[80:]] == [4] * 5 + [3] * 35
        # a second process over the same connections of the server
        check = run_check(pooled, tmp_path)
        assert check.returncode == 0, check.stdout + check.stderr
        await store.agents.delete_agent(ids[-1])
        last: dict[object, int] = {}
        while len(last) < 600 or last[ids[-1]] < 4:
            update = await asyncio.wait_for(anext(updates), 20)
            last[update.agent_id] = update.version


def run_check(settings: Settings, folder: Path) -> subprocess.CompletedProcess[str]:
    database, key = settings.database, settings.encryption.key
    assert database.url is not None
    assert database.direct_url is not None
    assert settings.redis.url is not None
    assert key is not None
    ours = ("DATABASE_", "REDIS_", "INFLUXDB_", "ENCRYPTION_", "FREEAGENTICS_")
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith(ours)},
        "DATABASE_URL": database.url.get_secret_value(),
        "DATABASE_DIRECT_URL": database.direct_url.get_secret_value(),
        "DATABASE_POOLER": "transaction",
        "REDIS_URL": settings.redis.url.get_secret_value(),
        "ENCRYPTION_KEY": key.get_secret_value(),
    }
    command = [sys.executable, "-m", "freeagentics_persistence", "check"]
    return subprocess.run(command, env=variables, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


async def test_transactions_bring_their_time_outs(urls: ServerUrls, pooled_url: str) -> None:
    database = Database(pooled_url, DatabaseOptions(through_pooler=True, statement_timeout=0.5))
    try:
        for scope in (database.read, database.write, database.read_snapshot):
            async with scope(DEFAULT_TENANT_ID) as connection:
                for name in ("statement_timeout", "idle_in_transaction_session_timeout"):
                    assert await connection.scalar(sa.text(f"SHOW {name}")) == "500ms"
        with pytest.raises(TimedOut):
            async with database.write(DEFAULT_TENANT_ID) as connection:
                await connection.execute(sa.text("SELECT pg_sleep(3)"))
        assert (await database.fetch("SHOW statement_timeout"))[0][0] == "0"
    finally:
        await database.close()
