"""How old an answer may be: strong, session, bounded; and Redis gone changes speed, not answers."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from freeagentics_persistence import Agent, Beliefs, Coalition, Persistence, Settings
from freeagentics_persistence.cache.connection import RedisConnection
from freeagentics_persistence.cache.keys import TenantKeys
from freeagentics_persistence.cache.redis_cache import RedisCache
from freeagentics_persistence.domain.epochs import Epoch
from freeagentics_persistence.domain.identifiers import DEFAULT_TENANT_ID
from freeagentics_persistence.errors import ConcurrentUpdate, EnvelopeRejected
from freeagentics_persistence.operations.servers import ServerUrls
from freeagentics_persistence.ports.cache import CacheEntry
from tests.conftest import settings_of
from tests.support.cached import cached
from tests.support.redis_server import LocalRedis, valkey_program

FIRST, SECOND = Beliefs([1.0, 0]), Beliefs([0, 1.0])


@pytest.fixture
async def cache(quiet_store: Persistence, urls: ServerUrls) -> AsyncIterator[RedisCache]:
    async with RedisConnection(urls.redis, timeout=2, pool_size=4) as connection:
        yield RedisCache(connection, Epoch(quiet_store.epoch), belief_ttl=300, member_ttl=600)


@pytest.fixture
def redis_server() -> Iterator[LocalRedis]:
    """A Valkey that the test may kill."""
    program = valkey_program()
    assert program is not None
    with tempfile.TemporaryDirectory(prefix="fa-redis-") as folder:
        server = LocalRedis(program, Path(folder))
        server.start()
        yield server
        server.stop()


async def make_stale(cache: RedisCache, agent: Agent, older: CacheEntry) -> None:
    """Put an older entry where a newer one is, as an eviction and a late writer could."""
    await cache.forget_all()
    await cache.put_beliefs(DEFAULT_TENANT_ID, [older])
    assert (await cached(cache, DEFAULT_TENANT_ID, [agent.id]))[0] == older


async def two_versions(store: Persistence, cache: RedisCache) -> tuple[Agent, CacheEntry]:
    """An agent at its second version, and the cache entry of its first."""
    agent = await store.agents.save_agent(Agent(name="a", agent_type="t", beliefs=FIRST))
    (older,) = await cached(cache, DEFAULT_TENANT_ID, [agent.id])
    assert older is not None
    await store.agents.update_beliefs(agent.id, SECOND)
    return agent, older


async def test_strong_reads_postgresql(quiet_store: Persistence, cache: RedisCache) -> None:
    agent, older = await two_versions(quiet_store, cache)
    await make_stale(cache, agent, older)
    assert await quiet_store.agents.get_beliefs(agent.id, consistency="strong") == SECOND


async def test_what_something_else_wrote_into_the_cache_is_told_once_and_replaced(
    quiet_store: Persistence, urls: ServerUrls, cache: RedisCache
) -> None:
    agent = await quiet_store.agents.save_agent(Agent(name="a", agent_type="t", beliefs=FIRST))
    async with RedisConnection(urls.redis) as connection:
        key = TenantKeys(quiet_store.epoch, DEFAULT_TENANT_ID).beliefs(agent.id)
        await connection.execute("SET", key, b"not an entry at all, but long")
    assert await quiet_store.agents.get_beliefs(agent.id, consistency="strong") == FIRST
    with pytest.raises(EnvelopeRejected, match="Read it again"):
        await quiet_store.agents.get_beliefs(agent.id)
    assert await quiet_store.agents.get_beliefs(agent.id) == FIRST
    (replaced,) = await cached(cache, DEFAULT_TENANT_ID, [agent.id])
    assert isinstance(replaced, CacheEntry)


async def test_a_session_never_reads_backwards(quiet_store: Persistence, settings: Settings, cache: RedisCache) -> None:
    agent, older = await two_versions(quiet_store, cache)
    await make_stale(cache, agent, older)
    assert await quiet_store.agents.get_beliefs(agent.id) == SECOND  # its own write
    async with Persistence.open(settings, relay="off") as other:
        await make_stale(cache, agent, older)
        assert await other.agents.get_beliefs(agent.id) == FIRST  # it has seen nothing newer yet
        assert await other.agents.get_beliefs(agent.id, consistency="strong") == SECOND
        await make_stale(cache, agent, older)
        assert await other.agents.get_beliefs(agent.id) == SECOND  # what it has seen


async def see_as_of(store: Persistence, agent: Agent) -> None:
    await store.agents.get_beliefs_at([agent.id], datetime.now(UTC) + timedelta(seconds=1))


async def see_history(store: Persistence, agent: Agent) -> None:
    assert [revision.version async for revision in store.agents.get_belief_history(agent.id)] == [1, 2]


async def see_coalition(store: Persistence, agent: Agent) -> None:
    coalition = await store.coalitions.save_coalition(Coalition(name="c", business_model="m"))
    await store.coalitions.add_members(coalition.id, [agent.id])
    await store.coalitions.get_coalition_beliefs(coalition.id)


async def see_conflict(store: Persistence, agent: Agent) -> None:
    with pytest.raises(ConcurrentUpdate):
        await store.agents.update_beliefs(agent.id, FIRST, expected_version=1)


async def see_existing(store: Persistence, agent: Agent) -> None:
    assert (await store.agents.save_agents([agent])).versions.tolist() == [2]


@pytest.mark.parametrize("see", [see_as_of, see_history, see_coalition, see_conflict, see_existing])
async def test_whatever_showed_a_version_counts_as_seen(
    quiet_store: Persistence,
    settings: Settings,
    cache: RedisCache,
    see: Callable[[Persistence, Agent], Awaitable[None]],
) -> None:
    agent, older = await two_versions(quiet_store, cache)
    async with Persistence.open(settings, relay="off") as other:
        await see(other, agent)
        await make_stale(cache, agent, older)
        assert await other.agents.get_beliefs(agent.id) == SECOND


async def test_an_update_that_was_received_counts_as_seen(
    store: Persistence, settings: Settings, urls: ServerUrls
) -> None:
    async with RedisConnection(urls.redis, timeout=2, pool_size=4) as connection:
        cache = RedisCache(connection, Epoch(store.epoch), belief_ttl=300, member_ttl=600)
        agent = await store.agents.save_agent(Agent(name="a", agent_type="t", beliefs=FIRST))
        (older,) = await cached(cache, DEFAULT_TENANT_ID, [agent.id])
        assert older is not None
        async with (
            Persistence.open(settings, relay="off") as other,
            other.updates.subscribe_to_agent_updates(agent.id) as updates,
        ):
            await store.agents.update_beliefs(agent.id, SECOND)
            while (await anext(updates)).version < 2:
                pass
            await make_stale(cache, agent, older)
            assert await other.agents.get_beliefs(agent.id) == SECOND


async def test_bounded_needs_a_watermark_that_proves_it(
    quiet_store: Persistence, settings: Settings, cache: RedisCache
) -> None:
    agent, older = await two_versions(quiet_store, cache)
    minute = timedelta(minutes=1)
    async with Persistence.open(settings, relay="off") as reader:
        await make_stale(cache, agent, older)
        assert await reader.agents.get_beliefs(agent.id, consistency="bounded", max_staleness=minute) == SECOND
    async with Persistence.open(settings) as reader:
        while await cache.watermark() is None:
            await asyncio.sleep(0.01)
        await cache.put_beliefs(
            DEFAULT_TENANT_ID, [CacheEntry(agent.id, 99, older.revision, older.envelope)]
        )  # an entry that only the cache has shows who answered
        assert await reader.agents.get_beliefs(agent.id, consistency="bounded", max_staleness=minute) == FIRST
        tiny = timedelta(microseconds=1)
        assert await reader.agents.get_beliefs(agent.id, consistency="bounded", max_staleness=tiny) == SECOND


async def test_the_relay_repairs_what_a_writer_could_not_put(
    quiet_store: Persistence, settings: Settings, cache: RedisCache
) -> None:
    agent, older = await two_versions(quiet_store, cache)
    await make_stale(cache, agent, older)
    async with Persistence.open(settings):
        while (await cached(cache, DEFAULT_TENANT_ID, [agent.id]))[0] == older:
            await asyncio.sleep(0.01)
    (repaired,) = await cached(cache, DEFAULT_TENANT_ID, [agent.id])
    assert repaired is not None
    assert repaired.version == 2


async def test_without_redis_reads_and_writes_go_on(urls: ServerUrls, redis_server: LocalRedis) -> None:
    async with Persistence.open(settings_of(urls, redis={"url": redis_server.url, "timeout": 0.3})) as store:
        agents = [Agent(name=f"a{i}", agent_type="t", beliefs=FIRST) for i in range(20)]
        (await store.agents.save_agents(agents)).raise_for_conflicts()
        ids = [agent.id for agent in agents]
        redis_server.stop(kill=True)
        q = np.tile(SECOND[0], (20, 1))
        assert (await store.agents.update_beliefs_many(ids, q)).ok
        assert (await store.agents.update_beliefs(ids[0], FIRST)).version == 3
        batch = await store.agents.get_beliefs_many(ids)
        assert [batch.get(i) for i in range(20)] == [FIRST] + [SECOND] * 19
        assert await store.agents.get_beliefs(ids[1]) == SECOND
