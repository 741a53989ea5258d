"""A store that was closed says so from every way in, and opens no connection behind its user's back."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import pytest

from freeagentics_persistence import ALL, Agent, Coalition, Persistence, Settings, new_revision
from freeagentics_persistence.errors import StoreClosed

CONNECTIONS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'freeagentics-persistence'
"""


async def test_a_closed_store_says_so(settings: Settings, admin: asyncpg.Connection) -> None:
    agent, coalition = Agent(name="a", agent_type="t", beliefs=[0.5, 0.5]), Coalition(name="c", business_model="m")
    async with Persistence.open(settings) as store:
        await store.agents.save_agent(agent)
        await store.coalitions.save_coalition(coalition)
        await store.coalitions.add_members(coalition.id, [agent.id])
        guest = await store.create_tenant("guest")
    agents, coalitions = store.agents, store.coalitions
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "save_agent": lambda: agents.save_agent(agent),
        "save_agents": lambda: agents.save_agents([agent]),
        "get_agent": lambda: agents.get_agent(agent.id),
        "get_agents": lambda: guest.agents.get_agents([agent.id]),
        "delete_agent": lambda: agents.delete_agent(agent.id),
        "get_agents_by_location": lambda: agents.get_agents_by_location("891969532cfffff"),
        "update_beliefs": lambda: agents.update_beliefs(agent.id, [0.1, 0.9]),
        "update_beliefs_many": lambda: agents.update_beliefs_many([agent.id], [[[0.1, 0.9]]]),
        "get_beliefs": lambda: agents.get_beliefs(agent.id, consistency="strong"),
        "get_beliefs, cached": lambda: agents.get_beliefs(agent.id),
        "get_beliefs_at": lambda: agents.get_beliefs_at([agent.id], datetime.now(UTC)),
        "get_belief_history": lambda: anext(aiter(agents.get_belief_history(agent.id))),
        "save_coalition": lambda: coalitions.save_coalition(coalition),
        "get_coalition": lambda: coalitions.get_coalition(coalition.id),
        "list_coalitions": lambda: coalitions.list_coalitions(),
        "add_members": lambda: coalitions.add_members(coalition.id, [agent.id]),
        "remove_members": lambda: coalitions.remove_members(coalition.id, [agent.id]),
        "get_members": lambda: coalitions.get_members(coalition.id),
        "activate_coalition": lambda: coalitions.activate_coalition(coalition.id),
        "update_contributions": lambda: coalitions.update_contributions(coalition.id, {agent.id: 1}),
        "rank_members": lambda: coalitions.rank_members(coalition.id),
        "record_revenue": lambda: coalitions.record_revenue(coalition.id, 1),
        "dissolve_coalition": lambda: coalitions.dissolve_coalition(coalition.id),
        "get_coalition_beliefs": lambda: coalitions.get_coalition_beliefs(coalition.id),
        "iterate_coalition_beliefs": lambda: anext(aiter(coalitions.iterate_coalition_beliefs(coalition.id))),
        "is_coalition_member": lambda: store.cache.is_coalition_member(coalition.id, agent.id),
        "publish_agent_update": lambda: store.updates.publish_agent_update(agent.id, "x", {}),
        "record_agent_belief_update": lambda: store.metrics.record_agent_belief_update(agent.id, [0.5, 0.5]),
        "query": lambda: store.metrics.query_agent_performance_history(agent.id),
        "get_cached_beliefs": lambda: store.cache.get_cached_beliefs(agent.id),
        "cache_agent_beliefs": lambda: store.cache.cache_agent_beliefs(
            agent.id, [0.5, 0.5], version=9, revision=new_revision()
        ),
        "cache_coalition_members": lambda: store.cache.cache_coalition_members(coalition.id, [agent.id], version=9),
        "subscribe": lambda: store.updates.subscribe_to_agent_updates(ALL).__aenter__(),
        "create_tenant": lambda: store.create_tenant("other"),
        "require_tenant": lambda: store.require_tenant(guest.tenant_id),
    }
    outcomes = await asyncio.gather(*(call() for call in calls.values()), return_exceptions=True)
    told = {name for name, outcome in zip(calls, outcomes, strict=True) if isinstance(outcome, StoreClosed)}
    assert told == set(calls)
    assert await admin.fetchval(CONNECTIONS) == 0
    assert await admin.fetchval("SELECT count(*) FROM tenants") == 2


async def test_an_open_subscription_hands_over_what_it_has_and_says_so(settings: Settings) -> None:
    async with Persistence.open(settings) as other:
        async with Persistence.open(settings, relay="off") as store:
            updates = store.updates.subscribe_to_agent_updates(ALL)
            await updates.__aenter__()
            waiting = await store.updates.subscribe_to_agent_updates(UUID(int=1)).__aenter__()
            call = asyncio.create_task(anext(waiting))
            agent = await other.agents.save_agent(Agent(name="a", agent_type="t"))
            async with asyncio.timeout(10):
                await anext(updates)
                await other.agents.update_beliefs(agent.id, [0.5, 0.5])
                async with other.updates.subscribe_to_agent_updates(ALL, after=updates.position) as delivered:
                    await anext(delivered)
            await asyncio.sleep(0.2)
        assert (await asyncio.wait_for(anext(updates), 2)).version == 2
        for refused in (call, anext(updates), anext(updates)):
            with pytest.raises(StoreClosed):
                await asyncio.wait_for(refused, 2)
        await waiting.__aexit__()
        await updates.__aexit__()


async def test_calls_under_way_end_and_close_their_connections(settings: Settings, admin: asyncpg.Connection) -> None:
    """Closed by the call, and not whenever the garbage collector comes by."""
    gc.disable()
    try:
        async with Persistence.open(settings, relay="off") as store:
            agent = await store.agents.save_agent(Agent(name="a", agent_type="t", beliefs=[0.5, 0.5]))
            transaction = admin.transaction()
            await transaction.start()
            await admin.execute("SELECT FROM agents FOR UPDATE")
            batch = asyncio.create_task(store.agents.update_beliefs_many([agent.id], [[[0.1, 0.9]]]))
            announcement = asyncio.create_task(store.updates.publish_agent_update(agent.id, "x", {}))
            history = store.agents.get_belief_history(agent.id)
            await anext(aiter(history))
            while await admin.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") < 2:
                await asyncio.sleep(0.01)
        await transaction.rollback()
        (written,) = (await batch).versions  # was committed, so its caller is told
        assert written == 2
        with pytest.raises(StoreClosed):
            await announcement  # was not, and is not any more
        await history.aclose()
        async with asyncio.timeout(5):
            while await admin.fetchval(CONNECTIONS):
                await asyncio.sleep(0.05)
    finally:
        gc.enable()
