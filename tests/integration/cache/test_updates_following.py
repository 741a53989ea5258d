"""Following updates: nothing missed, nothing doubled, each agent in order, and a lost connection made again."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from uuid import UUID, uuid4

import pytest

from freeagentics_persistence.cache.connection import RedisConnection
from freeagentics_persistence.cache.keys import TenantKeys
from freeagentics_persistence.cache.updates.channels import ChannelConnection
from freeagentics_persistence.cache.updates.hub import UpdateHub
from freeagentics_persistence.cache.updates.real_time_updates import ALL
from freeagentics_persistence.domain.beliefs.beliefs import Beliefs
from freeagentics_persistence.domain.epochs import Epoch
from freeagentics_persistence.domain.events import EventType
from freeagentics_persistence.errors import EnvelopeRejected, NewEpoch, StoreClosed
from freeagentics_persistence.ports.sealing import Kind
from tests.support.feeds import Feed, eventually, take
from tests.support.proxy import Proxy
from tests.support.redis_server import LocalRedis


async def test_an_update_arrives_with_everything_it_carried(feed: Feed) -> None:
    agent, beliefs = uuid4(), Beliefs([0.7, 0.2, 0.1])
    event = await feed.event(agent, 3, beliefs=beliefs, free_energy=1.5, entropy=0.8, data={"district": "a"})
    async with feed.updates().subscribe_to_agent_updates(agent) as updates:
        await feed.sink.deliver([event])
        (update,) = await take(updates, 1)
        assert update.position == updates.position == f"{feed.epoch}/{event.position}"
    assert (update.agent_id, update.tenant_id, update.epoch) == (agent, feed.tenant_id, feed.epoch)
    assert (update.type, update.version, update.revision) == ("beliefs.updated", 3, event.revision)
    assert update.timestamp == event.recorded_at
    assert update.data == {"district": "a", "free_energy": 1.5, "belief_entropy": 0.8}
    assert await update.beliefs() == beliefs
    assert await update.sealed_data() is None
    assert feed.seen == [(feed.tenant_id, agent, 3)]
    assert "district" not in repr(update)
    assert "envelope" not in repr(update)


async def test_published_data_arrives_sealed(feed: Feed, connection: RedisConnection) -> None:
    agent = uuid4()
    event = await feed.event(agent, 1, type="plan.made", sealed=b'{"goal":"north"}', kind=Kind.UPDATE_DATA)
    gone = await feed.event(agent, 2, type=EventType.AGENT_DELETED)
    async with feed.updates().subscribe_to_agent_updates(agent) as updates:
        await feed.sink.deliver([event, gone])
        published, deleted = await take(updates, 2)
    assert await published.sealed_data() == {"goal": "north"}
    assert await published.beliefs() is None
    assert published.data is None
    assert deleted.type == "agent.deleted"
    assert await deleted.beliefs() is None
    assert await deleted.sealed_data() is None
    stored = await connection.execute("XRANGE", TenantKeys(feed.epoch, feed.tenant_id).feed, "-", "+")
    assert b"plan.made" in repr(stored).encode()
    assert b"north" not in repr(stored).encode()


async def test_an_envelope_moved_to_another_agent_does_not_open(feed: Feed) -> None:
    agent = uuid4()
    event = await feed.event(uuid4(), 1, beliefs=Beliefs.uniform(4))
    moved = (await feed.event(agent, 1))._replace(envelope=event.envelope)
    async with feed.updates().subscribe_to_agent_updates(agent) as updates:
        await feed.sink.deliver([moved])
        (update,) = await take(updates, 1)
    with pytest.raises(EnvelopeRejected):
        await update.beliefs()


async def test_subscribers_get_their_agents_alone(feed: Feed) -> None:
    first, second, third = uuid4(), uuid4(), uuid4()
    updates = feed.updates()
    async with (
        updates.subscribe_to_agent_updates(first) as one,
        updates.subscribe_to_agent_updates([first, third]) as two,
        updates.subscribe_to_agent_updates(ALL) as every,
    ):
        for version in (1, 2):
            for agent in (first, second, third):
                await feed.deliver(agent, version, version)
        assert [(u.agent_id, u.version) for u in await take(one, 2)] == [(first, 1), (first, 2)]
        assert [u.agent_id for u in await take(two, 4)] == [first, third] * 2
        assert [u.agent_id for u in await take(every, 6)] == [first, second, third] * 2


async def test_what_concerns_no_agent_is_no_update(feed: Feed) -> None:
    agent = uuid4()
    others = [kind for kind in EventType if kind.startswith("coalition.") or kind.endswith(".measured")]
    assert len(others) == 6
    async with feed.updates().subscribe_to_agent_updates(ALL) as updates:
        await feed.sink.deliver([await feed.event(agent, 1, type=kind) for kind in others])
        await feed.deliver(agent, 1, 1)
        assert (await take(updates, 1))[0].type == EventType.BELIEFS_UPDATED


async def test_tenants_are_apart_even_with_the_same_agent(feed: Feed) -> None:
    agent, other = uuid4(), uuid4()
    async with (
        feed.updates().subscribe_to_agent_updates(ALL) as mine,
        feed.updates(other).subscribe_to_agent_updates(agent) as theirs,
    ):
        start = mine.position
        await feed.sink.deliver(
            [await feed.event(agent, v, tenant_id=t) for v in (1, 2) for t in (feed.tenant_id, other)]
        )
        assert [(u.tenant_id, u.version) for u in await take(mine, 2)] == [(feed.tenant_id, 1), (feed.tenant_id, 2)]
        assert [(u.tenant_id, u.version) for u in await take(theirs, 2)] == [(other, 1), (other, 2)]
    async with feed.updates(other).subscribe_to_agent_updates(ALL, after=start) as replayed:
        assert {u.tenant_id for u in await take(replayed, 2)} == {other}


async def test_each_agent_comes_by_version(feed: Feed) -> None:
    rng = random.Random(1)
    agents = [uuid4() for _ in range(20)]
    versions: dict[UUID, int] = defaultdict(int)
    got: dict[UUID, list[int]] = defaultdict(list)
    async with feed.updates().subscribe_to_agent_updates(agents, buffer=5000) as updates:
        for _ in range(20):
            batch = []
            for agent in rng.choices(agents, k=100):
                versions[agent] += 1
                batch.append(await feed.event(agent, versions[agent]))
            await feed.sink.deliver(batch)
        for update in await take(updates, 2000):
            got[update.agent_id].append(update.version)
    assert got == {agent: list(range(1, last + 1)) for agent, last in versions.items()}


async def test_a_repeated_delivery_is_not_doubled(feed: Feed) -> None:
    agent = uuid4()
    events = await feed.versions(agent, 1, 10)
    async with feed.updates().subscribe_to_agent_updates(agent) as updates:
        start = updates.position
        await feed.sink.deliver(events[:6])
        for sink, position in ((feed.sink, None), (feed.new_sink(), events[2].position), (feed.new_sink(), None)):
            await sink.resume(position)
            await sink.deliver(events[:8])
        await feed.sink.deliver(events)
        assert [u.version for u in await take(updates, 10)] == list(range(1, 11))
        with pytest.raises(TimeoutError):
            await take(updates, 1, 0.3)
    async with feed.updates().subscribe_to_agent_updates(agent, after=start) as replayed:
        assert [u.version for u in await take(replayed, 10)] == list(range(1, 11))
        with pytest.raises(TimeoutError):
            await take(replayed, 1, 0.3)


async def test_a_repeated_delivery_is_published_once(feed: Feed, connection: RedisConnection) -> None:
    """Services that read the channels by themselves get no update twice either."""
    agent, keys = uuid4(), TenantKeys(feed.epoch, feed.tenant_id)
    channels, events = ChannelConnection(connection), await feed.versions(agent, 1, 3)
    await channels.open([keys.agent_channel(agent), keys.all_channel])
    for _ in range(2):
        await feed.sink.deliver(events)
    got = [await channels.receive(0.3) for _ in range(7)]
    await channels.close()
    assert [None if each is None else each.channel for each in got] == [
        *[keys.agent_channel(agent), keys.all_channel] * 3,
        None,
    ]


async def test_a_subscriber_resumes_after_a_position(feed: Feed) -> None:
    agent, other = uuid4(), uuid4()
    async with feed.updates().subscribe_to_agent_updates(agent) as updates:
        await feed.deliver(agent, 1, 3)
        await take(updates, 2)
        stopped = updates.position
    for version in range(4, 2004, 500):
        await feed.deliver(other, version, version + 498)
        await feed.deliver(agent, version, version)
    async with feed.updates().subscribe_to_agent_updates(agent, after=stopped) as updates:
        assert [u.version for u in await take(updates, 5)] == [3, 4, 504, 1004, 1504]
        await feed.deliver(agent, 1505, 1505)
        assert [u.version for u in await take(updates, 1)] == [1505]


async def test_nothing_is_missed_between_replay_and_live(feed: Feed) -> None:
    agent = uuid4()
    async with feed.updates().subscribe_to_agent_updates(agent) as updates:
        start = updates.position
    await feed.deliver(agent, 1, 2500)

    async def go_on() -> None:
        for version in range(2501, 2701):
            await feed.deliver(agent, version, version)

    going = asyncio.create_task(go_on())
    async with feed.updates().subscribe_to_agent_updates(agent, after=start, buffer=3000) as updates:
        assert [u.version for u in await take(updates, 2700)] == list(range(1, 2701))
    await going


async def test_many_agents_are_filtered_in_a_replay_too(feed: Feed) -> None:
    agents = [uuid4() for _ in range(1500)]
    async with feed.updates().subscribe_to_agent_updates(agents) as updates:
        start = updates.position
    await feed.sink.deliver([await feed.event(agent, 1) for agent in (uuid4(), agents[0], uuid4(), agents[1499])])
    async with feed.updates().subscribe_to_agent_updates(agents, after=start) as updates:
        assert [u.agent_id for u in await take(updates, 2)] == [agents[0], agents[1499]]
        with pytest.raises(TimeoutError):
            await take(updates, 1, 0.2)


async def test_nothing_published_after_entering_is_missed(feed: Feed) -> None:
    agent = uuid4()
    for version in range(1, 40):
        async with feed.updates().subscribe_to_agent_updates(agent) as updates:
            await feed.deliver(agent, version, version)
            assert [u.version for u in await take(updates, 1)] == [version]


async def test_cut_connections_are_made_again_without_loss(own_feed: Feed, own_connection: RedisConnection) -> None:
    agent, last = uuid4(), 400

    async def go_on() -> None:
        for version in range(1, last + 1):
            await own_feed.deliver(agent, version, version)
            if version % 40 == 0:
                await own_connection.execute("CLIENT", "KILL", "TYPE", "pubsub")
                await asyncio.sleep(0.05)

    async with (
        own_feed.updates().subscribe_to_agent_updates(agent) as one,
        own_feed.updates().subscribe_to_agent_updates(ALL) as every,
    ):
        going = asyncio.create_task(go_on())
        for updates in (one, every):
            assert [u.version for u in await take(updates, last, 30)] == list(range(1, last + 1))
        await going


async def test_a_subscriber_outlives_a_server_that_is_away(own_server: LocalRedis, own_feed: Feed) -> None:
    agent = uuid4()
    async with own_feed.updates().subscribe_to_agent_updates(agent) as updates:
        await own_feed.deliver(agent, 1, 1)
        await take(updates, 1)
        own_server.ask("SAVE")
        own_server.stop(kill=True)
        with pytest.raises(TimeoutError):
            await take(updates, 1, 1.0)
        own_server.start()
        await own_feed.deliver(agent, 2, 2)
        assert [u.version for u in await take(updates, 1)] == [2]


async def test_a_silent_connection_is_noticed(shared_server: LocalRedis, feed: Feed) -> None:
    """A half-open connection, as after a cable was pulled, says nothing at all."""
    agent = uuid4()
    async with Proxy(shared_server.socket) as proxy, RedisConnection(proxy.url, timeout=0.5) as through:
        feed.hub = UpdateHub(through, Epoch(feed.epoch), health=0.3)
        async with feed.updates().subscribe_to_agent_updates(agent) as updates:
            await feed.deliver(agent, 1, 1)
            await take(updates, 1)
            proxy.silence()
            await feed.deliver(agent, 2, 2)
            assert [u.version for u in await take(updates, 1)] == [2]


async def test_the_position_of_a_quiet_subscriber_goes_on(feed: Feed, connection: RedisConnection) -> None:
    feed.hub = UpdateHub(connection, Epoch(feed.epoch), health=0.1)
    async with feed.updates().subscribe_to_agent_updates(uuid4()) as updates:
        events = await feed.deliver(uuid4(), 1, 5)
        await eventually(lambda: updates.position == f"{feed.epoch}/{events[-1].position}")


@pytest.mark.parametrize("reason", [NewEpoch, StoreClosed])
@pytest.mark.parametrize("turns", [1, 3])
async def test_an_end_while_a_subscription_is_entered_reaches_it(
    feed: Feed, connection: RedisConnection, reason: type[NewEpoch | StoreClosed], turns: int
) -> None:
    epoch = Epoch(feed.epoch)
    feed.hub = UpdateHub(connection, epoch)
    entering = asyncio.create_task(feed.updates().subscribe_to_agent_updates(ALL).__aenter__())
    for _ in range(turns):
        await asyncio.sleep(0)
    assert not entering.done()
    epoch.end(reason)
    with pytest.raises(reason):
        await asyncio.wait_for(entering, 5)
