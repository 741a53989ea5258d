"""The feed under eviction and idleness: it is kept, freed by the relay alone, and its loss is always told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from freeagentics_persistence.cache.connection import RedisConnection
from freeagentics_persistence.cache.keys import EpochKeys, TenantKeys
from freeagentics_persistence.cache.redis_cache import RedisCache
from freeagentics_persistence.cache.updates import feed_sweep
from freeagentics_persistence.cache.updates.feed import FeedBounds
from freeagentics_persistence.cache.updates.real_time_updates import ALL
from freeagentics_persistence.domain.beliefs.beliefs import Beliefs
from freeagentics_persistence.domain.epochs import Epoch
from freeagentics_persistence.domain.events import FeedPosition
from freeagentics_persistence.errors import FeedGap
from freeagentics_persistence.relay.updates_sink import UpdatesSink
from tests.support.feeds import Feed, entry, take
from tests.support.redis_server import LocalRedis


def key_of(feed: Feed) -> str:
    return TenantKeys(feed.epoch, feed.tenant_id).feed


async def test_memory_runs_short_at_the_cost_of_cached_entries_and_never_of_the_feed(
    own_server: LocalRedis, own_feed: Feed
) -> None:
    agent, redis = uuid4(), own_feed.connection
    async with own_feed.updates().subscribe_to_agent_updates(ALL) as updates:
        start = updates.position
    await own_feed.deliver(agent, 1, 200)
    await redis.execute("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    await redis.execute("CONFIG", "SET", "maxmemory-samples", "64")
    used = int((await redis.execute("INFO", "memory")).split(b"used_memory:")[1].split()[0])
    await redis.execute("CONFIG", "SET", "maxmemory", used + 4_000_000)
    cache = RedisCache(redis, Epoch(own_feed.epoch))
    for _ in range(10):
        await cache.put_beliefs(own_feed.tenant_id, [entry(uuid4(), 1, bytes(10_000)) for _ in range(100)])
    assert b"evicted_keys:0\r" not in await redis.execute("INFO", "stats")
    async with own_feed.updates().subscribe_to_agent_updates(ALL, after=start) as updates:
        assert [update.version for update in await take(updates, 200)] == list(range(1, 201))


async def test_a_feed_that_was_lost_alone_and_begins_anew_is_a_gap(feed: Feed) -> None:
    agent = uuid4()
    async with feed.updates().subscribe_to_agent_updates(agent) as updates:
        start = updates.position
    await feed.deliver(agent, 1, 3)
    await feed.connection.execute("UNLINK", key_of(feed))
    async with feed.updates().subscribe_to_agent_updates(agent, after=start) as updates:
        await feed.deliver(agent, 4, 5)
        with pytest.raises(FeedGap, match="Redis lost updates") as caught:
            await take(updates, 1)
    with pytest.raises(FeedGap):
        async with feed.updates().subscribe_to_agent_updates(agent, after=start):
            pass
    async with feed.updates().subscribe_to_agent_updates(agent, after=caught.value.resume_after) as updates:
        assert [update.version for update in await take(updates, 2)] == [4, 5]
    # once told, and from another relay's view, it is whole again
    feed.sink = feed.new_sink()
    await feed.sink.resume(FeedPosition(7, 5))
    await feed.deliver(agent, 6, 6)
    async with feed.updates().subscribe_to_agent_updates(agent, after=caught.value.resume_after) as updates:
        assert [update.version for update in await take(updates, 3)] == [4, 5, 6]


async def test_a_delivery_that_is_repeated_after_the_feed_was_lost(feed: Feed) -> None:
    agent = uuid4()
    events = await feed.versions(agent, 1, 3)
    for _ in range(3):
        await feed.sink.deliver(events)
        await feed.connection.execute("UNLINK", key_of(feed))
    await feed.sink.deliver(events)
    async with feed.updates().subscribe_to_agent_updates(agent, after=f"{feed.epoch}/7-1") as updates:
        assert [update.version for update in await take(updates, 2)] == [2, 3]


async def test_a_large_update_costs_the_feed_no_more_than_its_own_bytes(connection: RedisConnection) -> None:
    feed, agent = Feed(connection, feed_bytes=3_000_000), uuid4()
    async with feed.updates().subscribe_to_agent_updates(agent) as updates:
        start = updates.position
    await feed.deliver(agent, 1, 1000)
    small = Beliefs.uniform(2).to_bytes()
    await feed.sink.deliver([await feed.event(agent, 1001, sealed=bytes(1_000_000))])  # 1.3 MB as a message
    await feed.sink.deliver([await feed.event(agent, 1002, sealed=small)])
    async with feed.updates().subscribe_to_agent_updates(agent, after=start) as updates:
        assert [u.version for u in await take(updates, 1002)] == list(range(1, 1003))


async def test_the_bytes_of_a_feed_are_bounded_whatever_the_sizes_are(connection: RedisConnection) -> None:
    feed, agent = Feed(connection, feed_bytes=500_000), uuid4()
    all_sizes: list[int] = []
    for i, size in enumerate([10, 10_000, 10, 100_000, 10, 10, 30_000, 300_000, 10, 10_000, 10] * 3):
        count = min(1 + 20_000 // size, 400)
        await feed.sink.deliver([await feed.event(agent, i, sealed=bytes(size)) for _ in range(count)])
        kept = [len(fields[3]) for _, fields in await connection.execute("XRANGE", key_of(feed), "-", "+")]
        all_sizes += kept[-count:]
        assert kept == all_sizes[-len(kept) :]
        assert sum(kept) <= 500_000 < sum([*kept, *all_sizes[: -len(kept)][-1:], 500_000 * (kept == all_sizes)])
    assert len(kept) < len(all_sizes) / 2
    # the newest stays even where it alone is too large
    await feed.sink.deliver([await feed.event(agent, 1000, sealed=bytes(1_000_000))])
    assert await connection.execute("XLEN", key_of(feed)) == 1


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Feeds are swept from the start on."""
    monkeypatch.setattr(feed_sweep, "FIRST_SECONDS", 0.0)


async def sweep(sink: UpdatesSink, moment: datetime) -> None:
    """As many idle looks as a sweep of these small servers takes."""
    for _ in range(20):
        await sink.caught_up(moment)


@pytest.mark.usefixtures("at_once")
async def test_an_idle_feed_is_freed_and_nothing_else(connection: RedisConnection) -> None:
    feed, agent, now = Feed(connection), uuid4(), datetime.now(UTC)
    sink = UpdatesSink(connection, feed.epoch, FeedBounds(idle_seconds=3600))
    round_ = int((now - timedelta(minutes=50)).timestamp() * 1e6)
    events = [event._replace(round=round_, id=i + 1) for i, event in enumerate(await feed.versions(agent, 1, 6))]
    await sink.deliver(events[:2])
    before = f"{feed.epoch}/{events[0].position}"
    async with feed.updates().subscribe_to_agent_updates(agent) as updates:
        end = updates.position
    await sweep(sink, now)
    assert await connection.execute("XLEN", key_of(feed)) == 2
    assert await connection.execute("TTL", key_of(feed)) == -1
    sink = UpdatesSink(connection, feed.epoch, FeedBounds(idle_seconds=3600))
    await sink.resume(events[1].position)
    await sweep(sink, now + timedelta(minutes=20))
    assert await connection.execute("XLEN", key_of(feed)) == 1
    with pytest.raises(FeedGap):
        async with feed.updates().subscribe_to_agent_updates(agent, after=before):
            pass
    async with feed.updates().subscribe_to_agent_updates(agent, after=end) as updates:
        await sink.deliver(events[2:])
        assert [update.version for update in await take(updates, 4)] == [3, 4, 5, 6]


@pytest.mark.usefixtures("at_once")
async def test_what_an_ended_epoch_left_goes(connection: RedisConnection) -> None:
    ended, living, agent = Feed(connection), Feed(connection), uuid4()
    for feed in (ended, living):
        await feed.deliver(agent, 1, 2)
    own = uuid4()
    await sweep(UpdatesSink(connection, own, FeedBounds(), [ended.epoch]), datetime.now(UTC))
    left = [
        await connection.execute("EXISTS", key_of(feed), EpochKeys(feed.epoch).feed_marker) for feed in (ended, living)
    ]
    assert left == [0, 2]
