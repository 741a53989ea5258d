"""The cache's sink: repairs what a writer could not, and drops what a returning snapshot made doubtful."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from freeagentics_persistence.cache.redis_cache import RedisCache
from freeagentics_persistence.domain.beliefs.beliefs import Beliefs
from freeagentics_persistence.domain.epochs import Epoch
from freeagentics_persistence.domain.events import Event, EventType
from freeagentics_persistence.ports.cache import Membership
from freeagentics_persistence.ports.sealing import Kind
from freeagentics_persistence.relay.cache_sink import CacheSink
from tests.support.cached import cached
from tests.support.feeds import Feed, entry
from tests.support.redis_server import LocalRedis

NOW = datetime(2026, 5, 6, tzinfo=UTC)


@pytest.fixture
def cache(feed: Feed) -> RedisCache:
    return RedisCache(feed.connection, Epoch(feed.epoch))


@pytest.fixture
def own_cache(own_feed: Feed) -> RedisCache:
    return RedisCache(own_feed.connection, Epoch(own_feed.epoch))


async def version_of(cache: RedisCache, feed: Feed, agent: UUID) -> int | None:
    (found,) = await cached(cache, feed.tenant_id, [agent])
    return None if found is None else found.version


async def sealed_event(feed: Feed, agent: UUID, version: int, **details: object) -> Event:
    return await feed.event(agent, version, beliefs=Beliefs.uniform(3), **details)


async def test_an_older_entry_gets_the_newest_of_the_batch(cache: RedisCache, feed: Feed) -> None:
    agent, absent, newer = uuid4(), uuid4(), uuid4()
    await cache.put_beliefs(feed.tenant_id, [entry(agent, 1), entry(newer, 9)])
    batch = [await sealed_event(feed, each, v) for v in (2, 3, 4) for each in (agent, absent, newer)]
    sink = CacheSink(cache)
    await sink.resume(None)
    await sink.deliver(batch)
    (found,) = await cached(cache, feed.tenant_id, [agent])
    assert found is not None
    assert (found.version, found.revision, found.envelope) == (4, batch[6].revision, batch[6].envelope)
    assert await version_of(cache, feed, absent) is None
    assert await version_of(cache, feed, newer) == 9


async def test_a_saved_agent_replaces_and_a_deleted_one_leaves_nothing_to_read(cache: RedisCache, feed: Feed) -> None:
    saved, deleted = uuid4(), uuid4()
    await cache.put_beliefs(feed.tenant_id, [entry(saved, 1), entry(deleted, 1)])
    batch = [
        await sealed_event(feed, saved, 2, type=EventType.AGENT_SAVED),
        await feed.event(deleted, 2, type=EventType.AGENT_DELETED),
    ]
    await CacheSink(cache).deliver(batch)
    found = await cached(cache, feed.tenant_id, [saved, deleted])
    assert [None if each is None else (each.version, each.envelope) for each in found] == [
        (2, batch[0].envelope),
        (2, None),
    ]


@pytest.mark.parametrize("kind", [EventType.BELIEFS_MEASURED, "plan.made"])
async def test_what_is_no_change_of_an_agent_is_not_cached(cache: RedisCache, feed: Feed, kind: str) -> None:
    agent = uuid4()
    await cache.put_beliefs(feed.tenant_id, [entry(agent, 1)])
    await CacheSink(cache).deliver([await feed.event(agent, 2, type=kind, sealed=b"{}", kind=Kind.UPDATE_DATA)])
    assert await version_of(cache, feed, agent) == 1


async def test_tenants_are_repaired_apart(cache: RedisCache, feed: Feed) -> None:
    agent, other = uuid4(), uuid4()
    for tenant in (feed.tenant_id, other):
        await cache.put_beliefs(tenant, [entry(agent, 1)])
    await CacheSink(cache).deliver([await sealed_event(feed, agent, 5, tenant_id=other)])
    assert await version_of(cache, feed, agent) == 1
    (found,) = await cached(cache, other, [agent])
    assert found is not None
    assert found.version == 5


@pytest.mark.parametrize(
    ("kind", "dropped"),
    [
        (EventType.COALITION_SAVED, True),
        (EventType.COALITION_MEMBERS, True),
        (EventType.COALITION_DISSOLVED, True),
        (EventType.COALITION_REVENUE, False),
        (EventType.COALITION_MEASURED, False),
    ],
)
async def test_a_change_of_members_drops_them(cache: RedisCache, feed: Feed, kind: EventType, dropped: bool) -> None:
    coalition, agent = uuid4(), uuid4()
    await cache.put_members(feed.tenant_id, Membership(coalition, 1, frozenset({agent})))
    await CacheSink(cache).deliver([await feed.event(coalition, 2, type=kind)])
    known = await cache.is_member(feed.tenant_id, coalition, agent, at_least=0)
    assert known is (None if dropped else True)
    await cache.put_members(feed.tenant_id, Membership(coalition, 1, frozenset()))
    assert await cache.is_member(feed.tenant_id, coalition, agent, at_least=0) is known


async def test_the_watermark_follows_the_relay(cache: RedisCache, feed: Feed) -> None:
    sink = CacheSink(cache)
    await sink.resume(None)
    await sink.deliver([await sealed_event(feed, uuid4(), 1)])
    await sink.caught_up(NOW)
    assert await cache.watermark() == NOW


@pytest.mark.parametrize("notice", ["batch", "idle", "new relay"])
async def test_an_older_snapshot_is_dropped_before_anything_counts_as_proven(
    own_server: LocalRedis, own_cache: RedisCache, own_feed: Feed, notice: str
) -> None:
    """The snapshot has version 1; 2 was delivered and lost, and its event will not come again."""
    agent, coalition, sink = uuid4(), uuid4(), CacheSink(own_cache)
    await sink.resume(None)
    await own_cache.put_beliefs(own_feed.tenant_id, [entry(agent, 1)])
    await own_cache.put_members(own_feed.tenant_id, Membership(coalition, 1, frozenset({agent})))
    await sink.deliver([await sealed_event(own_feed, agent, 1)])
    await sink.caught_up(NOW)
    own_server.ask("SAVE")
    second = await sealed_event(own_feed, agent, 2)
    third = await own_feed.event(coalition, 2, type=EventType.COALITION_MEMBERS)
    await sink.deliver([second, third])
    assert await version_of(own_cache, own_feed, agent) == 2
    own_server.restart()
    assert await version_of(own_cache, own_feed, agent) == 1
    assert await own_cache.watermark() == NOW
    if notice == "batch":
        await sink.deliver([await sealed_event(own_feed, uuid4(), 1)])
    elif notice == "idle":
        await sink.caught_up(datetime.now(UTC))
    else:
        sink = CacheSink(own_cache)
        await sink.resume(third.position)
    assert await own_cache.watermark() is None
    assert await version_of(own_cache, own_feed, agent) is None
    assert await own_cache.is_member(own_feed.tenant_id, coalition, agent, at_least=0) is None
    moment = datetime.now(UTC)
    await sink.caught_up(moment)
    assert await own_cache.watermark() == moment


async def test_a_flush_counts_nothing_as_proven_until_it_is_noticed(
    own_server: LocalRedis, own_cache: RedisCache, own_feed: Feed
) -> None:
    sink = CacheSink(own_cache)
    await sink.deliver([await sealed_event(own_feed, uuid4(), 1)])
    own_server.ask("FLUSHALL")
    await sink.caught_up(NOW)
    assert await own_cache.watermark() is None
    await sink.caught_up(NOW)
    assert await own_cache.watermark() == NOW
