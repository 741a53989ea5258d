"""The feed is complete and in each agent's order, whatever transactions run beside the reader."""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from uuid import UUID, uuid4

import asyncpg
import pytest

from freeagentics_persistence import Agent, Beliefs, Coalition, Persistence
from freeagentics_persistence.database.engine import Database
from freeagentics_persistence.domain.events import Event
from freeagentics_persistence.errors import UpdatesError
from freeagentics_persistence.relay import outbox_reader
from freeagentics_persistence.relay.outbox_reader import EVENTS
from tests.support.relay import MakeReader, read_all


async def test_nothing_is_missed_or_out_of_order_under_16_writers(
    quiet_store: Persistence, relay_database: Database, admin: asyncpg.Connection, make_reader: MakeReader
) -> None:
    agents = [Agent(name=f"a{i}", agent_type="t", beliefs=Beliefs.uniform(2)) for i in range(6)]
    (await quiet_store.agents.save_agents(agents)).raise_for_conflicts()
    writing = True

    async def writer(seed: int) -> None:
        # several rows in one long transaction, in one order: ids are taken long before the commit
        rng = random.Random(seed)
        connection = await asyncpg.connect(admin_dsn(admin))
        try:
            for _ in range(25):
                async with connection.transaction():
                    chosen = sorted(rng.sample([agent.id for agent in agents], 2), key=lambda i: i.int)
                    await connection.execute("SELECT pg_current_xact_id()")
                    for agent_id in chosen:
                        await asyncio.sleep(rng.random() * 0.004)
                        await write_by_hand(connection, agent_id)
        finally:
            await connection.close()

    connection = await relay_database.connect()
    reader = make_reader(connection, "test", quiet_store.epoch, 7)
    await reader.load()
    found: list[Event] = []

    async def follow() -> None:
        while writing:
            found.extend(await read_all(reader))
            await asyncio.sleep(0.001)

    following = asyncio.create_task(follow())
    await asyncio.gather(*(writer(seed) for seed in range(16)))
    writing = False
    await following
    found += await read_all(reader)
    stored = await admin.fetchval("SELECT count(*) FROM events")
    assert len(found) == len({event.position.id for event in found}) == stored == 6 + 16 * 25 * 2
    positions = [event.position for event in found]
    assert positions == sorted(positions)
    versions: dict[UUID, list[int]] = defaultdict(list)
    for event in found:
        versions[event.subject_id].append(event.version)
    for agent_id, seen in versions.items():
        assert seen == list(range(1, len(seen) + 1)), agent_id
    await connection.close()


def admin_dsn(admin: asyncpg.Connection) -> str:
    """The URL behind an open connection."""
    parameters = admin._params
    address = admin._addr
    folder = address.rpartition("/")[0] if isinstance(address, str) else address[0]
    return f"postgresql://{parameters.user}:{parameters.password}@/{parameters.database}?host={folder}"


async def write_by_hand(connection: asyncpg.Connection, agent_id: UUID) -> None:
    """Lock, update and announce one agent, as the store's own function does."""
    row = await connection.fetchrow(
        "UPDATE agents SET version = version + 1 WHERE id = $1 RETURNING tenant_id, version", agent_id
    )
    await connection.execute(
        "INSERT INTO events (tenant_id, subject_id, type, version, revision, recorded_at) "
        "VALUES ($1, $2, 'beliefs.updated', $3, $4, clock_timestamp())",
        row["tenant_id"],
        agent_id,
        row["version"],
        uuid4(),
    )


async def test_a_repeated_delivery_has_the_same_positions(
    quiet_store: Persistence, relay_database: Database, make_reader: MakeReader
) -> None:
    agents = [Agent(name=f"a{i}", agent_type="t") for i in range(10)]
    await quiet_store.agents.save_agents(agents)
    connection = await relay_database.connect()
    first = make_reader(connection, "test", quiet_store.epoch, 4)
    await first.load()
    batch = await first.next_batch()
    assert batch is not None
    await first.commit(batch)
    lost = await first.next_batch()
    await quiet_store.agents.save_agent(Agent(name="later", agent_type="t"))
    second = make_reader(connection, "test", quiet_store.epoch, 4)
    assert await second.load()
    again = await second.next_batch()
    assert lost is not None
    assert again is not None
    assert [event.position for event in again.events] == [event.position for event in lost.events]
    await connection.close()


async def test_an_open_transaction_holds_back_nothing_but_its_own_events(
    quiet_store: Persistence, relay_database: Database, admin: asyncpg.Connection, make_reader: MakeReader
) -> None:
    connection = await relay_database.connect()
    reader = make_reader(connection, "test", quiet_store.epoch, 100)
    await reader.load()
    before = await quiet_store.agents.save_agent(Agent(name="before", agent_type="t"))
    transaction = admin.transaction()
    await transaction.start()
    await write_by_hand(admin, before.id)
    after = await quiet_store.agents.save_agent(Agent(name="after", agent_type="t"))
    assert [event.subject_id for event in await read_all(reader)] == [before.id, after.id]
    await reader.next_batch()
    assert after.updated_at is not None
    assert reader.watermark is not None
    assert reader.watermark > after.updated_at
    await transaction.commit()
    late = await read_all(reader)
    assert [(event.subject_id, event.version) for event in late] == [(before.id, 2)]
    assert await read_all(reader) == []
    await connection.close()


async def test_a_forced_epoch_starts_the_feed_anew(
    quiet_store: Persistence, relay_database: Database, make_reader: MakeReader
) -> None:
    await quiet_store.agents.save_agent(Agent(name="a", agent_type="t"))
    connection = await relay_database.connect()
    reader = make_reader(connection, "test", quiet_store.epoch, 100)
    assert not await reader.load()
    assert len(await read_all(reader)) == 1
    again = make_reader(connection, "test", quiet_store.epoch, 100)
    assert await again.load()
    assert await read_all(again) == []
    other = make_reader(connection, "test", uuid4(), 100)
    assert not await other.load()
    assert len(await read_all(other)) == 1
    await connection.close()


async def test_events_carry_what_history_holds_for_them(
    quiet_store: Persistence, relay_database: Database, make_reader: MakeReader
) -> None:
    agent = await quiet_store.agents.save_agent(Agent(name="a", agent_type="t", beliefs=Beliefs([0.5, 0.5])))
    await quiet_store.agents.update_beliefs(agent.id, [0.25, 0.75], free_energy=1.5)
    connection = await relay_database.connect()
    reader = make_reader(connection, "test", quiet_store.epoch, 100)
    await reader.load()
    saved, updated = await read_all(reader)
    assert (saved.free_energy, saved.max_belief) == (None, 0.5)
    assert (updated.free_energy, updated.max_belief) == (1.5, 0.75)
    assert saved.envelope is not None
    assert updated.envelope is not None
    assert saved.envelope != updated.envelope
    await connection.close()


async def test_removed_history_is_told_as_a_gap(
    quiet_store: Persistence, relay_database: Database, admin: asyncpg.Connection, make_reader: MakeReader
) -> None:
    gone = await quiet_store.agents.save_agent(Agent(name="gone", agent_type="t"))
    await admin.execute("DELETE FROM agent_history WHERE agent_id = $1", gone.id)
    connection = await relay_database.connect()
    reader = make_reader(connection, "test", quiet_store.epoch, 100)
    await reader.load()
    with pytest.raises(UpdatesError, match="history was removed before sink test"):
        await read_all(reader)
    reader = make_reader(connection, "test", quiet_store.epoch, 100)
    await reader.load()
    assert reader.missed is not None
    await reader.told()
    kept = await quiet_store.agents.save_agent(Agent(name="kept", agent_type="t"))
    assert [event.subject_id for event in await read_all(reader)] == [kept.id]
    await connection.close()


async def test_removed_history_takes_no_other_event_along(
    quiet_store: Persistence, relay_database: Database, admin: asyncpg.Connection, make_reader: MakeReader
) -> None:
    agents = [await quiet_store.agents.save_agent(Agent(name=f"a{i}", agent_type="t")) for i in range(7)]
    gone = [agents[2].id, agents[4].id]
    await admin.execute("DELETE FROM agent_history WHERE agent_id = ANY($1)", gone)
    connection = await relay_database.connect()
    delivered, told = [], []
    for _ in range(10):  # as a relay does, which a process takes up after another
        reader = make_reader(connection, "test", quiet_store.epoch, 5)
        await reader.load()
        if reader.missed is not None:
            told.append(await admin.fetchval("SELECT missed FROM relay_positions WHERE sink = 'test'"))
            assert delivered[-1].position < reader.missed
            await reader.told()
        if (batch := await reader.next_batch()) is None:
            break
        delivered += batch.events
        if batch.forgotten:
            with pytest.raises(UpdatesError, match=r"history was removed .* sink lacks updates \(2\)"):
                await reader.commit(batch)
            assert reader.watermark is None
        else:
            await reader.commit(batch)
    assert [event.subject_id for event in delivered] == [agent.id for agent in agents if agent.id not in gone]
    assert told == [2]
    assert [event.position for event in delivered] == sorted(event.position for event in delivered)
    row = await admin.fetchrow("SELECT delivered, missed FROM relay_positions WHERE sink = 'test'")
    assert tuple(row) == (5, 0)
    await connection.close()


async def test_what_was_told_as_lost_before_anything_was_delivered_is_where_a_sink_resumes(
    quiet_store: Persistence, relay_database: Database, admin: asyncpg.Connection, make_reader: MakeReader
) -> None:
    await quiet_store.agents.save_agent(Agent(name="gone", agent_type="t"))
    await admin.execute("DELETE FROM agent_history")
    connection = await relay_database.connect()
    for _ in range(2):
        reader = make_reader(connection, "test", quiet_store.epoch, 5)
        await reader.load()
        if (lost := reader.missed) is None:
            with pytest.raises(UpdatesError):
                await reader.next_batch()
    await reader.told()
    reader = make_reader(connection, "test", quiet_store.epoch, 5)
    await reader.load()
    assert lost is not None
    assert (reader.place.last, reader.place.delivered, reader.missed) == (lost, 0, None)
    await connection.close()


async def test_a_batch_is_bounded_in_bytes(
    quiet_store: Persistence, relay_database: Database, monkeypatch: pytest.MonkeyPatch, make_reader: MakeReader
) -> None:
    monkeypatch.setattr(outbox_reader, "MAX_BATCH_BYTES", 20_000)
    agents = [Agent(name=f"a{i}", agent_type="t", beliefs=Beliefs.uniform(1000)) for i in range(7)]  # 8 KB each
    await quiet_store.agents.save_agents(agents)
    coalition = await quiet_store.coalitions.save_coalition(Coalition(name="c", business_model="m"))
    await quiet_store.agents.save_agents(many := [Agent(name=f"b{i}", agent_type="t") for i in range(1200)])
    for _ in range(2):
        await quiet_store.coalitions.add_members(coalition.id, [agent.id for agent in many])
        await quiet_store.coalitions.remove_members(coalition.id, [agent.id for agent in many])
    connection = await relay_database.connect()
    reader = make_reader(connection, "test", quiet_store.epoch, 10_000)
    await reader.load()
    sizes, found = [], 0
    while (batch := await reader.next_batch()) is not None:
        sizes.append(sum(len(event.envelope or b"") + len(str(event.data or "")) for event in batch.events))
        found += len(batch.events)
        assert reader.watermark is None
        await reader.commit(batch)
        if batch.last:
            break
    assert found == 7 + 1 + 1200 + 4
    assert reader.watermark is not None
    assert len(sizes) > 8
    assert await reader.next_batch() is None
    await connection.close()


async def test_looks_during_a_long_transaction_are_bounded(
    quiet_store: Persistence,
    relay_database: Database,
    admin: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    make_reader: MakeReader,
) -> None:
    monkeypatch.setattr(outbox_reader, "MAX_LOOKS", 8)
    connection = await relay_database.connect()
    reader = make_reader(connection, "test", quiet_store.epoch, 100)
    await reader.load()
    agent = await quiet_store.agents.save_agent(Agent(name="a", agent_type="t", beliefs=Beliefs.uniform(2)))
    async with admin.transaction():
        await admin.execute("SELECT pg_current_xact_id()")
        assert len(await read_all(reader)) == 1
        for _ in range(20):
            assert await read_all(reader) == []
        assert len(reader._shared._outbox._unended) <= 3
        for i in range(30):
            await quiet_store.agents.update_beliefs(agent.id, [0.5, 0.5])
            assert [event.version for event in await read_all(reader)] == [i + 2]
        assert len(reader._shared._outbox._unended) <= 8
    await read_all(reader)
    await quiet_store.agents.update_beliefs(agent.id, [0.5, 0.5])
    assert [event.version for event in await read_all(reader)] == [32]
    await connection.close()


async def test_each_entry_is_looked_up_by_its_key(quiet_store: Persistence, admin: asyncpg.Connection) -> None:
    await quiet_store.agents.save_agents([Agent(name=f"a{i}", agent_type="t") for i in range(1000)])
    await admin.execute("ANALYZE agent_history, events")
    statement = await admin.prepare(EVENTS)
    plan = json.dumps(await statement.explain(0, "1:1:", "9999999:9999999:", 100, 2**25, 1))
    assert "agent_history" in plan
    assert "Hash Join" not in plan
    assert '"Seq Scan", "Parallel Aware": false, "Async Capable": false, "Relation Name": "agent_history' not in plan
