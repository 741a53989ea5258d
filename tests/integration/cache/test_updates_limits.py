"""Bounds of a subscription, and what ends it: each is told, and none holds up another subscriber."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from freeagentics_persistence.cache.connection import RedisConnection
from freeagentics_persistence.cache.keys import TenantKeys
from freeagentics_persistence.cache.updates.hub import UpdateHub
from freeagentics_persistence.cache.updates.real_time_updates import ALL
from freeagentics_persistence.domain.epochs import Epoch
from freeagentics_persistence.errors import (
    AuthenticationFailed,
    CacheUnavailable,
    Overloaded,
    SubscriberOverflow,
    UpdatesError,
)
from tests.support.feeds import Feed, eventually, take
from tests.support.redis_server import LocalRedis


async def test_a_full_buffer_is_an_error_that_loses_nothing(feed: Feed) -> None:
    agent = uuid4()
    async with feed.updates().subscribe_to_agent_updates(agent, buffer=10) as updates:
        await feed.deliver(agent, 1, 30)
        await asyncio.sleep(0.3)
        assert [u.version for u in await take(updates, 10)] == list(range(1, 11))
        for _ in range(2):
            with pytest.raises(SubscriberOverflow, match=r"10 updates wait.*error\.resume_after") as caught:
                await anext(updates)
    resume_after = caught.value.resume_after
    async with feed.updates().subscribe_to_agent_updates(agent, after=resume_after, buffer=20) as updates:
        assert [u.version for u in await take(updates, 20)] == list(range(11, 31))


async def test_dropping_the_oldest_is_counted(feed: Feed) -> None:
    agent = uuid4()
    async with feed.updates().subscribe_to_agent_updates(agent, buffer=10, overflow="drop_oldest") as updates:
        await feed.deliver(agent, 1, 30)
        await eventually(lambda: updates.dropped == 20)
        assert [u.version for u in await take(updates, 10)] == list(range(21, 31))
        assert updates.dropped == 20


async def test_waiting_loses_nothing_and_holds_up_no_other(own_feed: Feed, own_connection: RedisConnection) -> None:
    """Redis is told to cut a subscriber that leaves more than 256 KiB unread."""
    await own_connection.execute("CONFIG", "SET", "client-output-buffer-limit", "pubsub 262144 262144 0")
    agent, count = uuid4(), 1000
    updates = own_feed.updates()
    async with (
        updates.subscribe_to_agent_updates(agent, buffer=1, overflow="wait") as slow,
        updates.subscribe_to_agent_updates(agent, buffer=count) as fast,
    ):
        for version in range(1, count + 1, 100):
            batch = [await own_feed.event(agent, v, sealed=bytes(10_000)) for v in range(version, version + 100)]
            await own_feed.sink.deliver(batch)
            assert [u.version for u in await take(fast, 100, 5)] == list(range(version, version + 100))
        assert [u.version for u in await take(slow, count, 30)] == list(range(1, count + 1))


@pytest.mark.parametrize("message", [b"hello", b"{}", b"[1]", b'{"tenant_id": 1}'])
async def test_a_message_that_is_none_is_refused(feed: Feed, connection: RedisConnection, message: bytes) -> None:
    agent = uuid4()
    channel = TenantKeys(feed.epoch, feed.tenant_id).agent_channel(agent)
    async with feed.updates().subscribe_to_agent_updates(agent) as updates:
        await feed.deliver(agent, 1, 1)
        await connection.execute("PUBLISH", channel, message)
        assert [u.version for u in await take(updates, 1)] == [1]
        with pytest.raises(UpdatesError, match="was refused"):
            await take(updates, 1)


async def test_a_message_of_another_tenant_is_refused(feed: Feed, connection: RedisConnection) -> None:
    agent, other = uuid4(), uuid4()
    await feed.sink.deliver([await feed.event(agent, 1, tenant_id=other)])
    (stored,) = await connection.execute("XRANGE", TenantKeys(feed.epoch, other).feed, "-", "+")
    channel = TenantKeys(feed.epoch, feed.tenant_id).agent_channel(agent)
    async with feed.updates().subscribe_to_agent_updates(agent) as updates:
        await connection.execute("PUBLISH", channel, stored[1][3])
        with pytest.raises(UpdatesError, match="another tenant or epoch"):
            await take(updates, 1)


async def test_async_for_ends_when_the_subscription_does(feed: Feed) -> None:
    agent, got = uuid4(), []
    subscribed = feed.updates().subscribe_to_agent_updates(agent)
    async with subscribed as updates:
        await feed.deliver(agent, 1, 2)
        async for update in updates:
            got.append(update.version)
            if len(got) == 2:
                break
    assert [update async for update in subscribed] == []
    assert got == [1, 2]


async def test_a_subscription_is_used_once_and_inside_with(feed: Feed) -> None:
    subscribed = feed.updates().subscribe_to_agent_updates(ALL)
    with pytest.raises(UpdatesError, match="async with"):
        await anext(subscribed)
    async with subscribed:
        pass
    with pytest.raises(UpdatesError, match="used before"):
        async with subscribed:
            pass


async def test_a_server_that_is_not_there_is_an_error_on_entering(own_server: LocalRedis, own_feed: Feed) -> None:
    own_server.stop()
    with pytest.raises(CacheUnavailable, match="cannot be reached"):
        async with own_feed.updates().subscribe_to_agent_updates(ALL):
            pass


async def test_a_login_that_is_refused_later_ends_the_subscription(own_server: LocalRedis, own_feed: Feed) -> None:
    async with own_feed.updates().subscribe_to_agent_updates(ALL) as updates:
        own_server.stop(kill=True)
        own_server.start("--requirepass", "changed")
        with pytest.raises(AuthenticationFailed):
            await take(updates, 1)


async def test_what_is_followed_is_bounded_and_let_go(feed: Feed, connection: RedisConnection) -> None:
    feed.hub = UpdateHub(connection, Epoch(feed.epoch), limit=3)
    subscribe = feed.updates().subscribe_to_agent_updates
    async with subscribe([uuid4(), uuid4()]), subscribe(ALL):
        with pytest.raises(Overloaded, match=r"follow 3 agents.* 1 more are past 3"):
            await subscribe(ALL).__aenter__()
    async with subscribe([uuid4(), uuid4(), uuid4()]):
        pass
