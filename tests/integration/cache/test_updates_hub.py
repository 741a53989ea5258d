"""Many subscribers over one connection: each gets what it follows, whatever the others do."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from uuid import UUID, uuid4

import pytest

from freeagentics_persistence.cache.connection import RedisConnection
from freeagentics_persistence.cache.updates.hub import UpdateHub
from freeagentics_persistence.cache.updates.real_time_updates import ALL
from freeagentics_persistence.domain.epochs import Epoch
from freeagentics_persistence.errors import CacheUnavailable, SubscriberOverflow
from tests.support.feeds import Feed, eventually, take
from tests.support.proxy import Proxy
from tests.support.redis_server import LocalRedis


async def comes_to(count: int, of: Callable[[], Awaitable[int]]) -> None:
    """What one connection has sent may be served after what another sends later."""
    async with asyncio.timeout(5):
        while await of() != count:
            await asyncio.sleep(0.01)


async def cut(connection: RedisConnection) -> None:
    await connection.execute("CLIENT", "KILL", "TYPE", "pubsub")


async def test_one_connection_serves_all_and_ends_with_the_last(own_feed: Feed) -> None:
    connection, other = own_feed.connection, uuid4()
    agents = [uuid4() for _ in range(20)]

    async def followers() -> int:
        return len((await connection.execute("CLIENT", "LIST", "TYPE", "pubsub")).splitlines())

    async with AsyncExitStack() as stack:
        subscribed = {}
        for tenant in (own_feed.tenant_id, other):
            subscribe = own_feed.updates(tenant).subscribe_to_agent_updates
            for followed in (ALL, ALL, agents[:2], *agents):
                subscribed[await stack.enter_async_context(subscribe(followed))] = tenant, followed
        assert await followers() == 1
        for version in (1, 2):
            for tenant in (own_feed.tenant_id, other):
                events = [await own_feed.event(agent, version, tenant_id=tenant) for agent in agents]
                await own_feed.sink.deliver(events)
        for updates, (tenant, followed) in subscribed.items():
            wanted = agents if followed is ALL else [followed] if isinstance(followed, UUID) else followed
            got = await take(updates, 2 * len(wanted))
            assert [(u.tenant_id, u.agent_id, u.version) for u in got] == [
                (tenant, agent, version) for version in (1, 2) for agent in wanted
            ]
    await comes_to(0, followers)
    async with own_feed.updates().subscribe_to_agent_updates(ALL):
        assert await followers() == 1


async def test_only_what_is_followed_is_sent(own_feed: Feed) -> None:
    connection, agent, other = own_feed.connection, uuid4(), uuid4()
    subscribe = own_feed.updates().subscribe_to_agent_updates

    async def channels() -> int:
        return len(await connection.execute("PUBSUB", "CHANNELS"))

    async with subscribe(agent):
        async with subscribe([agent, other]), subscribe(ALL):
            assert await channels() == 4  # that of gaps too
        await comes_to(2, channels)


async def test_an_update_is_decoded_once_and_shared_but_for_its_dict(feed: Feed) -> None:
    agent = uuid4()
    subscribe = feed.updates().subscribe_to_agent_updates
    async with subscribe(agent) as one, subscribe(agent) as two, subscribe(ALL) as every:
        await feed.sink.deliver([await feed.event(agent, 1, data={"district": "a"})])
        first, second, third = [(await take(updates, 1))[0] for updates in (one, two, every)]
    assert first is second is third
    assert feed.seen == [(feed.tenant_id, agent, 1)]
    first.data["district"] = "b"
    assert second.data == {"district": "a"}


@pytest.mark.parametrize("overflow", ["error", "wait", "drop_oldest", "drop_newest", "latest"])
async def test_a_subscriber_that_takes_nothing_holds_up_no_other(feed: Feed, overflow: str) -> None:
    """The slow one takes nothing before the fast one has everything: if it were waited for, that would never be."""
    agents, count = [uuid4(), uuid4()], 300
    subscribe = feed.updates().subscribe_to_agent_updates
    async with subscribe(ALL, buffer=5, overflow=overflow) as slow, subscribe(ALL, buffer=100) as fast:
        for version in range(1, count + 1, 50):
            await feed.sink.deliver([await feed.event(a, v) for v in range(version, version + 50) for a in agents])
            assert {u.version for u in await take(fast, 100)} == set(range(version, version + 50))
        everything = [(agent, version) for version in range(1, count + 1) for agent in agents]
        expected = {"drop_oldest": everything[-5:], "wait": everything, "latest": everything[-2:]}.get(
            overflow, everything[:5]
        )
        assert [(u.agent_id, u.version) for u in await take(slow, len(expected))] == expected
        if overflow == "error":
            with pytest.raises(SubscriberOverflow):
                await take(slow, 1)
        else:
            assert slow.dropped == 2 * count - len(expected)
            await feed.deliver(agents[0], count + 1, count + 1)
            assert [u.version for u in await take(slow, 1)] == [count + 1]


async def test_the_latest_of_more_agents_than_may_wait_is_an_error_that_loses_nothing(feed: Feed) -> None:
    agents = [uuid4() for _ in range(4)]
    subscribe = feed.updates().subscribe_to_agent_updates
    async with subscribe(ALL, buffer=3, overflow="latest") as updates:
        await feed.sink.deliver([await feed.event(agent, v) for v in (1, 2) for agent in agents[:3]])
        await feed.sink.deliver([await feed.event(agent, 3) for agent in (agents[0], agents[3])])
        await feed.connection.execute("PING")
        assert [(u.agent_id, u.version) for u in await take(updates, 3)] == [
            *[(agent, 2) for agent in agents[1:3]],
            (agents[0], 3),
        ]
        with pytest.raises(SubscriberOverflow) as caught:
            await take(updates, 1)
    async with subscribe(ALL, after=caught.value.resume_after) as updates:
        assert [(u.agent_id, u.version) for u in await take(updates, 1)] == [(agents[3], 3)]


async def test_a_buffer_is_bounded_in_bytes(feed: Feed) -> None:
    agent = uuid4()
    subscribe = feed.updates().subscribe_to_agent_updates
    async with subscribe(agent, buffer_bytes=50_000, overflow="drop_oldest") as updates:
        await feed.sink.deliver([await feed.event(agent, v, sealed=bytes(10_000)) for v in range(1, 21)])
        await feed.sink.deliver([await feed.event(agent, 21, sealed=bytes(60_000))])
        await eventually(lambda: updates.dropped == 20)
        assert [u.version for u in await take(updates, 1)] == [21]


@pytest.mark.parametrize("seed", range(2))
async def test_joining_at_any_position_while_updates_come_loses_and_repeats_nothing(feed: Feed, seed: int) -> None:
    rng, agents = random.Random(seed), [uuid4() for _ in range(4)]
    subscribe = feed.updates().subscribe_to_agent_updates
    sent: list[tuple[UUID, int, str]] = []
    delivered = 0
    total, ready = 2000, asyncio.Event()
    async with subscribe(ALL) as updates:
        start = updates.position

    async def go_on() -> None:
        nonlocal delivered
        while len(sent) < total:
            size = min(total - len(sent), rng.choice([1, 5, 100]))
            whose = rng.choices(agents, k=size) if len(sent) + size < total else agents
            batch = [await feed.event(agent, number) for number, agent in enumerate(whose, len(sent) + 1)]
            sent.extend((e.subject_id, e.version, f"{feed.epoch}/{e.position}") for e in batch)
            await feed.sink.deliver(batch)
            delivered = len(sent)
            if delivered > total // 4:
                ready.set()

    async def follow(number: int) -> None:
        place = rng.randrange(-1, delivered)
        after = start if place < 0 else sent[place][2]
        followed = rng.choice([ALL, agents[:1], agents[1:3], agents])
        wanted = agents if followed is ALL else followed
        buffer, overflow = rng.choice([(2 * total, "error"), (1, "wait"), (7, "wait"), (300, "wait")])
        got: list[tuple[UUID, int]] = []
        async with subscribe(followed, after=after, buffer=buffer, overflow=overflow) as updates:
            while len(sent) < total or got[-1:] != [each[:2] for each in sent if each[0] in wanted][-1:]:
                got += [(u.agent_id, u.version) for u in await take(updates, 1, 20)]
        expected = [(agent, version) for agent, version, _ in sent[place + 1 :] if agent in wanted]
        assert got == expected, f"subscriber {number}"

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(go_on())
        await ready.wait()
        for number in range(12):
            group.create_task(follow(number))
            await asyncio.sleep(0)


async def test_cuts_lose_and_repeat_nothing_for_any_kind_of_subscriber(own_feed: Feed) -> None:
    agent, other, last = uuid4(), uuid4(), 300
    subscribe = own_feed.updates().subscribe_to_agent_updates

    async def go_on() -> None:
        for version in range(1, last + 1):
            await own_feed.sink.deliver([await own_feed.event(each, version) for each in (other, agent)])
            if version % 20 == 0:
                await cut(own_feed.connection)

    async with (
        subscribe(agent) as one,
        subscribe([agent, other]) as both,
        subscribe(ALL) as every,
        subscribe(ALL, buffer=3, overflow="wait") as slow,
    ):
        going = asyncio.create_task(go_on())
        assert [u.version for u in await take(one, last, 30)] == list(range(1, last + 1))
        for updates in (both, every, slow):
            got = await take(updates, 2 * last, 30)
            assert [(u.agent_id, u.version) for u in got] == [
                (each, version) for version in range(1, last + 1) for each in (other, agent)
            ]
        await going


async def test_subscriptions_are_entered_while_the_connection_is_cut(own_server: LocalRedis, own_feed: Feed) -> None:
    agent = uuid4()
    async with Proxy(own_server.socket) as proxy, RedisConnection(proxy.url) as through:
        own_feed.hub = UpdateHub(through, Epoch(own_feed.epoch))
        subscribe = own_feed.updates().subscribe_to_agent_updates
        async with subscribe(agent) as one:
            for version in range(1, 6):
                proxy.cut()
                async with subscribe(uuid4()), subscribe(agent) as two:
                    await own_feed.deliver(agent, version, version)
                    for updates in (one, two):
                        assert [u.version for u in await take(updates, 1)] == [version]
            proxy.refuse(True)
            proxy.cut()
            with pytest.raises(CacheUnavailable):
                await subscribe(agent).__aenter__()
            proxy.refuse(False)
            await own_feed.deliver(agent, 6, 6)
            assert [u.version for u in await take(one, 1)] == [6]


@pytest.mark.parametrize(("buffer", "overflow"), [(1000, "error"), (1, "wait")])
async def test_a_cancelled_wait_loses_nothing(feed: Feed, buffer: int, overflow: str) -> None:
    agent, rng, got, last = uuid4(), random.Random(1), [], 150
    async with feed.updates().subscribe_to_agent_updates(agent, buffer=buffer, overflow=overflow) as updates:
        for version in range(1, last + 1):
            taking = asyncio.ensure_future(anext(updates))
            for _ in range(rng.randrange(4)):
                await asyncio.sleep(0)
            delivering = asyncio.create_task(feed.deliver(agent, version, version))
            for _ in range(rng.randrange(30)):
                await asyncio.sleep(0)
            taking.cancel()
            await asyncio.wait([taking, delivering])
            if not taking.cancelled():
                got.append(taking.result().version)
        got += [u.version for u in await take(updates, last - len(got))]
    assert got == list(range(1, last + 1))


async def test_two_that_take_from_one_subscription_share_its_updates(feed: Feed) -> None:
    agent = uuid4()
    async with feed.updates().subscribe_to_agent_updates(agent) as updates:
        taking = [asyncio.ensure_future(anext(updates)) for _ in range(2)]
        await asyncio.sleep(0)
        await feed.deliver(agent, 1, 1)
        await asyncio.wait(taking, return_when=asyncio.FIRST_COMPLETED)
        await feed.deliver(agent, 2, 2)
        assert sorted([(await each).version for each in taking]) == [1, 2]


async def test_leaving_ends_who_waits(feed: Feed) -> None:
    updates = await feed.updates().subscribe_to_agent_updates(uuid4()).__aenter__()
    taking = asyncio.ensure_future(anext(updates))
    await asyncio.sleep(0)
    await updates.__aexit__()
    with pytest.raises(StopAsyncIteration):
        await taking
