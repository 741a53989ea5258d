"""Beliefs and memberships in Redis: every put compares versions where the data is, in one script."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from uuid import UUID

from freeagentics_persistence.cache.connection import Argument, RedisConnection
from freeagentics_persistence.cache.entries import pack_entry, unpack_entry
from freeagentics_persistence.cache.keys import EpochKeys, TenantKeys
from freeagentics_persistence.cache.updates.feed_marker import FeedMarker
from freeagentics_persistence.domain.epochs import Epoch
from freeagentics_persistence.errors import EnvelopeRejected
from freeagentics_persistence.ports.cache import CacheEntry, Membership

CHUNK_ENTRIES = 500
FETCHED_ENTRIES = 1000
CHUNK_BYTES = 4 * 1024 * 1024
JITTER = 0.1
SCAN_COUNT = 1000
LEASE_MILLISECONDS = 5000

# ARGV: 1 where absent keys may be set, least milliseconds to live, how many more at most, a number, then one value
# for each key. Versions are compared as numbers, which is exact up to 2^53. What is no entry has no version, and goes.
_VERSION_OF = """
local function version_of(there)
    if type(there) ~= 'string' or #there < 26 or there:byte(1) ~= 1 or (#there > 26) ~= (there:byte(26) == 1) then
        return -1
    end
    local version = struct.unpack('>I8', there, 2)
    return version > 0 and version <= 9007199254740992 and version or -1
end
local function is_newer(value, key, may_create)
    local there = redis.pcall('GETRANGE', key, 0, 26)
    if there == '' then
        return may_create
    end
    return version_of(there) < struct.unpack('>I8', value, 2)
end
"""
_PUT = """
local may_create, least, spread, seed = ARGV[1] == '1', tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local put, leases = 0, {}
for i = 1, #KEYS do
    local value = ARGV[i + 4]
    if is_newer(value, KEYS[i], may_create) then
        redis.call('SET', KEYS[i], value, 'PX', least + (seed + i * 7919) % spread)
        put = put + 1
    end
    leases[i] = KEYS[i] .. ':lease'
end
redis.call('DEL', unpack(leases))
return put
"""
# ARGV: the token of new leases, milliseconds that they last. Gives 1 for each key whose lease was free, else 0.
_TAKE_LEASES = """
local taken = {}
for i = 1, #KEYS do
    taken[i] = redis.call('SET', KEYS[i] .. ':lease', ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0
end
return taken
"""
# ARGV: least milliseconds to live, how many more at most, a number, then a token and a value for each key
_FILL = """
local least, spread, seed, put = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), 0
for i = 1, #KEYS do
    local lease, token, value = KEYS[i] .. ':lease', ARGV[2 * i + 2], ARGV[2 * i + 3]
    if redis.call('GET', lease) == token then
        redis.call('DEL', lease)
        if is_newer(value, KEYS[i], true) then
            redis.call('SET', KEYS[i], value, 'PX', least + (seed + i * 7919) % spread)
            put = put + 1
        end
    end
end
return put
"""

# A membership is one hash: field v is the version, k is 1 where the members are known, and each member is a field
# of its 16 bytes. One key expires, is evicted and is read as a whole.
# ARGV: version, milliseconds to live, 1 for members known or 0 for a mere lower bound, members
_PUT_MEMBERS = """
local version = tonumber(ARGV[1])
local there = redis.pcall('HMGET', KEYS[1], 'v', 'k')
local known = tonumber(there[1] or '')
if known and (known > version or (known == version and (there[2] == '1' or ARGV[3] == '0'))) then
    return 0
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'v', ARGV[1], 'k', ARGV[3])
for i = 4, #ARGV do
    redis.call('HSET', KEYS[1], ARGV[i], '')
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""


class RedisCache:
    """Implements ports.cache.BeliefCache and MembershipCache. Times to live are in seconds."""

    def __init__(
        self, connection: RedisConnection, epoch: Epoch, *, belief_ttl: int = 300, member_ttl: int = 600
    ) -> None:
        self._connection = connection
        self._life = epoch
        self._epoch = epoch.id
        self._belief_ttl = belief_ttl
        self._member_ttl = member_ttl
        self._own = EpochKeys(epoch.id)
        self.deliveries = FeedMarker(connection, self._own.cache_marker)

    async def put_beliefs(self, tenant_id: UUID, entries: Sequence[CacheEntry], *, ttl: int | None = None) -> None:
        """See ports.cache.BeliefCache."""
        await self._put(tenant_id, entries, self._belief_ttl if ttl is None else ttl, "1")

    async def repair_beliefs(self, tenant_id: UUID, entries: Sequence[CacheEntry]) -> int:
        """See ports.cache.BeliefCache."""
        return await self._put(tenant_id, entries, self._belief_ttl, "0")

    async def fetch_beliefs(self, tenant_id: UUID, ids: Sequence[UUID]) -> list[CacheEntry | EnvelopeRejected | None]:
        """See ports.cache.BeliefCache."""
        self._life.require()
        key = TenantKeys(self._epoch, tenant_id).beliefs
        found: list[CacheEntry | EnvelopeRejected | None] = []
        for start in range(0, len(ids), FETCHED_ENTRIES):
            part = ids[start : start + FETCHED_ENTRIES]
            stored = await self._connection.execute("MGET", *map(key, part))
            for agent_id, value in zip(part, stored, strict=True):
                try:
                    found.append(None if value is None else unpack_entry(agent_id, value))
                except EnvelopeRejected as error:
                    found.append(error)
        return found

    async def take_leases(self, tenant_id: UUID, ids: Sequence[UUID]) -> dict[UUID, bytes]:
        """See ports.cache.BeliefCache."""
        key, token = TenantKeys(self._epoch, tenant_id).beliefs, os.urandom(16)
        leases: dict[UUID, bytes] = {}
        for start in range(0, len(ids), CHUNK_ENTRIES):
            part = ids[start : start + CHUNK_ENTRIES]
            keys = list(map(key, part))
            taken = await self._connection.execute("EVAL", _TAKE_LEASES, len(part), *keys, token, LEASE_MILLISECONDS)
            leases.update((agent_id, token) for agent_id, own in zip(part, taken, strict=True) if own)
        return leases

    async def fill_beliefs(self, tenant_id: UUID, entries: Sequence[CacheEntry], leases: Mapping[UUID, bytes]) -> int:
        """See ports.cache.BeliefCache."""
        key = TenantKeys(self._epoch, tenant_id).beliefs
        put = 0
        for part in _chunks([entry for entry in entries if entry.agent_id in leases]):
            options: list[Argument] = [*_life(self._belief_ttl), random.getrandbits(31)]
            values = chain.from_iterable((leases[entry.agent_id], pack_entry(entry)) for entry in part)
            keys = [key(entry.agent_id) for entry in part]
            put += await self._connection.execute("EVAL", _VERSION_OF + _FILL, len(part), *keys, *options, *values)
        return put

    async def watermark(self) -> datetime | None:
        """See ports.cache.BeliefCache."""
        return await self.deliveries.moment()

    async def set_watermark(self, moment: datetime) -> None:
        """See ports.cache.BeliefCache. Left unsaid where Redis has lost deliveries."""
        await self.deliveries.confirm(moment)

    async def put_members(self, tenant_id: UUID, membership: Membership, *, ttl: int | None = None) -> None:
        """See ports.cache.MembershipCache."""
        members = [member.bytes for member in membership.members]
        await self._put_members(tenant_id, membership.coalition_id, membership.version, members, ttl)

    async def drop_members(self, tenant_id: UUID, coalition_id: UUID, version: int) -> None:
        """See ports.cache.MembershipCache."""
        await self._put_members(tenant_id, coalition_id, version, None, None)

    async def is_member(self, tenant_id: UUID, coalition_id: UUID, agent_id: UUID, *, at_least: int) -> bool | None:
        """See ports.cache.MembershipCache."""
        self._life.require()
        key = TenantKeys(self._epoch, tenant_id).members(coalition_id)
        version, known, member = await self._connection.execute("HMGET", key, "v", "k", agent_id.bytes)
        if version is None or not version.isdigit() or int(version) < at_least or known != b"1":
            return None
        return member is not None

    async def forget_all(self) -> int:
        """Drop every cached entry of this epoch, as after a loss any of them may be out of date; how many there were.

        The watermark goes first, so that nothing counts as proven while this is under way.
        """
        await self.deliveries.doubt()
        dropped = 0
        for kind in ("agent:beliefs", "coalition:members"):
            cursor = b""
            while cursor != b"0":
                scan = ("SCAN", cursor or b"0", "MATCH", f"{self._own.prefix}*:{kind}:*", "COUNT", SCAN_COUNT)
                cursor, keys = await self._connection.execute(*scan)
                if keys:
                    dropped += await self._connection.execute("UNLINK", *keys)
        return dropped

    async def _put(self, tenant_id: UUID, entries: Sequence[CacheEntry], ttl: int, may_create: str) -> int:
        key = TenantKeys(self._epoch, tenant_id).beliefs
        put = 0
        for part in _chunks(entries):
            options: list[Argument] = [may_create, *_life(ttl), random.getrandbits(31)]
            keys = [key(entry.agent_id) for entry in part]
            put += await self._connection.execute(
                "EVAL", _VERSION_OF + _PUT, len(part), *keys, *options, *map(pack_entry, part)
            )
        return put

    async def _put_members(
        self, tenant_id: UUID, coalition_id: UUID, version: int, members: Sequence[bytes] | None, ttl: int | None
    ) -> None:
        key = TenantKeys(self._epoch, tenant_id).members(coalition_id)
        least, spread = _life(self._member_ttl if ttl is None else ttl)
        life = least + random.randrange(spread)  # noqa: S311 - jitter
        known = "0" if members is None else "1"
        await self._connection.execute("EVAL", _PUT_MEMBERS, 1, key, version, life, known, *(members or ()))


def _life(ttl: int) -> tuple[int, int]:
    """Least milliseconds to live, and how many may be added so that entries do not expire together."""
    return ttl * 1000, max(1, int(ttl * 1000 * JITTER))


def _chunks(entries: Sequence[CacheEntry]) -> Iterator[Sequence[CacheEntry]]:
    start = size = 0
    for i, entry in enumerate(entries):
        size += len(entry.envelope or b"")
        if i - start == CHUNK_ENTRIES or (size > CHUNK_BYTES and i > start):
            yield entries[start:i]
            start, size = i, len(entry.envelope or b"")
    if start < len(entries):
        yield entries[start:]
