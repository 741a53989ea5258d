"""Events go once every sink has them; what has to be given up is told, and no sink is waited for in vain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
import pytest

from freeagentics_persistence import Agent, Persistence
from freeagentics_persistence.database.engine import Database
from freeagentics_persistence.domain.epochs import Epoch
from freeagentics_persistence.domain.events import Event, FeedPosition
from freeagentics_persistence.errors import UpdatesError
from freeagentics_persistence.relay import relay as relay_module
from freeagentics_persistence.relay import trimming
from freeagentics_persistence.relay.places import register
from freeagentics_persistence.relay.relay import Relay, RelayOptions
from freeagentics_persistence.relay.trimming import trim
from tests.support.relay import MakeReader, read_all

DAY = 24.0


async def stall(admin: asyncpg.Connection, sink: str, seconds: float = 61) -> None:
    """Let a sink have made no headway for so long."""
    moved = "updated_at = updated_at - make_interval(secs => $2), wanted_at = wanted_at - make_interval(secs => $2)"
    await admin.execute(f"UPDATE relay_positions SET {moved} WHERE sink = $1", sink, seconds)


async def age(admin: asyncpg.Connection, newest: int) -> None:
    """Let the events up to a number, and their history, be two days old."""
    await admin.execute(
        "UPDATE agent_history h SET recorded_at = h.recorded_at - interval '2 days' FROM events e "
        "WHERE h.agent_id = e.subject_id AND h.revision = e.revision AND e.id <= $1",
        newest,
    )
    await admin.execute("UPDATE events SET recorded_at = recorded_at - interval '2 days' WHERE id <= $1", newest)


async def save(store: Persistence, count: int) -> list[UUID]:
    """So many events, one for each agent."""
    agents = [Agent(name=f"a{i}", agent_type="t") for i in range(count)]
    for agent in agents:
        await store.agents.save_agent(agent)
    return [agent.id for agent in agents]


@pytest.fixture
async def connection(relay_database: Database) -> AsyncIterator[asyncpg.Connection]:
    """One of the relay's role."""
    opened = await relay_database.connect()
    yield opened
    await opened.close()


@pytest.mark.parametrize("sinks", [1, 2])
async def test_events_go_once_every_sink_has_them(
    quiet_store: Persistence, relay_database: Database, admin: asyncpg.Connection, sinks: int, make_reader: MakeReader
) -> None:
    await quiet_store.agents.save_agents([Agent(name=f"a{i}", agent_type="t") for i in range(5)])
    connection = await relay_database.connect()
    readers = [make_reader(connection, f"sink{i}", quiet_store.epoch, 100) for i in range(sinks)]
    for reader in readers:
        await reader.load()
    for i, reader in enumerate(readers):
        assert await admin.fetchval("SELECT count(*) FROM events") == 5
        assert len(await read_all(reader)) == 5
        await reader.store()
        removed = await trim(connection, quiet_store.epoch, 24)
        assert removed == (5 if i == sinks - 1 else 0)
    await connection.close()


async def test_events_too_old_are_given_up_and_the_sink_is_told(
    quiet_store: Persistence,
    relay_database: Database,
    admin: asyncpg.Connection,
    caplog: pytest.LogCaptureFixture,
    make_reader: MakeReader,
) -> None:
    for name in ("old", "new"):
        await quiet_store.agents.save_agent(Agent(name=name, agent_type="t"))
    connection = await relay_database.connect()
    await register(connection, ["here", "away"], quiet_store.epoch)
    for table, mark in (("agent_history", "agent_id"), ("events", "subject_id")):
        await admin.execute(
            f"UPDATE {table} SET recorded_at = recorded_at - interval '2 days' "
            f"WHERE {mark} = (SELECT id FROM agents WHERE name = 'old')"
        )
    here = make_reader(connection, "here", quiet_store.epoch, 100)
    assert await here.load()
    assert len(await read_all(here)) == 2
    assert await trim(connection, quiet_store.epoch, None) == 0  # the other sink has a moment to come back first
    assert await trim(connection, quiet_store.epoch, 24) == 0
    await stall(admin, "away")
    assert await trim(connection, quiet_store.epoch, 24) == 1
    assert "away lags" in caplog.text
    away = make_reader(connection, "away", quiet_store.epoch, 100)
    await away.load()
    assert away.missed is not None
    assert away.place.last == away.missed
    await away.told()
    left = await read_all(away)
    assert [event.data["name"] for event in left if event.data] == ["new"]
    again = make_reader(connection, "away", quiet_store.epoch, 100)
    await again.load()
    assert again.missed is None
    await connection.close()


async def test_a_sink_that_comes_a_moment_later_misses_nothing(
    quiet_store: Persistence, relay_database: Database, admin: asyncpg.Connection, make_reader: MakeReader
) -> None:
    await quiet_store.agents.save_agent(Agent(name="a", agent_type="t"))
    connection = await relay_database.connect()
    await register(connection, ["first", "second"], quiet_store.epoch)
    first = make_reader(connection, "first", quiet_store.epoch, 100)
    await first.load()
    assert len(await read_all(first)) == 1
    await first.store()
    assert await trim(connection, quiet_store.epoch, 24) == 0
    second = make_reader(connection, "second", quiet_store.epoch, 100)
    await second.load()
    assert len(await read_all(second)) == 1
    await connection.close()


async def test_what_a_sink_that_makes_headway_lacks_is_kept(
    quiet_store: Persistence, connection: asyncpg.Connection, admin: asyncpg.Connection, make_reader: MakeReader
) -> None:
    ids = await save(quiet_store, 9)
    await register(connection, ["slow", "away"], quiet_store.epoch)
    await age(admin, 9)
    await stall(admin, "away")
    slow = make_reader(connection, "slow", quiet_store.epoch, 3)
    await slow.load()
    seen = []
    while (batch := await slow.next_batch()) is not None:
        await slow.commit(batch)
        seen += [event.subject_id for event in batch.events]
        await trim(connection, quiet_store.epoch, DAY)
    assert seen == ids
    assert await admin.fetchval("SELECT missed FROM relay_positions WHERE sink = 'slow'") == 0
    assert await admin.fetchval("SELECT missed FROM relay_positions WHERE sink = 'away'") == 9


async def test_a_running_reader_never_goes_on_over_a_hole(
    quiet_store: Persistence,
    relay_database: Database,
    connection: asyncpg.Connection,
    admin: asyncpg.Connection,
    make_reader: MakeReader,
) -> None:
    ids = await save(quiet_store, 9)
    reader = make_reader(connection, "sink", quiet_store.epoch, 3)
    await reader.load()
    batch = await reader.next_batch()
    assert batch is not None
    await reader.commit(batch)
    await age(admin, 6)
    await stall(admin, "sink")
    trimmer = await relay_database.connect()
    assert await trim(trimmer, quiet_store.epoch, DAY) == 3
    with pytest.raises(UpdatesError, match="given up before sink sink"):
        await reader.next_batch()
    assert reader.watermark is None
    again = make_reader(connection, "sink", quiet_store.epoch, 3)
    assert await again.load()
    assert again.missed is not None
    # more is given up before the sink was told of the first: it is told of both
    await age(admin, 9)
    await stall(admin, "sink")
    assert await trim(trimmer, quiet_store.epoch, DAY) == 3
    await again.told()
    with pytest.raises(UpdatesError, match="given up"):
        await again.next_batch()
    assert again.watermark is None
    last = make_reader(connection, "sink", quiet_store.epoch, 3)
    await last.load()
    await last.told()
    later = await save(quiet_store, 1)
    assert [e.subject_id for e in [*await read_all(last), *await read_all(last)]] == later
    assert last.watermark is not None
    assert ids[0] not in later
    await trimmer.close()


class SlowSink:
    """Takes its time for each batch, and notes what it was told."""

    name = "slow"

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.told: list[object] = []

    async def resume(self, position: FeedPosition | None) -> None:
        self.told.append("resumed")

    async def resume_after_loss(self, position: FeedPosition) -> None:
        self.told.append("lost")

    async def deliver(self, events: Sequence[Event]) -> int:
        await asyncio.sleep(self._seconds)
        self.told += [event.subject_id for event in events]
        return 0

    async def caught_up(self, moment: datetime) -> None:
        if self.told[-1] != "caught up":
            self.told.append("caught up")


async def caught_up(sink: SlowSink) -> None:
    async with asyncio.timeout(20):
        while sink.told[-1:] != ["caught up"]:
            await asyncio.sleep(0.01)


async def test_a_long_backlog_is_delivered_however_long_it_takes(
    quiet_store: Persistence,
    relay_database: Database,
    connection: asyncpg.Connection,
    admin: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The relay was away for two days, and needs longer than its grace to deliver what came meanwhile."""
    monkeypatch.setattr(relay_module, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(relay_module, "IDLE_TRIM_SECONDS", 0.05)
    ids = await save(quiet_store, 12)
    await register(connection, ["slow"], quiet_store.epoch)
    await age(admin, 12)
    await stall(admin, "slow", 50)
    sink = SlowSink(0.2)
    relay = Relay(relay_database, [sink], Epoch(quiet_store.epoch), RelayOptions(batch_events=2))
    relay.start()
    await caught_up(sink)
    await relay.close()
    assert [told for told in sink.told if isinstance(told, UUID)] == ids
    assert "lost" not in sink.told


async def test_a_sink_without_headway_is_told_of_its_loss_before_anything_counts_as_delivered(
    quiet_store: Persistence,
    relay_database: Database,
    connection: asyncpg.Connection,
    admin: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay_module, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(relay_module, "IDLE_TRIM_SECONDS", 0.05)
    monkeypatch.setattr(trimming, "STALLED_SECONDS", 0.3)
    ids = await save(quiet_store, 6)
    await register(connection, ["slow"], quiet_store.epoch)
    await age(admin, 4)
    sink = SlowSink(1.0)
    relay = Relay(relay_database, [sink], Epoch(quiet_store.epoch), RelayOptions(batch_events=2))
    relay.start()
    await caught_up(sink)
    await relay.close()
    assert sink.told == ["resumed", *ids[:2], "lost", *ids[4:], "caught up"]


async def test_a_sink_gets_all_but_what_history_has_lost_and_is_told_of_that_before_it_counts_as_caught_up(
    quiet_store: Persistence, relay_database: Database, admin: asyncpg.Connection
) -> None:
    ids = await save(quiet_store, 6)
    await admin.execute("DELETE FROM agent_history WHERE agent_id = $1", ids[2])
    sink = SlowSink(0.0)
    relay = Relay(relay_database, [sink], Epoch(quiet_store.epoch), RelayOptions())
    relay.start()
    await caught_up(sink)
    await relay.close()
    assert sink.told == ["resumed", *ids[:2], *ids[3:], "lost", "caught up"]


async def test_a_sink_that_no_relay_is_configured_with_is_retired_and_told_when_it_comes_back(
    quiet_store: Persistence,
    connection: asyncpg.Connection,
    admin: asyncpg.Connection,
    caplog: pytest.LogCaptureFixture,
    make_reader: MakeReader,
) -> None:
    await save(quiet_store, 3)
    await register(connection, ["here", "metrics"], quiet_store.epoch)
    here = make_reader(connection, "here", quiet_store.epoch, 100)
    await here.load()
    await read_all(here)
    await here.store()
    assert await trim(connection, quiet_store.epoch, DAY) == 0
    await stall(admin, "metrics", 3600 * (DAY + 1))
    assert await trim(connection, quiet_store.epoch, DAY) == 3
    assert "no relay has been configured with sink metrics" in caplog.text
    back = make_reader(connection, "metrics", quiet_store.epoch, 100)
    await register(connection, ["here", "metrics"], quiet_store.epoch)
    await back.load()
    assert back.missed is not None
    await back.told()
    await save(quiet_store, 1)
    assert len(await read_all(back)) == 1
    await read_all(here)
    assert await trim(connection, quiet_store.epoch, DAY) == 1


async def test_sinks_of_a_former_epoch_are_not_waited_for(
    quiet_store: Persistence, connection: asyncpg.Connection, admin: asyncpg.Connection, make_reader: MakeReader
) -> None:
    await register(connection, ["here", "metrics"], quiet_store.epoch)
    await save(quiet_store, 2)
    await admin.execute("UPDATE relay_positions SET epoch = gen_random_uuid() WHERE sink = 'metrics'")
    here = make_reader(connection, "here", quiet_store.epoch, 100)
    await here.load()
    await read_all(here)
    await here.store()
    assert await trim(connection, quiet_store.epoch, DAY) == 2
