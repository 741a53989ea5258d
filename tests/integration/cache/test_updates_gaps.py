"""Gaps: whatever a subscriber can no longer be given, it is told of, and what it is told to resume from works."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from freeagentics_persistence.cache.connection import RedisConnection
from freeagentics_persistence.cache.keys import EpochKeys, TenantKeys
from freeagentics_persistence.cache.updates.feed_marker import FeedMarker
from freeagentics_persistence.cache.updates.real_time_updates import ALL, RealTimeUpdates, Subscription
from freeagentics_persistence.domain.events import FeedPosition
from freeagentics_persistence.errors import CacheUnavailable, FeedGap
from tests.support.feeds import Feed, take
from tests.support.proxy import Proxy
from tests.support.redis_server import LocalRedis


async def refused(updates: RealTimeUpdates, agents: object, after: str) -> str:
    """Where to go on after the gap that subscribing after this position is refused with."""
    with pytest.raises(FeedGap, match=r"are gone.*error\.resume_after") as caught:
        async with updates.subscribe_to_agent_updates(agents, after=after):
            pass
    assert caught.value.resume_after is not None
    return caught.value.resume_after


async def told(updates: Subscription) -> str:
    """Where to go on after the gap that a subscriber is told of."""
    with pytest.raises(FeedGap, match=r"are gone.*error\.resume_after") as caught:
        await take(updates, 1)
    assert caught.value.resume_after is not None
    return caught.value.resume_after


async def position_now(feed: Feed) -> str:
    async with feed.updates().subscribe_to_agent_updates(ALL) as updates:
        return updates.position


async def goes_on(feed: Feed, agent, after: str, first: int) -> None:
    """A subscriber that resumes there gets what comes next, and only that."""
    async with feed.updates().subscribe_to_agent_updates(agent, after=after) as updates:
        await feed.deliver(agent, first, first + 1)
        assert [u.version for u in await take(updates, 2)] == [first, first + 1]


async def test_trimmed_updates_are_a_gap(connection: RedisConnection) -> None:
    feed, agent = Feed(connection, feed_length=50), uuid4()
    start = await position_now(feed)
    await feed.deliver(agent, 1, 3)
    early = await position_now(feed)
    await feed.deliver(agent, 4, 1000)
    settings = "REDIS_FEED_LENGTH, REDIS_FEED_MEGABYTES and REDIS_FEED_IDLE_HOURS"
    with pytest.raises(FeedGap, match=settings):
        async with feed.updates().subscribe_to_agent_updates(agent, after=early):
            pass
    for after in (start, early):
        await goes_on(feed, agent, await refused(feed.updates(), agent, after), feed.last_id + 1)


async def test_a_feed_is_bounded_in_bytes(connection: RedisConnection) -> None:
    feed, agent = Feed(connection, feed_bytes=20_000), uuid4()
    await feed.deliver(agent, 1, 1000)
    key = TenantKeys(feed.epoch, feed.tenant_id).feed
    kept = await connection.execute("XLEN", key)
    assert 20 <= kept < 300


async def test_what_is_still_kept_is_no_gap(connection: RedisConnection) -> None:
    feed, agent = Feed(connection, feed_length=50), uuid4()
    await feed.deliver(agent, 1, 1000)
    after = await position_now(feed)
    await feed.deliver(agent, 1001, 1040)
    async with feed.updates().subscribe_to_agent_updates(agent, after=after) as updates:
        assert [u.version for u in await take(updates, 40)] == list(range(1001, 1041))


async def test_what_was_trimmed_during_a_lost_connection_is_a_gap(
    shared_server: LocalRedis, connection: RedisConnection
) -> None:
    feed, agent = Feed(connection, feed_length=50), uuid4()
    async with (
        Proxy(shared_server.socket) as proxy,
        RedisConnection(proxy.url) as through,
        feed.updates(connection=through).subscribe_to_agent_updates(agent) as updates,
    ):
        await feed.deliver(agent, 1, 2)
        assert [u.version for u in await take(updates, 2)] == [1, 2]
        proxy.refuse(True)
        proxy.cut()
        await feed.deliver(agent, 3, 1000)
        proxy.refuse(False)
        resume_after = await told(updates)
    await goes_on(feed, agent, resume_after, 1001)


async def test_another_epoch_is_a_gap_at_once(feed: Feed) -> None:
    agent = uuid4()
    await feed.deliver(agent, 1, 2)
    before = await position_now(feed)
    later = Feed(feed.connection, tenant_id=feed.tenant_id)
    await later.deliver(agent, 1, 5)
    resume_after = await refused(later.updates(), agent, before)
    assert resume_after == await position_now(later)
    await goes_on(later, agent, resume_after, 6)


async def test_a_position_that_never_was_is_a_gap(feed: Feed) -> None:
    agent = uuid4()
    await feed.deliver(agent, 1, 2)
    resume_after = await refused(feed.updates(), agent, f"{feed.epoch}/7-999999")
    await goes_on(feed, agent, resume_after, 3)


async def test_a_flush_is_told_to_who_is_there_and_who_comes_back(own_server: LocalRedis, own_feed: Feed) -> None:
    agent, other, started = uuid4(), uuid4(), await position_now(own_feed)
    async with own_feed.updates().subscribe_to_agent_updates(agent) as updates:
        await own_feed.deliver(agent, 1, 2)
        assert [u.version for u in await take(updates, 2)] == [1, 2]
        left = updates.position
        await own_feed.deliver(other, 1, 1)
        own_server.ask("FLUSHALL")
        await own_feed.sink.caught_up(datetime.now(UTC))
        live = await told(updates)
    again = [await refused(own_feed.updates(), agent, after) for after in (started, left)]
    assert {live, *again} == {f"{own_feed.epoch}/7-3"}
    await goes_on(own_feed, agent, live, 3)
    await goes_on(own_feed, agent, await position_now(own_feed), 5)


async def test_an_unnoticed_flush_is_a_gap_too(own_server: LocalRedis, own_feed: Feed) -> None:
    agent = uuid4()
    await own_feed.deliver(agent, 1, 2)
    left = await position_now(own_feed)
    own_server.ask("FLUSHALL")
    first = await refused(own_feed.updates(), agent, left)
    async with own_feed.updates().subscribe_to_agent_updates(agent, after=first) as updates:
        await own_feed.deliver(agent, 3, 3)
        second = await told(updates)
    async with own_feed.updates().subscribe_to_agent_updates(agent, after=second) as updates:
        assert [u.version for u in await take(updates, 1)] == [3]


@pytest.mark.parametrize("notice", ["batch", "idle", "new relay"])
async def test_an_older_snapshot_is_a_gap(own_server: LocalRedis, own_feed: Feed, notice: str) -> None:
    """Versions 3 and 4 were delivered and lost; a subscriber that has seen 2 must not simply be given 5."""
    agent = uuid4()
    await own_feed.sink.resume(None)
    async with own_feed.updates().subscribe_to_agent_updates(agent) as updates:
        await own_feed.deliver(agent, 1, 2)
        await take(updates, 2)
        left = updates.position
    own_server.ask("SAVE")
    lost = await own_feed.deliver(agent, 3, 4)
    own_server.restart()
    async with own_feed.updates().subscribe_to_agent_updates(agent, after=left) as updates:
        if notice == "batch":
            await own_feed.deliver(agent, 5, 5)
        elif notice == "idle":
            await own_feed.sink.caught_up(datetime.now(UTC))
        else:
            own_feed.sink = own_feed.new_sink()
            await own_feed.sink.resume(lost[-1].position)
        resume_after = await told(updates)
    assert resume_after == f"{own_feed.epoch}/{lost[-1].position}"
    assert await refused(own_feed.updates(), agent, left) == resume_after
    async with own_feed.updates().subscribe_to_agent_updates(agent, after=resume_after) as updates:
        await own_feed.deliver(agent, 6, 6)
        expected = [5, 6] if notice == "batch" else [6]
        assert [u.version for u in await take(updates, len(expected))] == expected


async def test_a_relay_that_comes_later_knows_of_the_gap(own_server: LocalRedis, own_feed: Feed) -> None:
    agent = uuid4()
    lost = await own_feed.deliver(agent, 1, 2)
    own_server.ask("FLUSHALL")
    await own_feed.sink.caught_up(datetime.now(UTC))
    own_feed.sink = own_feed.new_sink()
    await own_feed.sink.resume(lost[-1].position)
    await own_feed.deliver(agent, 3, 3)
    async with own_feed.updates().subscribe_to_agent_updates(
        agent, after=f"{own_feed.epoch}/{lost[-1].position}"
    ) as updates:
        assert [u.version for u in await take(updates, 1)] == [3]


async def test_the_loss_of_one_tenants_updates_is_told_to_a_tenant_without_any(
    own_server: LocalRedis, own_feed: Feed
) -> None:
    """Redis cannot say whose updates were lost, so no subscriber may take its feed for whole."""
    other, agent = uuid4(), uuid4()
    async with own_feed.updates(other).subscribe_to_agent_updates(ALL) as updates:
        before = updates.position
    await own_feed.deliver(agent, 1, 2)
    own_server.ask("FLUSHALL")
    await own_feed.sink.caught_up(datetime.now(UTC))
    await refused(own_feed.updates(other), ALL, before)


async def test_a_first_start_and_a_change_of_relays_are_no_gap(feed: Feed) -> None:
    agent = uuid4()
    async with feed.updates().subscribe_to_agent_updates(agent) as updates:
        start = updates.position
        await feed.sink.resume(None)
        events = await feed.deliver(agent, 1, 4)
        await feed.sink.caught_up(datetime.now(UTC))
        for position in (events[1].position, events[3].position, None):
            feed.sink = feed.new_sink()
            await feed.sink.resume(position)
            await feed.sink.deliver(events[2:])
            await feed.sink.caught_up(datetime.now(UTC))
        await feed.deliver(agent, 5, 5)
        assert [u.version for u in await take(updates, 5)] == [1, 2, 3, 4, 5]
    async with feed.updates().subscribe_to_agent_updates(agent, after=start) as updates:
        assert [u.version for u in await take(updates, 5)] == [1, 2, 3, 4, 5]


async def test_a_relay_that_was_replaced_declares_no_loss(feed: Feed) -> None:
    agent = uuid4()
    await feed.sink.resume(None)
    events = await feed.deliver(agent, 1, 2)
    start = await position_now(feed)
    newer = feed.new_sink()
    await newer.resume(events[-1].position)
    later = await feed.versions(agent, 3, 4)
    await newer.deliver(later)
    await feed.sink.deliver(later[:1])
    for sink in (feed.sink, newer):
        await sink.caught_up(datetime.now(UTC))
    async with feed.updates().subscribe_to_agent_updates(agent, after=start) as updates:
        assert [u.version for u in await take(updates, 2)] == [3, 4]


async def test_a_flush_during_a_batch_is_noticed(own_server: LocalRedis, own_feed: Feed) -> None:
    marker = FeedMarker(own_feed.connection, EpochKeys(own_feed.epoch).feed_marker)
    marker.resume(None)
    assert await marker.lost() is None
    assert await marker.advance(FeedPosition(1, 5))
    assert await marker.lost() is None
    own_server.ask("FLUSHALL")
    assert not await marker.advance(FeedPosition(1, 6))
    assert await marker.lost() is not None
    await marker.declare_loss(FeedPosition(1, 6))
    assert await marker.lost() is None
    assert await marker.gap() == FeedPosition(1, 6)


async def test_a_restart_during_a_batch_repeats_it(own_server: LocalRedis, own_feed: Feed) -> None:
    """The snapshot holds the marker of the batch before, so only the server's run tells that this batch is gone."""
    marker = FeedMarker(own_feed.connection, EpochKeys(own_feed.epoch).feed_marker)
    assert await marker.lost() is None
    assert await marker.advance(FeedPosition(1, 5))
    own_server.ask("SAVE")
    assert await marker.lost() is None
    own_server.restart()
    with pytest.raises(CacheUnavailable, match="started anew during a delivery"):
        await marker.advance(FeedPosition(1, 6))
    assert await marker.lost() is None
    assert await marker.advance(FeedPosition(1, 6))


async def test_positions_are_compared_as_numbers(own_server: LocalRedis, own_feed: Feed) -> None:
    marker = FeedMarker(own_feed.connection, EpochKeys(own_feed.epoch).feed_marker)
    steps = [FeedPosition(9, 9), FeedPosition(9, 10), FeedPosition(10, 2), FeedPosition(2**63, 2**62)]
    for earlier, later in itertools.pairwise(steps):
        marker.resume(None)
        await marker.lost()
        assert await marker.advance(earlier)
        marker.resume(later)
        assert await marker.lost() is not None
        marker.resume(None)
        assert await marker.advance(later)
        marker.resume(earlier)
        assert await marker.lost() is None


async def test_following_a_feed_that_is_lost_while_the_server_is_away(own_server: LocalRedis, own_feed: Feed) -> None:
    agent = uuid4()
    async with own_feed.updates().subscribe_to_agent_updates(agent) as updates:
        await own_feed.deliver(agent, 1, 2)
        await take(updates, 2)
        own_server.restart()
        await asyncio.sleep(0.1)
        await told(updates)


async def entered_and_taken(updates: Subscription, count: int) -> None:
    async with updates:
        await take(updates, count)


async def test_a_gap_that_is_declared_while_a_subscriber_begins_reaches_it(connection: RedisConnection) -> None:
    """At whichever turn of its beginning: before, between or after its reads."""
    for turns in range(0, 60, 2):
        feed, agent = Feed(connection), uuid4()
        start = await position_now(feed)
        await feed.deliver(agent, 1, 3)
        keys = EpochKeys(feed.epoch)
        marker = FeedMarker(connection, keys.feed_marker, keys.gaps_channel)
        updates = feed.updates().subscribe_to_agent_updates(agent, after=start)
        beginning = asyncio.create_task(entered_and_taken(updates, 4))
        for _ in range(turns):
            await asyncio.sleep(0)
        await marker.declare_loss(FeedPosition(7, 9))
        with pytest.raises(FeedGap) as caught:
            await beginning
        assert caught.value.resume_after == f"{feed.epoch}/7-9"
