"""What was read is cached under a lease alone; a writer's late put makes nothing once newer changes were delivered."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from freeagentics_persistence.cache.connection import RedisConnection
from freeagentics_persistence.cache.keys import TenantKeys
from freeagentics_persistence.cache.redis_cache import LEASE_MILLISECONDS, RedisCache, moment_of
from freeagentics_persistence.domain.beliefs.beliefs import Beliefs
from freeagentics_persistence.domain.epochs import Epoch
from freeagentics_persistence.domain.events import EventType
from freeagentics_persistence.ports.cache import CacheEntry
from freeagentics_persistence.relay.cache_sink import CacheSink
from tests.support.cached import cached
from tests.support.feeds import Feed, entry
from tests.support.proxy import Proxy
from tests.support.redis_server import LocalRedis

NOW = datetime(2026, 5, 6, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.fixture
def cache(feed: Feed) -> RedisCache:
    return RedisCache(feed.connection, Epoch(feed.epoch))


@pytest.fixture
def tenant(feed: Feed) -> UUID:
    return feed.tenant_id


async def fetched(cache: RedisCache, tenant: UUID, agent: UUID) -> object:
    return (await cached(cache, tenant, [agent]))[0]


async def deliver(cache: RedisCache, feed: Feed, agent: UUID, version: int) -> None:
    await CacheSink(cache).deliver([await feed.event(agent, version, beliefs=Beliefs.uniform(3))])


async def test_a_lease_fills_once(cache: RedisCache, tenant: UUID) -> None:
    first, second = entry(uuid4(), 1), entry(uuid4(), 5)
    leases = await cache.take_leases(tenant, [first.agent_id, second.agent_id])
    assert set(leases) == {first.agent_id, second.agent_id}
    assert await cache.fill_beliefs(tenant, [first, second], leases) == 2
    assert await fetched(cache, tenant, first.agent_id) == first
    assert await fetched(cache, tenant, second.agent_id) == second
    await cache.forget_all()
    assert await cache.fill_beliefs(tenant, [first, second], leases) == 0
    assert await fetched(cache, tenant, first.agent_id) is None


async def test_one_holds_a_lease_at_a_time_and_not_for_long(
    cache: RedisCache, tenant: UUID, feed: Feed, connection: RedisConnection
) -> None:
    agent = uuid4()
    assert len(await cache.take_leases(tenant, [agent])) == 1
    assert await cache.take_leases(tenant, [agent]) == {}
    key = f"{TenantKeys(feed.epoch, tenant).beliefs(agent)}:lease"
    assert 0 < await connection.execute("PTTL", key) <= LEASE_MILLISECONDS
    assert await cache.fill_beliefs(tenant, [entry(agent, 1)], {agent: b"another's"}) == 0
    assert await cache.fill_beliefs(tenant, [entry(agent, 1)], {}) == 0


async def test_many_leases_are_taken_in_few_round_trips(
    cache: RedisCache, tenant: UUID, connection: RedisConnection
) -> None:
    entries = [entry(uuid4(), 1) for _ in range(1200)]
    await connection.execute("CONFIG", "RESETSTAT")
    leases = await cache.take_leases(tenant, [each.agent_id for each in entries])
    assert await cache.fill_beliefs(tenant, entries, leases) == 1200
    stats = (await connection.execute("INFO", "commandstats")).decode()
    assert "cmdstat_eval:calls=6," in stats


@pytest.mark.parametrize("version", [1, 2])
async def test_a_put_ends_the_lease(
    cache: RedisCache, tenant: UUID, feed: Feed, connection: RedisConnection, version: int
) -> None:
    agent = uuid4()
    leases = await cache.take_leases(tenant, [agent])
    await cache.put_beliefs(tenant, [entry(agent, 2)])
    await connection.execute("DEL", TenantKeys(feed.epoch, tenant).beliefs(agent))
    assert await cache.fill_beliefs(tenant, [entry(agent, version)], leases) == 0


async def test_a_delivery_ends_the_lease_of_an_absent_entry(cache: RedisCache, tenant: UUID, feed: Feed) -> None:
    agent, other = uuid4(), entry(uuid4(), 1)
    leases = await cache.take_leases(tenant, [agent, other.agent_id])
    await deliver(cache, feed, agent, 2)
    assert await cache.fill_beliefs(tenant, [entry(agent, 1), other], leases) == 1
    assert await cached(cache, tenant, [agent, other.agent_id]) == [None, other]


async def test_a_fill_does_not_replace_what_is_newer(cache: RedisCache, tenant: UUID) -> None:
    newer = entry(uuid4(), 3)
    await cache.put_beliefs(tenant, [newer])
    leases = await cache.take_leases(tenant, [newer.agent_id])
    assert await cache.fill_beliefs(tenant, [entry(newer.agent_id, 2)], leases) == 0
    assert await fetched(cache, tenant, newer.agent_id) == newer


async def test_a_late_put_makes_nothing_once_later_changes_were_delivered(
    cache: RedisCache, tenant: UUID, feed: Feed
) -> None:
    late, fresh, there = entry(uuid4(), 1), entry(uuid4(), 1), entry(uuid4(), 1)
    await cache.put_beliefs(tenant, [there], written_at=NOW)
    await deliver(cache, feed, uuid4(), 1)
    passed = datetime.now(UTC)
    await cache.put_beliefs(tenant, [late], written_at=passed - SECOND)
    await cache.put_beliefs(tenant, [fresh], written_at=passed + SECOND)
    newer = entry(there.agent_id, 2)
    await cache.put_beliefs(tenant, [newer], written_at=passed - SECOND)
    ids = [late.agent_id, fresh.agent_id, there.agent_id]
    assert await cached(cache, tenant, ids) == [None, fresh, newer]


async def test_what_was_delivered_never_moves_back(cache: RedisCache, tenant: UUID) -> None:
    late = entry(uuid4(), 1)
    for moment in (NOW, NOW - SECOND):
        await cache.pass_changes(moment_of(moment))
    await cache.put_beliefs(tenant, [late], written_at=NOW)
    assert await fetched(cache, tenant, late.agent_id) is None
    await cache.put_beliefs(tenant, [late], written_at=NOW + timedelta(microseconds=1))
    assert await fetched(cache, tenant, late.agent_id) == late


async def test_what_came_back_with_an_older_snapshot_fills_nothing(own_server: LocalRedis, own_feed: Feed) -> None:
    """The snapshot has leases and no entries; version 2 was delivered and lost, and a reader still holds version 1."""
    cache, tenant = RedisCache(own_feed.connection, Epoch(own_feed.epoch)), own_feed.tenant_id
    read, written = entry(uuid4(), 1), entry(uuid4(), 1)
    sink = CacheSink(cache)
    await sink.resume(None)
    await sink.deliver([await own_feed.event(uuid4(), 1, type=EventType.AGENT_SAVED)])
    leases = await cache.take_leases(tenant, [read.agent_id])
    written_at = datetime.now(UTC)
    own_server.ask("SAVE")
    events = [await own_feed.event(each.agent_id, 2) for each in (read, written)]
    now = int(datetime.now(UTC).timestamp() * 1_000_000)  # of which rounds are made
    await sink.deliver([event._replace(round=now) for event in events])
    own_server.restart()
    await sink.caught_up(datetime.now(UTC))  # notices, and drops everything
    assert await cache.fill_beliefs(tenant, [read], leases) == 0
    await cache.put_beliefs(tenant, [written], written_at=written_at)
    assert await cached(cache, tenant, [read.agent_id, written.agent_id]) == [None, None]


async def test_nothing_is_filled_while_everything_is_dropped(
    shared_server: LocalRedis, cache: RedisCache, tenant: UUID, feed: Feed
) -> None:
    read = entry(uuid4(), 1)
    leases = await cache.take_leases(tenant, [read.agent_id])
    async with Proxy(shared_server.socket) as proxy, RedisConnection(proxy.url, timeout=60) as held:
        proxy.hold(b"SCAN")
        dropping = asyncio.create_task(RedisCache(held, Epoch(feed.epoch)).forget_all())
        await proxy.holds()
        assert await cache.fill_beliefs(tenant, [read], leases) == 0
        proxy.release()
        await dropping
    leases = await cache.take_leases(tenant, [read.agent_id])
    assert await cache.fill_beliefs(tenant, [read], leases) == 1


@dataclass
class Relay:
    """One batch is delivered at a time."""

    sink: CacheSink
    turn: asyncio.Lock


class Agent:
    """One agent with its writers and readers, each of which can be stopped between any two of its steps."""

    def __init__(self, cache: RedisCache, feed: Feed, relay: Relay, rng: random.Random) -> None:
        self.id, self.cache, self.feed, self.relay, self.rng = uuid4(), cache, feed, relay, rng
        self.entries = [entry(self.id, 1)]
        self.recorded = [datetime.now(UTC)]
        self.delivered = 0

    async def writes(self) -> AsyncIterator[None]:
        for _ in range(3):
            committed = entry(self.id, len(self.entries) + 1)
            self.entries.append(committed)
            recorded = max(datetime.now(UTC), self.recorded[-1] + timedelta(microseconds=1))
            self.recorded.append(recorded)
            yield
            if self.rng.random() < 0.6:
                await self.cache.put_beliefs(self.feed.tenant_id, [committed], written_at=recorded)
                yield

    async def reads(self) -> AsyncIterator[None]:
        for _ in range(4):
            if await fetched(self.cache, self.feed.tenant_id, self.id) is None:
                leases = await self.cache.take_leases(self.feed.tenant_id, [self.id])
                yield
                read = self.entries[-1]
                yield
                await self.cache.fill_beliefs(self.feed.tenant_id, [read], leases)
            yield

    async def evictions(self) -> AsyncIterator[None]:
        key = TenantKeys(self.feed.epoch, self.feed.tenant_id).beliefs(self.id)
        for _ in range(4):
            await self.feed.connection.execute("DEL", key)
            yield

    async def deliveries(self) -> AsyncIterator[None]:
        for _ in range(3):
            await self.deliver()
            yield

    async def deliver(self) -> None:
        async with self.relay.turn:
            entries = self.entries[self.delivered :]
            self.delivered = len(self.entries)
            await self.relay.sink.deliver([await self.feed.event(self.id, each.version) for each in entries])

    async def live(self) -> CacheEntry | None:
        """Let all go on in an order made of chance, then deliver the rest; what is left in the cache."""
        actors = [self.writes(), self.writes(), self.reads(), self.reads(), self.evictions(), self.deliveries()]
        while actors:
            actor = self.rng.choice(actors)
            if await anext(actor, self) is self:
                actors.remove(actor)
        await self.deliver()
        (left,) = await cached(self.cache, self.feed.tenant_id, [self.id])
        assert not isinstance(left, Exception)
        return left


async def test_races_of_writers_readers_and_evictions_leave_nothing_older(cache: RedisCache, feed: Feed) -> None:
    relay = Relay(CacheSink(cache), asyncio.Lock())
    agents = [Agent(cache, feed, relay, random.Random(seed)) for seed in range(300)]
    older, left = 0, 0
    for start in range(0, len(agents), 50):
        some = agents[start : start + 50]
        for agent, found in zip(some, await asyncio.gather(*(agent.live() for agent in some)), strict=True):
            left += found is not None
            older += found is not None and found.version < len(agent.entries)
    assert older == 0
    assert left > 50
