"""Following updates: nothing missed, nothing doubled, each agent in order."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from freeagentics_persistence.domain.beliefs import Beliefs
from tests.support.feeds import Feed


async def take(updates, count, seconds=10.0):
    """The next ``count`` updates."""
    async with asyncio.timeout(seconds):
        return [await anext(updates) for _ in range(count)]


async def test_an_update_arrives_with_everything_it_carried(feed: Feed) -> None:
    agent, beliefs = uuid4(), Beliefs([0.7, 0.2, 0.1])
    event = await feed.event(agent, 3, beliefs=beliefs, free_energy=1.5, entropy=0.8, data={"district": "a"})
    async with feed.updates().subscribe_to_agent_updates(agent) as updates:
        await feed.sink.deliver([event])
        (update,) = await take(updates, 1)
    assert (update.agent_id, update.tenant_id, update.epoch) == (agent, feed.tenant_id, feed.epoch)
    assert (update.type, update.version, update.revision) == ("beliefs.updated", 3, event.revision)
    assert update.timestamp == event.recorded_at
    assert update.timestamp.utcoffset().total_seconds() == 0
    assert update.data == {"district": "a", "free_energy": 1.5, "belief_entropy": 0.8}
    assert update.position == updates.position == f"{feed.epoch}/{event.position}"
    assert await update.beliefs() == beliefs
    assert await update.sealed_data() is None
    assert feed.seen == [(feed.tenant_id, agent, 3)]
    assert "district" not in repr(update)
    assert repr(update.envelope) not in repr(update)
