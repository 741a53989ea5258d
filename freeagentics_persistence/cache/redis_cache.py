"""Beliefs and memberships in Redis: every put compares versions where the data is, in one script."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from uuid import UUID

from freeagentics_persistence.cache.connection import Argument, Command, RedisConnection
from freeagentics_persistence.cache.entries import pack_entry, unpack_entry
from freeagentics_persistence.cache.keys import EpochKeys, TenantKeys
from freeagentics_persistence.cache.updates.feed_marker import FeedMarker
from freeagentics_persistence.domain.epochs import Epoch
from freeagentics_persistence.ports.cache import CacheEntry, Membership

CHUNK_ENTRIES = 500
CHUNK_BYTES = 256 * 1024  # larger ones leave the processor's caches, and cost more an entry
CHUNKS_AT_ONCE = 4
CHUNK_MEMBERS = 2000
JITTER = 0.1
SCAN_COUNT = 1000

# Versions are compared as numbers, which is exact up to 2^53. What is no entry has no version, and goes.
_VERSION = """
local function version_of(there)
    if type(there) ~= 'string' or #there < 26 or there:byte(1) ~= 1 or (#there > 26) ~= (there:byte(26) == 1) then
        return -1
    end
    local version = struct.unpack('>I8', there, 2)
    return version > 0 and version <= 9007199254740992 and version or -1
end
"""

# ARGV: 1 where absent keys may be set, least milliseconds to live, how many more at most, a number, then one value
# for each key.
_PUT = f"""
{_VERSION}
local may_create, least, spread, seed = ARGV[1] == '1', tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local put = 0
for i = 1, #KEYS do
    local value = ARGV[i + 4]
    local there = redis.pcall('GETRANGE', KEYS[i], 0, 26)
    local newer = may_create
    if there ~= '' then
        newer = version_of(there) < struct.unpack('>I8', value, 2)
    end
    if newer then
        redis.call('SET', KEYS[i], value, 'PX', least + (seed + i * 7919) % spread)
        put = put + 1
    end
end
return put
"""

# ARGV: one version for each key. Returns the numbers of the keys that hold an older one.
_OLDER = f"""
{_VERSION}
local older = {{}}
for i = 1, #KEYS do
    local there = redis.pcall('GETRANGE', KEYS[i], 0, 26)
    if there ~= '' and version_of(there) < struct.unpack('>I8', ARGV[i]) then
        older[#older + 1] = i
    end
end
return older
"""

# A membership is one hash: field v is the version, k is 1 where the members are known, and each member is a field
# of its 16 bytes. One key expires, is evicted and is read as a whole. Members come in several calls, so that none of
# them holds up Redis; they are known once as many are there as there should be. As a version has one set of members,
# calls of several processes add up, and what was lost in between is missed by the count.
# ARGV: version, milliseconds to live, how many members there are or -1 for a mere lower bound, some of the members
_PUT_MEMBERS = """
local version, count = tonumber(ARGV[1]), tonumber(ARGV[3])
local there = redis.pcall('HMGET', KEYS[1], 'v', 'k')
local known = tonumber(there[1] or '')
if known and (known > version or (known == version and (there[2] == '1' or count < 0))) then
    return 0
end
if known ~= version then
    redis.call('UNLINK', KEYS[1])
    redis.call('HSET', KEYS[1], 'v', ARGV[1], 'k', '0')
end
for i = 4, #ARGV do
    redis.call('HSET', KEYS[1], ARGV[i], '')
end
if redis.call('HLEN', KEYS[1]) == count + 2 then
    redis.call('HSET', KEYS[1], 'k', '1')
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
        self._often_older = False

    async def put_beliefs(self, tenant_id: UUID, entries: Sequence[CacheEntry], *, ttl: int | None = None) -> None:
        """See ports.cache.BeliefCache."""
        await self._put(tenant_id, entries, self._belief_ttl if ttl is None else ttl, "1")

    async def repair_beliefs(self, tenant_id: UUID, entries: Sequence[CacheEntry]) -> int:
        """See ports.cache.BeliefCache. Where writers put their own, envelopes need not be sent to find that out."""
        sent = entries if self._often_older else await self._older(tenant_id, entries)
        put = await self._put(tenant_id, sent, self._belief_ttl, "0")
        self._often_older = 2 * put > len(entries)
        return put

    async def fetch_beliefs(self, tenant_id: UUID, ids: Sequence[UUID]) -> list[CacheEntry | None]:
        """See ports.cache.BeliefCache. Raises EnvelopeRejected where a cached string is no entry."""
        self._life.require()
        key = TenantKeys(self._epoch, tenant_id).beliefs
        found: list[CacheEntry | None] = []
        for start in range(0, len(ids), CHUNK_ENTRIES):
            part = ids[start : start + CHUNK_ENTRIES]
            stored = await self._connection.execute("MGET", *map(key, part))
            found += [
                None if value is None else unpack_entry(agent_id, value)
                for agent_id, value in zip(part, stored, strict=True)
            ]
        return found

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

    async def _older(self, tenant_id: UUID, entries: Sequence[CacheEntry]) -> list[CacheEntry]:
        """Those of which the cache has an older version."""
        key = TenantKeys(self._epoch, tenant_id).beliefs
        found: list[CacheEntry] = []
        for start in range(0, len(entries), CHUNK_ENTRIES):
            part = entries[start : start + CHUNK_ENTRIES]
            versions = [entry.version.to_bytes(8, "big") for entry in part]
            keys = [key(entry.agent_id) for entry in part]
            found += [part[i - 1] for i in await self._connection.execute("EVAL", _OLDER, len(part), *keys, *versions)]
        return found

    async def _put(self, tenant_id: UUID, entries: Sequence[CacheEntry], ttl: int, may_create: str) -> int:
        key = TenantKeys(self._epoch, tenant_id).beliefs
        put, chunks = 0, _chunks(entries)
        while group := list(islice(chunks, CHUNKS_AT_ONCE)):
            commands: list[Command] = []
            for part in group:
                options: list[Argument] = [may_create, *_life(ttl), random.getrandbits(31)]
                keys = [key(entry.agent_id) for entry in part]
                commands.append(("EVAL", _PUT, len(part), *keys, *options, *map(pack_entry, part)))
            put += sum(await self._connection.pipeline(commands))
        return put

    async def _put_members(
        self, tenant_id: UUID, coalition_id: UUID, version: int, members: Sequence[bytes] | None, ttl: int | None
    ) -> None:
        key = TenantKeys(self._epoch, tenant_id).members(coalition_id)
        least, spread = _life(self._member_ttl if ttl is None else ttl)
        life = least + random.randrange(spread)  # noqa: S311 - jitter
        count = -1 if members is None else len(members)
        put: list[Argument] = ["EVAL", _PUT_MEMBERS, 1, key, version, life, count]
        for start in range(0, max(1, count), CHUNK_MEMBERS):
            if not await self._connection.execute(*put, *(members or ())[start : start + CHUNK_MEMBERS]):
                return


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
