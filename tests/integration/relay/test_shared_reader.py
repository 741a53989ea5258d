"""Sinks of one process that are at the same place share what is read; one that is slow holds nobody back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest

from freeagentics_persistence import Agent, Persistence
from freeagentics_persistence.database.engine import Database
from freeagentics_persistence.relay import shared_reader
from freeagentics_persistence.relay.feed_reader import FeedReader
from freeagentics_persistence.relay.shared_reader import Follower, SharedReader
from tests.support.relay import read_all

BATCH = 2


@pytest.fixture
async def shared(relay_database: Database) -> AsyncIterator[SharedReader]:
    """One for all sinks of a test."""
    made = SharedReader(relay_database.connect, BATCH)
    yield made
    await made.close()


@pytest.fixture
async def sinks(
    quiet_store: Persistence, relay_database: Database, shared: SharedReader
) -> AsyncIterator[list[FeedReader]]:
    """Two sinks of one process, at the beginning."""
    connections = [await relay_database.connect() for _ in range(2)]
    readers = [FeedReader(each, f"sink{i}", quiet_store.epoch, shared) for i, each in enumerate(connections)]
    for reader in readers:
        await reader.load()
    yield readers
    for connection in connections:
        await connection.close()


async def save(store: Persistence, count: int) -> list[UUID]:
    agents = [Agent(name=f"a{i}", agent_type="t") for i in range(count)]
    (await store.agents.save_agents(agents)).raise_for_conflicts()
    return sorted((agent.id for agent in agents), key=lambda agent_id: agent_id.int)


async def test_sinks_at_the_same_place_share_a_reading(quiet_store: Persistence, sinks: list[FeedReader]) -> None:
    first, second = sinks
    await save(quiet_store, 3 * BATCH)
    for _ in range(3):
        one, other = await first.next_batch(), await second.next_batch()
        assert one is not None
        assert other is not None
        assert one.events is other.events
        await first.commit(one)
        await second.commit(other)
    assert await first.next_batch() is None
    assert await second.next_batch() is None
    assert second.place.done == first.place.done


async def test_a_slow_sink_is_left_behind_and_shares_again_once_it_has_caught_up(
    quiet_store: Persistence, sinks: list[FeedReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_reader, "PATIENCE", 0.01)
    fast, slow = sinks
    count = BATCH * (shared_reader.WINDOW + 4)
    await save(quiet_store, count)
    held = await slow.next_batch()
    assert held is not None
    assert len(expected := await read_all(fast)) == count
    await slow.commit(held)
    caught_up = [*held.events, *await read_all(slow)]
    assert [event.id for event in caught_up] == [event.id for event in expected]
    assert not any(late is event for late, event in zip(caught_up[-BATCH:], expected[-BATCH:], strict=True))
    await fast.next_batch()
    await slow.next_batch()
    await save(quiet_store, 1)
    one, other = await fast.next_batch(), await slow.next_batch()
    assert one is not None
    assert other is not None
    assert one.events is other.events


async def test_who_is_ahead_waits_for_a_moment(
    quiet_store: Persistence, sinks: list[FeedReader], shared: SharedReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_reader, "PATIENCE", 60)
    fast, slow = sinks
    count = BATCH * (shared_reader.WINDOW + 4)
    await save(quiet_store, count)
    held = await slow.next_batch()
    assert held is not None
    waits, wait_for_others = asyncio.Event(), shared.wait_for_others

    async def wait(follower: Follower) -> None:
        if shared.those_behind(follower):
            waits.set()
        await wait_for_others(follower)

    monkeypatch.setattr(shared, "wait_for_others", wait)
    going = asyncio.create_task(read_all(fast))
    async with asyncio.timeout(20):
        await waits.wait()
    assert fast.place.delivered <= BATCH * (shared_reader.WINDOW + 1)
    await slow.commit(held)
    rest, whole = await asyncio.gather(read_all(slow), going)
    assert len(whole) == count
    assert all(one is other for one, other in zip(rest, whole[BATCH:], strict=True))


async def test_a_sink_that_comes_from_elsewhere_ends_where_the_others_are(
    quiet_store: Persistence, sinks: list[FeedReader]
) -> None:
    first, late = sinks
    await save(quiet_store, 3)
    assert len(await read_all(first)) == len(await read_all(late)) == 3
    await save(quiet_store, 1)
    one, other = await first.next_batch(), await late.next_batch()
    assert one is not None
    assert other is not None
    assert one.events is other.events


async def test_ids_that_were_given_and_not_used_count_as_reached(
    sinks: list[FeedReader], admin: asyncpg.Connection
) -> None:
    for _ in range(3):
        last = await admin.fetchval("SELECT nextval('events_id_seq')")
    assert await sinks[0].next_batch() is None
    assert sinks[0].place.reached == last


async def test_what_another_found_empty_hides_no_later_event(quiet_store: Persistence, sinks: list[FeedReader]) -> None:
    first, second = sinks
    for reader in (first, second):
        assert await reader.next_batch() is None
    assert await first.next_batch() is None  # the step from where the second is, remembered
    (agent_id,) = await save(quiet_store, 1)
    batch = await second.next_batch()
    assert batch is not None
    assert [event.subject_id for event in batch.events] == [agent_id]


async def test_a_backlog_of_another_sink_is_looked_through_once(
    quiet_store: Persistence, sinks: list[FeedReader], relay_database: Database, shared: SharedReader
) -> None:
    done, _ = sinks
    await save(quiet_store, 5)
    assert len(await read_all(done)) == 5
    await done.store()
    connection = await relay_database.connect()
    other = SharedReader(relay_database.connect, BATCH)  # a process that knows nothing
    idle = FeedReader(connection, "sink0", quiet_store.epoch, other)
    assert await idle.load()
    for _ in range(2):
        assert await idle.next_batch() is None
    await save(quiet_store, 1)
    batch = await idle.next_batch()
    assert batch is not None
    assert idle.place.open_id >= 5
    await other.close()
    await connection.close()


async def test_a_lost_connection_is_replaced(
    quiet_store: Persistence, sinks: list[FeedReader], shared: SharedReader, admin: asyncpg.Connection
) -> None:
    first, second = sinks
    assert await first.next_batch() is None
    assert shared._outbox._connection is not None
    await admin.fetchval("SELECT pg_terminate_backend($1, 5000)", shared._outbox._connection.get_server_pid())
    await save(quiet_store, 1)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await first.next_batch()
    one, other = await first.next_batch(), await second.next_batch()
    assert one is not None
    assert other is not None
    assert len(one.events) == len(other.events) == 1


async def test_a_place_that_was_loaded_anew_takes_no_look_of_before(
    quiet_store: Persistence, sinks: list[FeedReader]
) -> None:
    first, second = sinks
    await save(quiet_store, 1)
    one = await first.next_batch()
    assert one is not None
    await second.load()
    other = await second.next_batch()
    assert other is not None
    assert other.events[0].id == one.events[0].id
    assert other.events[0].round > one.events[0].round
