"""A reader or writer that is slow to cache what it has leaves nothing older there, whatever happened meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from freeagentics_persistence import DEFAULT_TENANT_ID, Agent, Beliefs, Persistence, Settings
from freeagentics_persistence.cache.connection import RedisConnection
from freeagentics_persistence.cache.keys import TenantKeys
from freeagentics_persistence.cache.redis_cache import RedisCache
from freeagentics_persistence.domain.epochs import Epoch
from freeagentics_persistence.operations.servers import ServerUrls
from tests.conftest import settings_of
from tests.support.cached import cached
from tests.support.proxy import Proxy

FIRST, SECOND, THIRD = Beliefs([1.0, 0]), Beliefs([0, 1.0]), Beliefs([0.5, 0.5])
FILL, PUT = b"'dropping'", b"may_create ="  # words of the scripts that do so


class Slow:
    """A store whose way to Redis goes through a proxy that can hold back one request, or be cut."""

    def __init__(self, store: Persistence, proxy: Proxy) -> None:
        self.agents, self.proxy = store.agents, proxy


@pytest.fixture
async def cache(store: Persistence, urls: ServerUrls) -> AsyncIterator[RedisCache]:
    async with RedisConnection(urls.redis) as connection:
        yield RedisCache(connection, Epoch(store.epoch))


@pytest.fixture
async def slow(store: Persistence, settings: Settings, urls: ServerUrls) -> AsyncIterator[Slow]:
    parts = urlsplit(urls.redis)
    async with Proxy(Path(unquote(parts.path))) as proxy:
        redis = {"url": f"redis://:{parts.password}@127.0.0.1:{proxy.port}/0", "timeout": 60.0}
        own = settings_of(urls, redis=redis).model_copy(update={"encryption": settings.encryption})
        async with Persistence.open(own, relay="off") as opened:
            yield Slow(opened, proxy)


async def evict(urls: ServerUrls, store: Persistence, agent: Agent) -> None:
    """Remove the entry, as a Redis that is full would."""
    async with RedisConnection(urls.redis) as connection:
        assert await connection.execute("DEL", TenantKeys(store.epoch, DEFAULT_TENANT_ID).beliefs(agent.id)) == 1


async def delivered(cache: RedisCache) -> None:
    """Wait until the relay has passed everything that is committed now."""
    now = datetime.now(UTC)
    async with asyncio.timeout(20):
        while (moment := await cache.watermark()) is None or moment <= now:
            await asyncio.sleep(0.01)


async def bounded(settings: Settings, agent: Agent) -> Beliefs | None:
    """What a store that has seen nothing takes for at most a minute old."""
    async with Persistence.open(settings, relay="off") as other:
        minute = timedelta(minutes=1)
        return await other.agents.get_beliefs(agent.id, consistency="bounded", max_staleness=minute)


@pytest.mark.parametrize("lost", ["evicted", "never put"])
async def test_a_slow_reader(
    store: Persistence, settings: Settings, urls: ServerUrls, cache: RedisCache, slow: Slow, lost: str
) -> None:
    agent = await store.agents.save_agent(Agent(name="a", agent_type="t", beliefs=FIRST))
    await evict(urls, store, agent)
    slow.proxy.hold(FILL)
    read = asyncio.create_task(slow.agents.get_beliefs(agent.id))
    await slow.proxy.holds()
    if lost == "evicted":
        await store.agents.update_beliefs(agent.id, SECOND)
        await evict(urls, store, agent)
    else:
        without = settings_of(urls, redis={"url": "redis://127.0.0.1:1/0"})
        own = without.model_copy(update={"encryption": settings.encryption})
        async with Persistence.open(own, relay="off") as writer:
            await writer.agents.update_beliefs(agent.id, SECOND)
    await delivered(cache)
    slow.proxy.release()
    assert await read == FIRST  # as it was when this reader asked
    assert await cached(cache, DEFAULT_TENANT_ID, [agent.id]) == [None]
    assert await bounded(settings, agent) == SECOND


async def test_a_slow_writer(
    store: Persistence, settings: Settings, urls: ServerUrls, cache: RedisCache, slow: Slow
) -> None:
    agent = await store.agents.save_agent(Agent(name="a", agent_type="t", beliefs=FIRST))
    slow.proxy.hold(PUT)
    write = asyncio.create_task(slow.agents.update_beliefs(agent.id, SECOND))
    await slow.proxy.holds()
    await store.agents.update_beliefs(agent.id, THIRD)
    await evict(urls, store, agent)
    await delivered(cache)
    slow.proxy.release()
    assert (await write).version == 2
    assert await cached(cache, DEFAULT_TENANT_ID, [agent.id]) == [None]
    assert await bounded(settings, agent) == THIRD
