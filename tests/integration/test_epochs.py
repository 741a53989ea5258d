"""A restore is a new epoch: nothing after it is mistaken for something seen before."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal

import asyncpg
import pytest

from freeagentics_persistence import ALL, Agent, Beliefs, Coalition, Persistence, Settings
from freeagentics_persistence.database.engine import Database
from freeagentics_persistence.database.epochs import begin_epoch, current_epoch, former_epochs
from freeagentics_persistence.domain.identifiers import new_revision
from freeagentics_persistence.errors import FeedGap, NewEpoch, PersistenceError
from freeagentics_persistence.relay.places import Place, register
from tests.support.relay import MakeReader


async def test_an_epoch_stays_until_one_is_forced(app_database: Database, owner_database: Database) -> None:
    first = await current_epoch(app_database)
    assert await current_epoch(app_database) == first
    second = await begin_epoch(owner_database, "restored from a backup")
    assert second != first
    assert await current_epoch(app_database) == second


async def test_many_first_openings_agree_on_one_epoch(app_database: Database) -> None:
    assert len(set(await asyncio.gather(*(current_epoch(app_database) for _ in range(5))))) == 1


@pytest.mark.parametrize("column", ["system_identifier", "timeline"])
async def test_another_server_or_timeline_is_a_new_epoch(
    app_database: Database, admin: asyncpg.Connection, column: str
) -> None:
    first = await current_epoch(app_database)
    await admin.execute(f"UPDATE epochs SET {column} = {column} + 1")
    second = await current_epoch(app_database)
    assert second != first
    reason = await admin.fetchval("SELECT reason FROM epochs WHERE id = $1", second)
    assert "another" in reason


async def test_epochs_follow_one_another_whatever_the_clock_says(
    app_database: Database, owner_database: Database, admin: asyncpg.Connection
) -> None:
    first = await current_epoch(app_database)
    # another server took over, and its clock is behind that of the one which began the last epoch
    await admin.execute("UPDATE epochs SET timeline = timeline + 1, started_at = clock_timestamp() + interval '1 hour'")
    second = await current_epoch(app_database)
    assert second != first
    assert await current_epoch(app_database) == second
    assert await former_epochs(app_database) == [first]
    third = await begin_epoch(owner_database, "restored from a backup")
    assert await current_epoch(app_database) == third
    assert await former_epochs(app_database) == [second, first]


async def test_after_a_forced_epoch_cache_positions_and_feed_start_anew(
    settings: Settings, owner_database: Database, admin: asyncpg.Connection
) -> None:
    async with Persistence.open(settings) as store:
        agent = await store.agents.save_agent(Agent(name="a", agent_type="t", beliefs=Beliefs([1.0, 0])))
        async with store.updates.subscribe_to_agent_updates(ALL) as updates:
            lost = await store.agents.update_beliefs(agent.id, [0, 1.0])
            while (await anext(updates)).version < lost.version:
                pass
            position = updates.position
    # a restore to before the last update, with the cache and the feed of the lost timeline still there
    await admin.execute("DELETE FROM events")
    await admin.execute("DELETE FROM agent_history WHERE version = 2")
    await admin.execute(
        "UPDATE agents SET version = 1, revision = h.revision, belief_state = h.belief_state FROM agent_history h"
    )
    await begin_epoch(owner_database, "restored")
    async with Persistence.open(settings) as store:
        assert await store.agents.get_beliefs(agent.id) == Beliefs([1.0, 0])
        with pytest.raises(FeedGap):
            async with store.updates.subscribe_to_agent_updates(ALL, after=position) as updates:
                await anext(updates)
        async with store.updates.subscribe_to_agent_updates(agent.id) as updates:
            again = await store.agents.update_beliefs(agent.id, [0.5, 0.5])
            assert again.version == 2
            update = await asyncio.wait_for(anext(updates), 10)
            while update.version < 2:
                update = await asyncio.wait_for(anext(updates), 10)
            assert await update.beliefs() == Beliefs([0.5, 0.5])
            assert update.epoch == store.epoch


@pytest.mark.parametrize("relay", ["auto", "off"])
async def test_a_store_that_outlives_its_epoch_is_refused_everywhere(
    settings: Settings, owner_database: Database, relay: Literal["auto", "off"]
) -> None:
    async with Persistence.open(settings, relay=relay) as old, Persistence.open(settings) as delivering:
        agent = await old.agents.save_agent(Agent(name="a", agent_type="t", beliefs=Beliefs([1.0, 0])))
        coalition = await old.coalitions.save_coalition(Coalition(name="c", business_model="m"))
        async with old.updates.subscribe_to_agent_updates(agent.id) as updates:
            await delivering.agents.update_beliefs(agent.id, [0.5, 0.5])
            async with asyncio.timeout(20):
                while (await anext(updates)).version < 2:
                    pass
                await begin_epoch(owner_database, "restored")
                with pytest.raises(NewEpoch):
                    await anext(updates)
            with pytest.raises(NewEpoch):
                await anext(updates)
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: old.agents.get_beliefs(agent.id),
            lambda: old.agents.get_beliefs(agent.id, consistency="strong"),
            lambda: old.agents.get_agent(agent.id),
            lambda: old.agents.update_beliefs(agent.id, [0, 1.0]),
            lambda: old.agents.save_agent(agent),
            lambda: old.cache.get_cached_beliefs(agent.id),
            lambda: old.cache.cache_agent_beliefs(agent.id, [0, 1.0], version=9, revision=new_revision()),
            lambda: old.cache.is_coalition_member(coalition.id, agent.id),
            lambda: old.cache.cache_coalition_members(coalition.id, [agent.id], version=9),
            lambda: old.updates.subscribe_to_agent_updates(ALL).__aenter__(),
            lambda: old.updates.publish_agent_update(agent.id, "plan", {}),
            lambda: old.metrics.query_agent_performance_history(agent.id),
        ]
        for call in calls:
            with pytest.raises(NewEpoch, match="Open the store again"):
                await call()
    async with Persistence.open(settings) as new:
        assert await new.agents.get_beliefs(agent.id) == Beliefs([0.5, 0.5])
        async with new.updates.subscribe_to_agent_updates(agent.id) as updates:
            written = await new.agents.update_beliefs(agent.id, [0, 1.0])
            async with asyncio.timeout(20):
                while (await anext(updates)).version < written.version:
                    pass


async def test_what_a_subscriber_had_received_comes_before_the_end(
    settings: Settings, owner_database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async with Persistence.open(settings) as store:
        agent = Agent(name="a", agent_type="t", beliefs=Beliefs([1.0, 0]))
        async with store.updates.subscribe_to_agent_updates(agent.id) as updates:
            await store.agents.save_agent(agent)
            await store.agents.update_beliefs(agent.id, [0.5, 0.5])
            assert (await asyncio.wait_for(anext(updates), 20)).version == 1
            await asyncio.sleep(1)
            await begin_epoch(owner_database, "restored")
            while "new epoch" not in caplog.text:
                await asyncio.sleep(0.05)
            assert (await anext(updates)).version == 2
            with pytest.raises(NewEpoch):
                await anext(updates)


async def test_a_relay_of_a_former_epoch_moves_no_place_of_the_new(
    quiet_store: Persistence, relay_database: Database, owner_database: Database, make_reader: MakeReader
) -> None:
    await quiet_store.agents.save_agent(Agent(name="a", agent_type="t"))
    connection = await relay_database.connect()
    reader = make_reader(connection, "test", quiet_store.epoch, 100)
    await reader.load()
    batch = await reader.next_batch()
    assert batch is not None
    begun = await begin_epoch(owner_database, "restored")
    await register(connection, ["test"], begun)
    with pytest.raises(NewEpoch):
        await reader.commit(batch)
    again = make_reader(connection, "test", begun, 100)
    assert await again.load()
    assert again.place == Place()
    await connection.close()


async def test_applications_may_not_begin_an_epoch(app_database: Database) -> None:
    with pytest.raises(PersistenceError, match="permission denied"):
        await begin_epoch(app_database, "mischief")
