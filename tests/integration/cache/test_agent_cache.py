"""AgentCache and RealTimeUpdates as a store gives them: over PostgreSQL, keys of a real keyring, and a Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from freeagentics_persistence import ALL, Agent, Beliefs, Coalition, Persistence, new_revision
from freeagentics_persistence.cache.keys import TenantKeys
from freeagentics_persistence.domain.identifiers import DEFAULT_TENANT_ID
from freeagentics_persistence.errors import (
    CacheUnavailable,
    EnvelopeRejected,
    InvalidInput,
    UnknownAgent,
    UnknownCoalition,
)
from freeagentics_persistence.operations.servers import ServerUrls
from tests.conftest import settings_of
from tests.support.feeds import take
from tests.support.redis_server import LocalRedis

BELIEFS = Beliefs([0.125, 0.375, 0.5])


@pytest.fixture
async def cached_store(urls: ServerUrls, own_server: LocalRedis) -> AsyncIterator[Persistence]:
    """A store without a relay, whose Redis the test may look into and stop."""
    settings = settings_of(urls, redis={"url": own_server.url, "timeout": 1.0})
    async with Persistence.open(settings, relay="off") as store:
        yield store


async def a_coalition(store: Persistence) -> tuple[UUID, UUID, UUID]:
    """A coalition, a member, and an agent that is none."""
    member = await store.agents.save_agent(Agent(name="member", agent_type="trader"))
    other = await store.agents.save_agent(Agent(name="other", agent_type="trader"))
    coalition = await store.coalitions.save_coalition(Coalition(name="traders", business_model="barter"))
    await store.coalitions.add_members(coalition.id, [member.id])
    return coalition.id, member.id, other.id


async def test_cached_beliefs_come_back_and_are_sealed(cached_store: Persistence, own_server: LocalRedis) -> None:
    agent, cache = uuid4(), cached_store.cache
    assert await cache.get_cached_beliefs(agent) is None
    await cache.cache_agent_beliefs(agent, BELIEFS, version=3, revision=new_revision())
    await cache.cache_agent_beliefs(agent, Beliefs.uniform(3), version=2, revision=new_revision())
    assert await cache.get_cached_beliefs(agent) == BELIEFS
    assert await cached_store.cache.get_cached_beliefs(uuid4()) is None
    stored = await cached_store._parts.redis.execute("GET", key_of(cached_store, agent))
    assert BELIEFS[0].tobytes() not in stored


async def test_a_stored_agent_is_cached_by_its_writer(cached_store: Persistence) -> None:
    scout = await cached_store.agents.save_agent(Agent(name="scout", agent_type="explorer", beliefs=BELIEFS))
    assert await cached_store.cache.get_cached_beliefs(scout.id) == BELIEFS
    await cached_store.agents.update_beliefs(scout.id, Beliefs.uniform(3))
    assert await cached_store.cache.get_cached_beliefs(scout.id) == Beliefs.uniform(3)


async def test_a_cached_envelope_opens_where_it_belongs_alone(cached_store: Persistence) -> None:
    agent, thief = uuid4(), uuid4()
    redis = cached_store._parts.redis
    await cached_store.cache.cache_agent_beliefs(agent, BELIEFS, version=1, revision=new_revision())
    stored = await redis.execute("GET", key_of(cached_store, agent))
    foreign = {
        "another agent's": stored,
        "altered": stored[:-1] + bytes([stored[-1] ^ 1]),
        "cut": stored[:-20],
        "of another revision": stored[:9] + new_revision().bytes + stored[25:],
        "plaintext": stored[:26] + BELIEFS.to_bytes() + bytes(80),
    }
    for name, value in foreign.items():
        target = thief if name == "another agent's" else agent
        await redis.execute("SET", key_of(cached_store, target), value)
        with pytest.raises(EnvelopeRejected):
            await cached_store.cache.get_cached_beliefs(target)


async def test_membership_is_asked_once_and_then_cached(cached_store: Persistence) -> None:
    coalition, member, other = await a_coalition(cached_store)
    cache, redis = cached_store.cache, cached_store._parts.redis
    for _ in range(2):
        assert await cache.is_coalition_member(coalition, member) is True
        assert await cache.is_coalition_member(coalition, other) is False
    key = TenantKeys(cached_store.epoch, DEFAULT_TENANT_ID).members(coalition)
    await redis.execute("HDEL", key, member.bytes)
    assert await cache.is_coalition_member(coalition, member) is False  # from the cache


async def test_a_change_of_members_is_seen_at_once(cached_store: Persistence) -> None:
    coalition, member, other = await a_coalition(cached_store)
    for _ in range(3):
        assert await cached_store.cache.is_coalition_member(coalition, member) is True
        await cached_store.coalitions.remove_members(coalition, [member])
        assert await cached_store.cache.is_coalition_member(coalition, member) is False
        await cached_store.coalitions.add_members(coalition, [member, other])
        assert await cached_store.cache.is_coalition_member(coalition, other) is True


async def test_a_coalition_that_does_not_exist_is_an_error(cached_store: Persistence) -> None:
    with pytest.raises(UnknownCoalition):
        await cached_store.cache.is_coalition_member(uuid4(), uuid4())


async def test_members_may_be_cached_by_the_caller(cached_store: Persistence) -> None:
    coalition, member, other = await a_coalition(cached_store)
    await cached_store.cache.cache_coalition_members(coalition, [other], version=50)
    assert await cached_store.cache.is_coalition_member(coalition, other) is True
    assert await cached_store.cache.is_coalition_member(coalition, member) is False
    await cached_store.cache.cache_coalition_members(coalition, set(), version=51)
    assert await cached_store.cache.is_coalition_member(coalition, other) is False


async def test_without_redis_membership_is_answered_and_the_rest_says_so(
    cached_store: Persistence, own_server: LocalRedis
) -> None:
    coalition, member, other = await a_coalition(cached_store)
    own_server.stop()
    assert await cached_store.cache.is_coalition_member(coalition, member) is True
    assert await cached_store.cache.is_coalition_member(coalition, other) is False
    for call in (
        cached_store.cache.cache_agent_beliefs(member, BELIEFS, version=1, revision=new_revision()),
        cached_store.cache.get_cached_beliefs(member),
        cached_store.cache.cache_coalition_members(coalition, [member], version=1),
    ):
        with pytest.raises(CacheUnavailable):
            await call


BAD_CALLS: list[tuple[str, str, tuple[Any, ...], dict[str, Any]]] = [
    ("agent_id", "cache_agent_beliefs", ("scout", BELIEFS), {"version": 1, "revision": uuid4()}),
    ("beliefs", "cache_agent_beliefs", (uuid4(), [0.5, 0.6]), {"version": 1, "revision": uuid4()}),
    ("version", "cache_agent_beliefs", (uuid4(), BELIEFS), {"version": 0, "revision": uuid4()}),
    ("version", "cache_agent_beliefs", (uuid4(), BELIEFS), {"version": 2**53 + 1, "revision": uuid4()}),
    ("revision", "cache_agent_beliefs", (uuid4(), BELIEFS), {"version": 1, "revision": None}),
    ("ttl", "cache_agent_beliefs", (uuid4(), BELIEFS, 0), {"version": 1, "revision": uuid4()}),
    ("ttl", "cache_coalition_members", (uuid4(), [uuid4()], 1.5), {"version": 1}),
    ("member_ids", "cache_coalition_members", (uuid4(), "abc"), {"version": 1}),
    ("member_ids", "cache_coalition_members", (uuid4(), ["scout"]), {"version": 1}),
    ("member_ids", "cache_coalition_members", (uuid4(), range(100_001)), {"version": 1}),
    ("coalition_id", "is_coalition_member", (None, uuid4()), {}),
    ("agent_id", "is_coalition_member", (uuid4(), 7), {}),
    ("agent_id", "get_cached_beliefs", ("scout",), {}),
]


async def test_bad_input_of_the_cache_is_named(cached_store: Persistence) -> None:
    for field, method, args, options in BAD_CALLS:
        with pytest.raises(InvalidInput) as caught:
            await getattr(cached_store.cache, method)(*args, **options)
        assert caught.value.field.startswith(field), method
    assert await cached_store._parts.redis.execute("DBSIZE") == 0


BAD_SUBSCRIPTIONS: list[tuple[str, Any, dict[str, Any]]] = [
    ("agents", [], {}),
    ("agents", [uuid4()] * 10_001, {}),
    ("agents", "all", {}),
    ("agents", ["scout"], {}),
    ("agents", None, {}),
    ("buffer", ALL, {"buffer": 0}),
    ("buffer", ALL, {"buffer": 1_000_001}),
    ("overflow", ALL, {"overflow": "ignore"}),
    ("after", ALL, {"after": "yesterday"}),
]


async def test_bad_input_of_the_updates_is_named(cached_store: Persistence) -> None:
    for field, agents, options in BAD_SUBSCRIPTIONS:
        with pytest.raises(InvalidInput) as caught:
            cached_store.updates.subscribe_to_agent_updates(agents, **options)
        assert caught.value.field.startswith(field)


BAD_UPDATES: list[tuple[str, tuple[Any, ...]]] = [
    ("agent_id", ("scout", "plan.made", {})),
    ("update_type", (uuid4(), "", {})),
    ("update_type", (uuid4(), "x" * 101, {})),
    ("update_type", (uuid4(), "beliefs.updated", {})),
    ("update_type", (uuid4(), "coalition.saved", {})),
    ("data", (uuid4(), "plan.made", [1])),
    ("data", (uuid4(), "plan.made", {"x": float("nan")})),
    ("data", (uuid4(), "plan.made", {"x": 2**64})),
    ("data", (uuid4(), "plan.made", {"x": ["y" * 1000] * 66})),
]


async def test_bad_input_of_publishing_is_named(cached_store: Persistence) -> None:
    for field, args in BAD_UPDATES:
        with pytest.raises(InvalidInput) as caught:
            await cached_store.updates.publish_agent_update(*args)
        assert caught.value.field.startswith(field), args[1]
    with pytest.raises(UnknownAgent):
        await cached_store.updates.publish_agent_update(uuid4(), "plan.made", {})


async def test_what_is_published_reaches_subscribers_in_its_place(store: Persistence) -> None:
    scout = await store.agents.save_agent(Agent(name="scout", agent_type="explorer"))
    async with store.updates.subscribe_to_agent_updates(scout.id) as updates:
        await store.agents.update_beliefs(scout.id, BELIEFS)
        revision = await store.updates.publish_agent_update(scout.id, "plan.made", {"goal": ["north", 3]})
        await store.agents.update_beliefs(scout.id, Beliefs.uniform(3))
        got = [update for update in await take(updates, 3) if update.type != "agent.saved"]
        got += await take(updates, 3 - len(got))
    assert [(u.type, u.version) for u in got] == [("beliefs.updated", 2), ("plan.made", 2), ("beliefs.updated", 3)]
    assert got[1].revision == revision
    assert await got[1].sealed_data() == {"goal": ["north", 3]}
    assert await got[0].beliefs() == BELIEFS


def key_of(store: Persistence, agent: UUID) -> str:
    return TenantKeys(store.epoch, DEFAULT_TENANT_ID).beliefs(agent)
