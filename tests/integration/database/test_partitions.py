"""The month's partition of the history is made by whichever write misses it first."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from uuid import UUID

import asyncpg
import pytest

from freeagentics_persistence import Agent, HistoryPolicy, Persistence


@pytest.mark.parametrize(
    "write",
    [
        lambda store, agent: store.agents.update_beliefs(agent, [1.0, 0]),
        lambda store, agent: store.agents.update_beliefs_many([agent], [[[1.0, 0]]], atomic=True),
        lambda store, agent: store.agents.save_agent(Agent(id=agent, name="again", agent_type="t")),
        lambda store, agent: store.agents.delete_agent(agent),
        lambda store, agent: store.updates.publish_agent_update(agent, "plan", {}),
        lambda store, agent: store.metrics.record_agent_belief_update(agent, [1.0, 0]),
    ],
    ids=["update", "atomic", "save", "delete", "publish", "record"],
)
async def test_a_missing_partition_is_made(
    quiet_store: Persistence, admin: asyncpg.Connection, write: Callable[[Persistence, UUID], Awaitable[object]]
) -> None:
    agent_id = (await quiet_store.agents.save_agent(Agent(name="a", agent_type="t"))).id
    month = time.strftime("%Y_%m", time.gmtime())
    await admin.execute(f"DROP TABLE agent_history_{month}")
    await write(quiet_store, agent_id)
    assert await admin.fetchval("SELECT count(*) FROM agent_history WHERE agent_id = $1", agent_id) == 1


async def test_a_missing_partition_of_skipped_revisions_is_made(
    quiet_store: Persistence, admin: asyncpg.Connection
) -> None:
    await quiet_store.history.set_policy("t", HistoryPolicy.every(10))
    agent_id = (await quiet_store.agents.save_agent(Agent(name="a", agent_type="t"))).id
    for name in await admin.fetch("SELECT partition FROM partition_ranges('accepted_revisions')"):
        await admin.execute(f"DROP TABLE {name[0]}")
    await quiet_store.agents.update_beliefs(agent_id, [1.0, 0])
    assert await admin.fetchval("SELECT count(*) FROM accepted_revisions WHERE agent_id = $1", agent_id) == 1
