"""Each role has the rights that its task takes, and no others."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from freeagentics_persistence import Agent, Persistence, Settings
from freeagentics_persistence.database.engine import Database
from freeagentics_persistence.database.partitions import ensure_partitions
from freeagentics_persistence.errors import PersistenceError, TimedOut

GRANTED = """
SELECT table_name || ': ' || string_agg(privilege_type, ', ' ORDER BY privilege_type)
FROM information_schema.role_table_grants WHERE grantee = $1 AND table_schema = 'public' GROUP BY table_name
ORDER BY table_name
"""
EXECUTABLE = """
SELECT proname::text FROM pg_proc
WHERE pronamespace = 'public'::regnamespace AND has_function_privilege($1, oid, 'EXECUTE') ORDER BY proname
"""


async def test_the_relay_sees_events_and_what_they_point_at(admin: asyncpg.Connection) -> None:
    tables = [row[0] for row in await admin.fetch(GRANTED, "freeagentics_relay")]
    assert tables[:3] == ["agent_history: SELECT", "epochs: SELECT", "events: DELETE, SELECT"]
    assert [table.partition(":")[0] for table in tables[3:]] == ["relay_positions"]
    assert [row[0] for row in await admin.fetch(EXECUTABLE, "freeagentics_relay")] == ["current_epoch"]


async def test_partitions_are_bounded(app_database: Database) -> None:
    assert await ensure_partitions(app_database, 12) == 9
    with pytest.raises(PersistenceError, match="not 0 to 12"):
        await ensure_partitions(app_database, 13)


async def test_a_partition_does_not_wait_long_in_everybodys_way(
    settings: Settings, admin: asyncpg.Connection, app_database: Database
) -> None:
    month = await admin.fetchval("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY_MM')")
    async with Persistence.open(settings, relay="off") as store:
        reading = admin.transaction()
        await reading.start()
        await admin.fetchval("SELECT count(*) FROM agent_history")
        making = asyncio.create_task(ensure_partitions(app_database, 12))
        await asyncio.sleep(0.3)
        async with asyncio.timeout(10):  # who comes after it waits for no longer than it does
            await store.agents.save_agent(Agent(name="a", agent_type="t"))
        assert await making == 0
        await reading.rollback()
        await admin.execute(f"DROP TABLE agent_history_{month}")
        async with admin.transaction():
            await admin.fetchval("SELECT count(*) FROM agent_history")
            with pytest.raises(TimedOut):
                await ensure_partitions(app_database)
        assert await ensure_partitions(app_database) == 1
