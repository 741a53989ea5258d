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
    assert [row[0] for row in await admin.fetch(EXECUTABLE, "freeagentics_relay")] == [
        "current_epoch",
        "drop_partition",
        "make_partitions",
        "partition_ranges",
    ]


async def test_partitions_are_bounded(app_database: Database) -> None:
    assert await ensure_partitions(app_database, 12) == 9
    with pytest.raises(PersistenceError, match="not 0 to 12"):
        await ensure_partitions(app_database, 13)


async def test_applications_make_partitions_and_drop_none(admin: asyncpg.Connection) -> None:
    allowed = {row[0] for row in await admin.fetch(EXECUTABLE, "freeagentics_app")}
    assert {"ensure_history_partitions", "partition_ranges"} <= allowed
    assert not {"drop_partition", "make_partitions", "fill_partitions"} & allowed


async def test_a_partition_is_made_beside_who_reads_and_writes(
    settings: Settings, admin: asyncpg.Connection, app_database: Database
) -> None:
    async with Persistence.open(settings, relay="off") as store, admin.transaction():
        await admin.execute("LOCK TABLE agent_history IN ROW EXCLUSIVE MODE")  # as one who writes
        async with asyncio.timeout(10):
            assert await ensure_partitions(app_database, 12) == 9
            await store.agents.save_agent(Agent(name="a", agent_type="t"))


async def test_a_partition_waits_briefly_for_who_changes_the_table(
    admin: asyncpg.Connection, app_database: Database
) -> None:
    month = await admin.fetchval("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY_MM')")
    async with admin.transaction():
        await admin.execute("LOCK TABLE agent_history IN SHARE UPDATE EXCLUSIVE MODE")
        assert await ensure_partitions(app_database, 12) == 0  # there is one for now, so this can wait
    await admin.execute(f"DROP TABLE agent_history_{month}")
    async with admin.transaction():
        await admin.execute("LOCK TABLE agent_history IN SHARE UPDATE EXCLUSIVE MODE")
        with pytest.raises(TimedOut):
            await ensure_partitions(app_database)
    assert await ensure_partitions(app_database) == 1
