"""The keeper of partitions: ahead, dropped, by days, beside writers, several at once; and reads over many months."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import asyncpg
import pytest

from freeagentics_persistence import Agent, Beliefs, HistoryPolicy, Persistence, Settings
from freeagentics_persistence.database import partitions
from freeagentics_persistence.database.engine import Database
from freeagentics_persistence.database.partitions import (
    PartitionRules,
    Upkeep,
    ensure_partitions,
    keep_partitions,
    list_partitions,
    next_partition,
)
from freeagentics_persistence.operations.migration_manager import MigrationManager
from freeagentics_persistence.operations.servers import ServerUrls
from tests.conftest import settings_of

YEAR, DAY = timedelta(days=365), timedelta(days=1)
MONTHLY = PartitionRules(unit="month", retention=YEAR, revision_memory=DAY)
DAILY = PartitionRules(unit="day", retention=timedelta(days=30), revision_memory=DAY)
FORMER = """
CREATE TABLE {name} PARTITION OF {parent}
FOR VALUES FROM ('{starts:%Y-%m-%d} 00:00+00') TO ('{ends:%Y-%m-%d} 00:00+00');
ALTER TABLE {name} OWNER TO freeagentics_owner
"""
NOW = datetime.now(UTC)
TODAY = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
MONTH = TODAY.replace(day=1)


def months_ago(count: int) -> datetime:
    """The first moment of a month."""
    month = MONTH.year * 12 + MONTH.month - 1 - count
    return MONTH.replace(year=month // 12, month=month % 12 + 1)


async def add_months(admin: asyncpg.Connection, first: int, last: int) -> list[str]:
    """Monthly partitions from so many months ago to so many."""
    names = []
    for count in range(first, last - 1, -1):
        starts, ends = months_ago(count), months_ago(count - 1)
        names.append(f"agent_history_{starts:%Y_%m}")
        await admin.execute(FORMER.format(parent="agent_history", name=names[-1], starts=starts, ends=ends))
    return names


@pytest.fixture
async def connection(relay_database: Database) -> AsyncIterator[asyncpg.Connection]:
    """The keeper's."""
    opened = await relay_database.connect()
    yield opened
    await opened.close()


async def test_what_expired_is_dropped_and_what_is_to_come_is_made(
    connection: asyncpg.Connection, admin: asyncpg.Connection
) -> None:
    assert await keep_partitions(connection, MONTHLY) == Upkeep(made=[], dropped=[], busy=[])
    former = await add_months(admin, 15, 10)
    coming = f"agent_history_{months_ago(-2):%Y_%m}"
    await admin.execute(f"DROP TABLE {coming}")
    old = FORMER.format(
        parent="accepted_revisions", name="accepted_revisions_old", starts=TODAY - 4 * DAY, ends=TODAY - 3 * DAY
    )
    await admin.execute(old)
    expired = [name for name, ago in zip(former, range(15, 9, -1), strict=True) if months_ago(ago - 1) <= NOW - YEAR]
    assert len(expired) in (2, 3)
    planned = await keep_partitions(connection, MONTHLY, dry_run=True)
    assert planned == Upkeep(made=[coming], dropped=[*expired, "accepted_revisions_old"], busy=[])
    before = await list_partitions(connection)
    assert {"accepted_revisions_old", *expired} <= {each.name for each in before}  # nothing was done
    assert await keep_partitions(connection, MONTHLY) == planned
    assert await keep_partitions(connection, MONTHLY) == Upkeep(made=[], dropped=[], busy=[])
    left = [each for each in await list_partitions(connection) if each.parent == "agent_history"]
    assert all(each.ends > each.now - YEAR for each in left)


async def test_months_that_hold_nothing_make_way_for_days_and_back(
    quiet_store: Persistence, connection: asyncpg.Connection, admin: asyncpg.Connection, app_database: Database
) -> None:
    agent = await quiet_store.agents.save_agent(Agent(name="a", agent_type="t", beliefs=[1.0]))
    filled = f"agent_history_{months_ago(-2):%Y_%m}"
    await admin.execute(
        f"INSERT INTO {filled} SELECT tenant_id, agent_id, $1, 9, NULL, revision FROM agent_history", months_ago(-2)
    )
    await keep_partitions(connection, DAILY)
    found = [each for each in await list_partitions(connection) if each.parent == "agent_history"]
    wide = [each.name for each in found if each.ends - each.starts > DAY and each.starts > NOW]
    assert wide == [filled]
    begins, following = next_partition(found)
    assert (begins, following and following.name) == (months_ago(-1), f"agent_history_{months_ago(-1):%Y_%m_%d}")
    assert await ensure_partitions(app_database) == 0  # goes on by days
    await keep_partitions(connection, MONTHLY)
    bounds = sorted((e.starts, e.ends) for e in await list_partitions(connection) if e.parent == "agent_history")
    assert all(end == start for (_, end), (start, _) in pairwise(bounds))
    assert bounds[-1][1] >= months_ago(-4)
    assert (await quiet_store.agents.update_beliefs(agent.id, [1.0])).version == 2


async def test_a_database_of_days_from_the_first_on(
    urls: ServerUrls, connection: asyncpg.Connection, admin: asyncpg.Connection
) -> None:
    for each in await list_partitions(connection):
        await admin.execute(f"DROP TABLE {each.name}")
    made = (await keep_partitions(connection, DAILY)).made
    days = [TODAY + i * DAY for i in range(-1, 15)]
    assert [name for name in made if name.startswith("agent_history")] == [
        f"agent_history_{day:%Y_%m_%d}" for day in days
    ]
    begins, following = next_partition(await list_partitions(connection))
    assert (begins, following and following.name) == (TODAY + DAY, f"agent_history_{TODAY + DAY:%Y_%m_%d}")
    async with Persistence.open(settings_of(urls, history={"partitions": "day"}), relay="off") as store:
        agent = await store.agents.save_agent(Agent(name="a", agent_type="t", beliefs=[0.5, 0.5]))
        await admin.execute(f"DROP TABLE agent_history_{TODAY:%Y_%m_%d}")
        await store.agents.update_beliefs(agent.id, [1.0, 0.0])  # makes the day that is missing
    assert await admin.fetchval(f"SELECT count(*) FROM agent_history_{TODAY:%Y_%m_%d}") == 1


async def test_days_become_months_again_when_the_migration_is_undone(
    settings: Settings, connection: asyncpg.Connection, admin: asyncpg.Connection, owner_database: Database
) -> None:
    async with Persistence.open(settings, relay="off") as store:
        for each in await list_partitions(connection):
            await admin.execute(f"DROP TABLE {each.name}")
        await keep_partitions(connection, DAILY)
        await store.history.set_policy("t", HistoryPolicy.every(5))
        agent = await store.agents.save_agent(Agent(name="a", agent_type="t", beliefs=[0.5, 0.5]))
        for _ in range(3):
            await store.agents.update_beliefs(agent.id, [1.0, 0.0])
    manager = MigrationManager(owner_database)
    await manager.rollback_migration("0007")
    # what history had skipped last is all that code without policies would miss
    rows = await admin.fetch("SELECT version, belief_state FROM agent_history ORDER BY version")
    assert [row["version"] for row in rows] == [1, 4]
    assert rows[1]["belief_state"] == await admin.fetchval("SELECT belief_state FROM agents")
    tables = await admin.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'agent_history'::regclass"
    )
    assert all(re.fullmatch(r"agent_history_\d{4}_\d{2}", row["name"]) for row in tables)
    assert await admin.fetchval("SELECT ensure_history_partitions(3)") > 0
    await manager.run_migrations()
    assert await manager.differences() == []
    async with Persistence.open(settings, relay="off") as store:
        changes = [(change.version, change.beliefs) async for change in store.agents.get_belief_history(agent.id)]
    assert changes == [(1, Beliefs([0.5, 0.5])), (4, Beliefs([1.0, 0.0]))]


async def test_several_keepers_at_once(relay_database: Database, admin: asyncpg.Connection) -> None:
    former = await add_months(admin, 16, 14)
    await admin.execute(f"DROP TABLE agent_history_{months_ago(-1):%Y_%m}")
    connections = [await relay_database.connect() for _ in range(4)]
    done = await asyncio.gather(*(keep_partitions(each, MONTHLY) for each in connections))
    assert sorted(name for each in done for name in each.dropped) == former
    assert [name for each in done for name in each.made] == [f"agent_history_{months_ago(-1):%Y_%m}"]
    assert all(not each.busy for each in done)
    await add_months(admin, 16, 16)
    async with admin.transaction():
        await admin.execute("SELECT pg_advisory_xact_lock(hashtext('freeagentics partitions'))")
        with pytest.raises(asyncpg.LockNotAvailableError):  # one looks only when the other is done
            await connections[0].fetchval("SELECT drop_partition($1)", former[0])
    for each in connections:
        await each.close()


async def test_a_partition_that_is_read_is_left_and_writers_go_on(
    quiet_store: Persistence,
    connection: asyncpg.Connection,
    admin: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(partitions, "ATTEMPTS", 2)
    monkeypatch.setattr(partitions, "PAUSE", 0.01)
    former = await add_months(admin, 14, 14)
    agent = await quiet_store.agents.save_agent(Agent(name="a", agent_type="t"))
    async with admin.transaction():
        await admin.fetchval("SELECT count(*) FROM agent_history")
        keeping = asyncio.create_task(keep_partitions(connection, MONTHLY))
        async with asyncio.timeout(5):
            while not keeping.done():
                await quiet_store.agents.update_beliefs(agent.id, [1.0, 0.0])
        assert (await keeping).busy == former
    assert (await keep_partitions(connection, MONTHLY)).dropped == former


async def test_the_present_is_never_dropped(connection: asyncpg.Connection) -> None:
    for name in (f"agent_history_{NOW:%Y_%m}", f"accepted_revisions_{NOW:%Y_%m_%d}"):
        with pytest.raises(asyncpg.InvalidParameterValueError, match="less than a day ago"):
            await connection.fetchval("SELECT drop_partition($1)", name)
    assert await connection.fetchval("SELECT drop_partition('agents')") is False
    with pytest.raises(asyncpg.InvalidParameterValueError, match="not month or day"):
        await connection.fetch("SELECT make_partitions('week')")


async def test_a_relay_keeps_partitions_from_its_opening_on(settings: Settings, admin: asyncpg.Connection) -> None:
    former = await add_months(admin, 14, 14)
    async with Persistence.open(settings), asyncio.timeout(20):
        while await admin.fetchval("SELECT to_regclass($1)", former[0]) is not None:
            await asyncio.sleep(0.02)
