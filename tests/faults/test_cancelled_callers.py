"""Callers that give up at any moment leave no connection behind, and nobody gets another's rows."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import numpy as np
import pytest

from freeagentics_persistence import Agent, Beliefs, Persistence
from freeagentics_persistence.database.bootstrap import APP
from freeagentics_persistence.database.engine import Database, DatabaseOptions
from freeagentics_persistence.errors import StoreClosed
from freeagentics_persistence.operations.servers import ServerUrls
from tests.conftest import settings_of

CALLS = 1000


async def test_cancelled_calls_on_a_small_pool(urls: ServerUrls) -> None:
    database, chance = Database(urls.app, DatabaseOptions(role=APP, pool_size=2)), random.Random(0)
    answered = 0

    async def call(number: int) -> None:
        nonlocal answered
        way = database.call if number % 2 else database.fetch
        found = await way("SELECT $1::int AS number, pg_sleep($2)::text", number, chance.random() / 500)
        assert (found["number"] if number % 2 else found[0]["number"]) == number
        answered += 1

    async def caller(first: int) -> None:
        for number in range(first, CALLS, 8):
            task = asyncio.create_task(call(number))
            await asyncio.sleep(chance.expovariate(1 / 0.004))
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    try:
        await asyncio.gather(*map(caller, range(8)))
        assert 0 < answered < CALLS
        pool = database._engine.sync_engine.pool
        assert pool.checkedout() == 0  # type: ignore[attr-defined]
        found = await asyncio.gather(*(database.fetch("SELECT $1::int", number) for number in range(20)))
        assert [rows[0][0] for rows in found] == list(range(20))
    finally:
        await database.close()


async def test_closing_a_store_under_load_answers_every_caller(urls: ServerUrls) -> None:
    database = {"url": urls.app, "migrator_url": urls.migrator, "relay_url": urls.relay, "pool_size": 2}
    opening = Persistence.open(settings_of(urls, database=database))
    store = await opening.__aenter__()
    agents = [Agent(name=f"a{i}", agent_type="t", beliefs=Beliefs.uniform(2)) for i in range(20)]
    (await store.agents.save_agents(agents)).raise_for_conflicts()
    ids, q = [agent.id for agent in agents], np.full((20, 2), 0.5)
    answered = [asyncio.Event() for _ in range(40)]

    async def use_until_closed(number: int) -> None:
        agent, calls = ids[number % 20], store.agents
        while True:
            match number % 4:
                case 0:
                    await calls.update_beliefs(agent, q[0])
                case 1:
                    await calls.get_beliefs(agent, consistency="strong")
                case 2:
                    await calls.update_beliefs_many(ids, q)
                case _:
                    await calls.get_beliefs_many(ids)
            answered[number].set()

    async def caller(number: int) -> None:
        with pytest.raises(StoreClosed):
            await use_until_closed(number)

    async with asyncio.timeout(20), asyncio.TaskGroup() as callers:
        for number in range(40):
            callers.create_task(caller(number))
        for each in answered:
            await each.wait()
        await opening.__aexit__(None, None, None)
