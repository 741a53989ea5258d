"""A restore is a new epoch: nothing after it is mistaken for something seen before."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from freeagentics_persistence import ALL, Agent, Beliefs, Persistence, Settings
from freeagentics_persistence.database.engine import Database
from freeagentics_persistence.database.epochs import begin_epoch, current_epoch
from freeagentics_persistence.errors import FeedGap, PersistenceError


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


async def test_a_store_that_outlives_its_epoch_stands_aside(
    settings: Settings, owner_database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async with Persistence.open(settings) as old:
        agent = await old.agents.save_agent(Agent(name="a", agent_type="t", beliefs=Beliefs([1.0, 0])))
        await begin_epoch(owner_database, "restored")
        async with (
            Persistence.open(settings) as new,
            new.updates.subscribe_to_agent_updates(agent.id) as updates,
        ):
            async with asyncio.timeout(30):
                written = await new.agents.update_beliefs(agent.id, [0, 1.0])
                while (await anext(updates)).version < written.version:
                    pass
            assert await old.agents.get_beliefs(agent.id) == Beliefs([0, 1.0])
    assert "new epoch" in caplog.text


async def test_applications_may_not_begin_an_epoch(app_database: Database) -> None:
    with pytest.raises(PersistenceError, match="permission denied"):
        await begin_epoch(app_database, "mischief")
