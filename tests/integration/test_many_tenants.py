"""A store that is used for more tenants than it remembers."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from freeagentics_persistence import Agent, Beliefs, Persistence, Settings, persistence
from freeagentics_persistence.errors import UnknownTenant


async def test_stores_of_the_tenants_used_last_are_remembered_and_all_are_drained(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(persistence, "MAX_STORES", 2)
    agent = Agent(name="a", agent_type="t", beliefs=Beliefs.uniform(2))
    async with Persistence.open(settings, relay="off") as store:
        acme = await store.create_tenant("acme")
        assert store.tenant(acme.tenant_id) is acme
        await acme.agents.save_agent(agent)
        updates = [asyncio.create_task(acme.agents.update_beliefs(agent.id, [0.5, 0.5])) for _ in range(200)]
        await asyncio.sleep(0)
        for _ in range(50):
            with pytest.raises(UnknownTenant):
                await store.tenant(uuid4()).agents.get_agent(agent.id)
            if updates[-1].done():
                break
        again = store.tenant(acme.tenant_id)
        assert again is not acme
        assert store._store_of.cache_info().currsize == 2
        last = [asyncio.create_task(acme.agents.update_beliefs(agent.id, [0.25, 0.75])) for _ in range(200)]
        await asyncio.sleep(0)
    assert max(update.version for update in await asyncio.gather(*updates, *last)) == 401
