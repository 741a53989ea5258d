"""The cache in Redis: no older entry ever replaces a newer one, and nothing malformed is taken for an entry."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from freeagentics_persistence.cache.connection import RedisConnection
from freeagentics_persistence.cache.entries import pack_entry
from freeagentics_persistence.cache.keys import TenantKeys
from freeagentics_persistence.cache.redis_cache import CHUNK_MEMBERS, RedisCache
from freeagentics_persistence.cache.redis_scripts import PUT_MEMBERS
from freeagentics_persistence.domain.epochs import Epoch
from freeagentics_persistence.errors import CacheUnavailable, EnvelopeRejected
from freeagentics_persistence.ports.cache import Membership
from tests.support.cached import cached
from tests.support.feeds import change, entry
from tests.support.redis_server import LocalRedis


@pytest.fixture
def epoch() -> UUID:
    return uuid4()


@pytest.fixture
def tenant() -> UUID:
    return uuid4()


@pytest.fixture
def cache(connection: RedisConnection, epoch: UUID) -> RedisCache:
    return RedisCache(connection, Epoch(epoch))


async def test_what_is_put_is_fetched_in_order(cache: RedisCache, tenant: UUID) -> None:
    entries = [entry(uuid4(), i + 1, None if i % 3 == 0 else bytes([i % 256]) * (i % 700 + 1)) for i in range(1700)]
    entries[7] = entry(entries[7].agent_id, 2**53 - 1, b"large version")
    await cache.put_beliefs(tenant, entries)
    ids = [e.agent_id for e in entries]
    assert await cached(cache, tenant, [uuid4(), *ids, uuid4()]) == [None, *entries, None]
    assert await cached(cache, tenant, []) == []
    await cache.put_beliefs(tenant, [])


async def test_large_entries_go_in_several_commands(cache: RedisCache, tenant: UUID) -> None:
    entries = [entry(uuid4(), 1, bytes([i]) * 3_000_000) for i in range(5)]
    await cache.put_beliefs(tenant, entries)
    for kept in entries:
        assert await cached(cache, tenant, [kept.agent_id]) == [kept]


async def test_the_same_or_an_older_version_replaces_nothing(cache: RedisCache, tenant: UUID) -> None:
    agent = uuid4()
    newer = entry(agent, 5, b"five")
    for later in (entry(agent, 5, b"another five"), entry(agent, 4, b"four"), entry(agent, 1, None)):
        await cache.put_beliefs(tenant, [newer])
        await cache.put_beliefs(tenant, [later])
        assert await cache.repair_beliefs(tenant, [change(later)]) == 0
        assert await cached(cache, tenant, [agent]) == [newer]


@pytest.mark.parametrize(("older", "newer"), [(255, 256), (2**32 - 1, 2**32), (2**53 - 1, 2**53), (0x0A, 0x0D00)])
async def test_versions_are_compared_as_numbers(cache: RedisCache, tenant: UUID, older: int, newer: int) -> None:
    agent = uuid4()
    first, second = entry(agent, older), entry(agent, newer)
    await cache.put_beliefs(tenant, [first])
    await cache.put_beliefs(tenant, [second])
    await cache.put_beliefs(tenant, [first])
    assert await cached(cache, tenant, [agent]) == [second]


async def test_three_thousand_races_leave_no_older_version(
    shared_server: LocalRedis, cache: RedisCache, epoch: UUID, tenant: UUID
) -> None:
    rng = random.Random(4)
    async with RedisConnection(shared_server.url) as other:
        caches = [cache, RedisCache(other, Epoch(epoch))]
        ids = [uuid4() for _ in range(3000)]

        async def race(agent: UUID) -> None:
            versions = [1, 2, 3]
            rng.shuffle(versions)
            puts = [rng.choice(caches).put_beliefs(tenant, [entry(agent, version)]) for version in versions]
            repairs = [rng.choice(caches).repair_beliefs(tenant, [change(entry(agent, rng.randrange(1, 4)))])]
            await asyncio.gather(*puts, *repairs)

        for start in range(0, len(ids), 100):
            await asyncio.gather(*map(race, ids[start : start + 100]))
        left = await cached(cache, tenant, ids)
    assert [found.version for found in left if found is not None] == [3] * 3000


async def test_a_repair_replaces_what_is_older_and_creates_nothing(cache: RedisCache, tenant: UUID) -> None:
    old, same, absent = uuid4(), uuid4(), uuid4()
    await cache.put_beliefs(tenant, [entry(old, 1), entry(same, 2)])
    repaired = [entry(old, 2), entry(same, 2), entry(absent, 2)]
    assert await cache.repair_beliefs(tenant, list(map(change, repaired))) == 1
    found = await cached(cache, tenant, [old, same, absent])
    assert found[0] == repaired[0]
    assert found[1] is not None
    assert found[1] != repaired[1]
    assert found[2] is None


async def test_entries_live_as_long_as_asked_and_not_equally_long(
    connection: RedisConnection, cache: RedisCache, epoch: UUID, tenant: UUID
) -> None:
    key = TenantKeys(epoch, tenant).beliefs
    for ttl, least in ((None, 300_000), (20, 20_000)):
        ids = [uuid4() for _ in range(200)]
        await cache.put_beliefs(tenant, [entry(agent, 1) for agent in ids], ttl=ttl)
        lives = [await connection.execute("PTTL", key(agent)) for agent in ids]
        assert min(lives) > least * 0.95
        assert max(lives) <= least * 1.1
        assert max(lives) - min(lives) > least * 0.05


async def test_it_works_on_after_the_scripts_are_flushed(
    connection: RedisConnection, cache: RedisCache, tenant: UUID
) -> None:
    agent = uuid4()
    for version in (1, 2, 3):
        await cache.put_beliefs(tenant, [entry(agent, version)])
        await connection.execute("SCRIPT", "FLUSH")
        assert await cache.repair_beliefs(tenant, [change(entry(agent, version))]) == 0
    assert (await cached(cache, tenant, [agent]))[0].version == 3


async def test_an_empty_memory_after_a_restart_is_a_miss(
    own_server: LocalRedis, own_connection: RedisConnection
) -> None:
    cache, tenant, agent = RedisCache(own_connection, Epoch(uuid4())), uuid4(), uuid4()
    await cache.put_beliefs(tenant, [entry(agent, 1)])
    own_server.restart()
    assert await cached(cache, tenant, [agent]) == [None]
    await cache.put_beliefs(tenant, [entry(agent, 2)])
    assert (await cached(cache, tenant, [agent]))[0].version == 2


async def test_a_stopped_server_is_an_error_in_time(own_server: LocalRedis, own_connection: RedisConnection) -> None:
    cache = RedisCache(own_connection, Epoch(uuid4()))
    own_server.stop()
    for call in (
        cache.put_beliefs(uuid4(), [entry(uuid4(), 1)]),
        cached(cache, uuid4(), [uuid4()]),
        cache.is_member(uuid4(), uuid4(), uuid4(), at_least=0),
        cache.watermark(),
    ):
        with pytest.raises(CacheUnavailable, match=r"redis\.sock cannot be reached"):
            await call


WHOLE = pack_entry(entry(uuid4(), 9, b"sealed"))


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param(WHOLE[:20], id="cut"),
        pytest.param(WHOLE[:26], id="cut before the envelope"),
        pytest.param(b"\x02" + WHOLE[1:], id="another format"),
        pytest.param(WHOLE[:25] + b"\x00" + WHOLE[26:], id="an envelope that should not be"),
        pytest.param(WHOLE[:25] + b"\x02" + WHOLE[26:], id="unknown flag"),
        pytest.param(b"[0.7, 0.2, 0.1]", id="plaintext"),
        pytest.param(b"", id="empty"),
    ],
)
async def test_what_is_no_entry_is_rejected(
    connection: RedisConnection, cache: RedisCache, epoch: UUID, tenant: UUID, stored: bytes
) -> None:
    agent, neighbour = uuid4(), entry(uuid4(), 1)
    await cache.put_beliefs(tenant, [neighbour])
    await connection.execute("SET", TenantKeys(epoch, tenant).beliefs(agent), stored)
    rejected, *others = await cached(cache, tenant, [agent, neighbour.agent_id])
    assert isinstance(rejected, EnvelopeRejected)
    assert str(agent) in str(rejected)
    assert others == [neighbour]


@pytest.mark.parametrize(
    "stored",
    [
        b"cut",
        b"not an entry at all, but long",
        b"\x02" + pack_entry(entry(uuid4(), 9))[1:],
        b"\x01" + bytes([255]) * 40,
        pack_entry(entry(uuid4(), 9))[:26],
        pack_entry(entry(uuid4(), 9, None)) + b"tail",
    ],
    ids=["short", "text", "other version", "all ones", "header alone", "tail"],
)
async def test_an_update_replaces_what_is_no_entry(
    connection: RedisConnection, cache: RedisCache, epoch: UUID, tenant: UUID, stored: bytes
) -> None:
    agent = uuid4()
    for put, made in ((cache.put_beliefs, entry), (cache.repair_beliefs, lambda *each: change(entry(*each)))):
        await connection.execute("SET", TenantKeys(epoch, tenant).beliefs(agent), stored)
        assert isinstance((await cached(cache, tenant, [agent]))[0], EnvelopeRejected)
        await put(tenant, [made(agent, 1)])
        (found,) = await cached(cache, tenant, [agent])
        assert found is not None
        assert found.version == 1


async def test_keys_of_another_kind_are_replaced_too(
    connection: RedisConnection, cache: RedisCache, epoch: UUID, tenant: UUID
) -> None:
    keys, agent, coalition = TenantKeys(epoch, tenant), uuid4(), uuid4()
    await connection.execute("RPUSH", keys.beliefs(agent), b"x")
    await connection.execute("SET", keys.members(coalition), b"x")
    await cache.put_beliefs(tenant, [entry(agent, 1)])
    await cache.put_members(tenant, Membership(coalition, 1, frozenset({agent})))
    (found,) = await cached(cache, tenant, [agent])
    assert found is not None
    assert await cache.is_member(tenant, coalition, agent, at_least=1)


async def test_tenants_and_epochs_share_nothing(connection: RedisConnection, cache: RedisCache, tenant: UUID) -> None:
    agent, other = uuid4(), uuid4()
    mine, theirs = entry(agent, 5), entry(agent, 1)
    await cache.put_beliefs(tenant, [mine])
    await cache.put_beliefs(other, [theirs])
    assert await cached(cache, tenant, [agent]) == [mine]
    assert await cached(cache, other, [agent]) == [theirs]
    await cache.put_members(tenant, Membership(agent, 1, frozenset({agent})))
    assert await cache.is_member(other, agent, agent, at_least=0) is None
    await cache.set_watermark(datetime.now(UTC))
    later = RedisCache(connection, Epoch(uuid4()))
    assert await cached(later, tenant, [agent]) == [None]
    assert await later.is_member(tenant, agent, agent, at_least=0) is None
    assert await later.watermark() is None


def test_keys_name_tenant_epoch_and_agent() -> None:
    epoch, tenant, agent = UUID(int=1 << 127), UUID(int=2), UUID(int=3)
    keys = TenantKeys(epoch, tenant)
    assert keys.beliefs(agent) == f"fa:80000000:{tenant}:agent:beliefs:{{{agent}}}"
    assert keys.members(agent) == f"fa:80000000:{tenant}:coalition:members:{{{agent}}}"
    assert keys.agent_channel(agent) == f"fa:80000000:{tenant}:agent:updates:{{{agent}}}"
    assert keys.all_channel == f"fa:80000000:{tenant}:agent:updates:all"


async def test_the_watermark_is_what_was_said_last(cache: RedisCache) -> None:
    assert await cache.watermark() is None
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    await cache.set_watermark(moment)
    assert await cache.watermark() == moment


async def test_members_are_known_until_a_newer_version(cache: RedisCache, tenant: UUID) -> None:
    coalition, inside, outside = uuid4(), uuid4(), uuid4()

    async def known(agent: UUID, at_least: int = 0) -> bool | None:
        return await cache.is_member(tenant, coalition, agent, at_least=at_least)

    assert await known(inside) is None
    await cache.put_members(tenant, Membership(coalition, 5, frozenset({inside})))
    assert await known(inside) is True
    assert await known(outside) is False
    assert await known(inside, at_least=5) is True
    assert await known(inside, at_least=6) is None
    for version in (4, 5):
        await cache.put_members(tenant, Membership(coalition, version, frozenset({outside})))
        assert await known(outside) is False
    await cache.drop_members(tenant, coalition, 5)
    assert await known(inside) is True
    await cache.put_members(tenant, Membership(coalition, 6, frozenset({outside})))
    assert await known(inside) is False
    assert await known(outside) is True


async def test_dropped_members_stay_dropped_for_older_puts(cache: RedisCache, tenant: UUID) -> None:
    coalition, agent = uuid4(), uuid4()
    await cache.put_members(tenant, Membership(coalition, 5, frozenset({agent})))
    await cache.drop_members(tenant, coalition, 7)
    assert await cache.is_member(tenant, coalition, agent, at_least=0) is None
    await cache.put_members(tenant, Membership(coalition, 6, frozenset({agent})))
    assert await cache.is_member(tenant, coalition, agent, at_least=0) is None
    await cache.drop_members(tenant, coalition, 6)
    await cache.put_members(tenant, Membership(coalition, 6, frozenset({agent})))
    assert await cache.is_member(tenant, coalition, agent, at_least=0) is None
    await cache.put_members(tenant, Membership(coalition, 7, frozenset({agent})))
    assert await cache.is_member(tenant, coalition, agent, at_least=7) is True


async def test_a_coalition_without_members_is_known_to_have_none(cache: RedisCache, tenant: UUID) -> None:
    coalition = uuid4()
    await cache.put_members(tenant, Membership(coalition, 1, frozenset()))
    assert await cache.is_member(tenant, coalition, uuid4(), at_least=1) is False


async def test_members_come_in_calls_that_do_not_hold_up_redis(
    connection: RedisConnection, cache: RedisCache, epoch: UUID, tenant: UUID
) -> None:
    coalition, ids = uuid4(), [uuid4() for _ in range(4 * CHUNK_MEMBERS + 1)]
    await connection.execute("CONFIG", "RESETSTAT")
    await cache.put_members(tenant, Membership(coalition, 1, frozenset(ids)))
    calls = (await connection.execute("INFO", "commandstats")).decode()
    assert "cmdstat_eval:calls=5," in calls
    for agent in (ids[0], ids[-1]):
        assert await cache.is_member(tenant, coalition, agent, at_least=1) is True
    assert await connection.execute("HLEN", TenantKeys(epoch, tenant).members(coalition)) == len(ids) + 2


async def test_members_are_known_once_all_are_there(
    connection: RedisConnection, cache: RedisCache, epoch: UUID, tenant: UUID
) -> None:
    coalition, ids = uuid4(), [uuid4() for _ in range(4)]
    key = TenantKeys(epoch, tenant).members(coalition)

    async def put(version: int, *part: UUID) -> int:
        members = [agent.bytes for agent in part]
        put: int = await connection.execute("EVAL", PUT_MEMBERS, 1, key, version, 60_000, len(ids), *members)
        return put

    async def known(agent: UUID) -> bool | None:
        return await cache.is_member(tenant, coalition, agent, at_least=1)

    assert await put(5, *ids[:2]) == 1
    assert await known(ids[0]) is None
    await connection.execute("DEL", key)  # expired, evicted or dropped meanwhile
    assert await put(5, *ids[2:]) == 1
    assert await known(ids[3]) is None
    assert await put(5, *ids[1:3]) == 1  # another process, which is at another part
    assert await known(ids[2]) is None
    assert await put(5, ids[0]) == 1
    assert [await known(agent) for agent in (*ids, uuid4())] == [True] * 4 + [False]
    assert await put(5, uuid4()) == 0

    assert await put(6, *ids[:2]) == 1
    assert await known(ids[0]) is None
    await cache.drop_members(tenant, coalition, 7)
    assert await put(6, *ids[2:]) == 0
    await cache.put_members(tenant, Membership(coalition, 7, frozenset(ids[:1])))
    assert [await known(agent) for agent in ids] == [True, False, False, False]


async def test_memberships_expire(connection: RedisConnection, cache: RedisCache, epoch: UUID, tenant: UUID) -> None:
    coalition = uuid4()
    key = TenantKeys(epoch, tenant).members(coalition)
    await cache.put_members(tenant, Membership(coalition, 1, frozenset({uuid4()})))
    assert 600_000 * 0.99 < await connection.execute("PTTL", key) <= 660_000
    await cache.put_members(tenant, Membership(coalition, 2, frozenset(uuid4() for _ in range(12_000))), ttl=5)
    assert 4_000 < await connection.execute("PTTL", key) <= 5_500
    await cache.drop_members(tenant, coalition, 3)
    assert 600_000 * 0.99 < await connection.execute("PTTL", key) <= 660_000


async def test_forgetting_all_takes_this_epoch_alone(
    connection: RedisConnection, cache: RedisCache, tenant: UUID
) -> None:
    other = RedisCache(connection, Epoch(uuid4()))
    ids = [uuid4() for _ in range(2500)]
    for each in (cache, other):
        await each.put_beliefs(tenant, [entry(agent, 1) for agent in ids])
        await each.put_members(tenant, Membership(ids[0], 1, frozenset(ids)))
        await each.set_watermark(datetime.now(UTC))
    assert await cache.forget_all() == 2501
    assert await cached(cache, tenant, ids) == [None] * 2500
    assert await cache.is_member(tenant, ids[0], ids[0], at_least=0) is None
    assert await cache.watermark() is None
    assert None not in await cached(other, tenant, ids)
    assert await other.watermark() is not None
