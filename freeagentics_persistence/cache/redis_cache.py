"""Beliefs and memberships in Redis: every put compares versions where the data is, in one script.

That keeps an older entry from replacing a newer one. It cannot keep one from being put where there is none: a reader
that missed, or a writer after its commit, may be slow to put what it has, while a newer version is written, is cached
and evicted, or fails to be cached, and the relay, which replaces entries and makes none, passes. So once the cache
sink has delivered a version, nothing older is there and nothing older can come:

- Delivering it replaces an older entry and, in the same script, ends the lease of that agent.
- A reader fills in what it read only under a lease that it took before it asked PostgreSQL. One taken after the
  delivery, which comes after the commit, reads that version or a newer one. A lease that was lost to eviction or to
  its short life fills nothing.
- A writer makes an entry only where its change was recorded later than ``passed``, a moment of PostgreSQL's clock that
  is no earlier than any change delivered so far; the sink says it before it delivers. One agent's changes are recorded
  in the order of its versions, so where a newer one has been delivered, the older one is refused.
- Where Redis came back from an older snapshot, the sink finds out and drops everything, leases too. Until that is
  done (``dropping``) no lease fills, as a key may come to lie behind the scan, and ``passed`` covers all deliveries.
- Another epoch has other keys.

Up to the delivery an older entry can be there. ``bounded`` reads do not count it as proven, and ``session`` reads
know what their store wrote or saw.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from typing import Any, TypeVar
from uuid import UUID

from freeagentics_persistence.cache import redis_scripts
from freeagentics_persistence.cache.connection import Argument, Command, RedisConnection
from freeagentics_persistence.cache.entries import pack_change, pack_entry, unpack_entries
from freeagentics_persistence.cache.keys import EpochKeys, TenantKeys
from freeagentics_persistence.cache.updates.feed_marker import FeedMarker
from freeagentics_persistence.domain.epochs import Epoch
from freeagentics_persistence.domain.events import Event
from freeagentics_persistence.ports.cache import CacheEntry, Membership, StoredBeliefs

CHUNK_ENTRIES = 500
CHUNK_BYTES = 256 * 1024  # larger ones leave the processor's caches, and cost more an entry
CHUNKS_AT_ONCE = 4
CHUNK_MEMBERS = 2000
FETCHED_ENTRIES = 1000
JITTER = 0.1
SCAN_COUNT = 1000
LEASE_MILLISECONDS = 5000
ALWAYS, ONLY_REPLACE = b"9", b"0"  # later than any moment; and a word for absent keys that stay absent
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)

_Keyed = TypeVar("_Keyed", tuple[str, bytes], tuple[str, bytes, bytes])  # a key, what else goes with it, and its value


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

    async def put_beliefs(
        self,
        tenant_id: UUID,
        entries: Sequence[CacheEntry],
        *,
        ttl: int | None = None,
        written_at: datetime | None = None,
    ) -> None:
        """See ports.cache.BeliefCache."""
        recorded = ALWAYS if written_at is None else moment_of(written_at)
        key = TenantKeys(self._epoch, tenant_id).beliefs
        values = ((key(entry.agent_id), pack_entry(entry)) for entry in entries)
        await self._put(values, self._belief_ttl if ttl is None else ttl, recorded)

    async def repair_beliefs(self, tenant_id: UUID, changes: Sequence[Event]) -> int:
        """See ports.cache.BeliefCache. Where writers put their own, envelopes need not be sent to find that out."""
        sent = changes if self._often_older else await self._older(tenant_id, changes)
        put = await self._replace(tenant_id, sent)
        self._often_older = 2 * put > len(changes)
        return put

    async def pass_changes(self, moment: bytes) -> None:
        """Say that changes recorded up to ``moment`` are being delivered (see ``moment_of``)."""
        await self._connection.execute("EVAL", redis_scripts.SAY_DELIVERING, 1, self._own.cache_marker, moment)

    async def fetch_beliefs(self, tenant_id: UUID, ids: Sequence[UUID]) -> StoredBeliefs:
        """See ports.cache.BeliefCache."""
        self._life.require()
        key = TenantKeys(self._epoch, tenant_id).beliefs
        stored: list[bytes | None] = []
        for start in range(0, len(ids), FETCHED_ENTRIES):
            stored += await self._connection.execute("MGET", *map(key, ids[start : start + FETCHED_ENTRIES]))
        return unpack_entries(ids, stored)

    async def take_leases(self, tenant_id: UUID, ids: Sequence[UUID]) -> dict[UUID, bytes]:
        """See ports.cache.BeliefCache."""
        key, token = TenantKeys(self._epoch, tenant_id).beliefs, os.urandom(16)
        leases: dict[UUID, bytes] = {}
        for start in range(0, len(ids), CHUNK_ENTRIES):
            part = ids[start : start + CHUNK_ENTRIES]
            taken = await self._run(redis_scripts.TAKE_LEASES, map(key, part), token, LEASE_MILLISECONDS)
            leases.update((agent_id, token) for agent_id, own in zip(part, taken, strict=True) if own)
        return leases

    async def fill_beliefs(self, tenant_id: UUID, entries: Sequence[CacheEntry], leases: Mapping[UUID, bytes]) -> int:
        """See ports.cache.BeliefCache."""
        key = TenantKeys(self._epoch, tenant_id).beliefs
        put = 0
        leased = (entry for entry in entries if entry.agent_id in leases)
        for part in _chunks((key(entry.agent_id), leases[entry.agent_id], pack_entry(entry)) for entry in leased):
            values = chain.from_iterable(rest for _, *rest in part)
            keys = (key for key, *_ in part)
            put += await self._run(redis_scripts.FILL, keys, *_life(self._belief_ttl), random.getrandbits(31), *values)
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

        The watermark goes first, so that nothing counts as proven while this is under way. Leases go too, and fill
        nothing meanwhile.
        """
        await self.deliveries.doubt()
        await self._connection.execute("HSET", self._own.cache_marker, "dropping", "1")
        dropped = 0
        for kind in ("agent:beliefs", "coalition:members"):
            cursor = b""
            while cursor != b"0":
                scan = ("SCAN", cursor or b"0", "MATCH", f"{self._own.prefix}*:{kind}:*", "COUNT", SCAN_COUNT)
                cursor, keys = await self._connection.execute(*scan)
                if keys:
                    dropped += await self._connection.execute("UNLINK", *keys)
        await self._connection.execute("HDEL", self._own.cache_marker, "dropping")
        return dropped

    async def _older(self, tenant_id: UUID, changes: Sequence[Event]) -> list[Event]:
        """Those of which the cache has an older version; all of their leases end."""
        key = TenantKeys(self._epoch, tenant_id).beliefs
        found: list[Event] = []
        for start in range(0, len(changes), CHUNK_ENTRIES):
            part = changes[start : start + CHUNK_ENTRIES]
            versions = [change.version.to_bytes(8, "big") for change in part]
            keys = (key(change.subject) for change in part)
            found += [part[i] for i in await self._run(redis_scripts.OLDER, keys, *versions)]
        return found

    async def _replace(self, tenant_id: UUID, changes: Sequence[Event]) -> int:
        key = TenantKeys(self._epoch, tenant_id).beliefs
        values = ((key(change.subject), pack_change(change)) for change in changes)
        return await self._put(values, self._belief_ttl, ONLY_REPLACE)

    async def _put(self, values: Iterable[tuple[str, bytes]], ttl: int, recorded: bytes) -> int:
        """Put a string under each key; how many were."""
        put, chunks = 0, _chunks(values)
        while group := list(islice(chunks, CHUNKS_AT_ONCE)):
            commands: list[Command] = []
            for part in group:
                options = (recorded, *_life(ttl), random.getrandbits(31))
                keys, own = zip(*part, strict=True)
                commands.append(self._command(redis_scripts.PUT, keys, *options, *own))
            put += sum(await self._connection.pipeline(commands))
        return put

    async def _run(self, script: str, keys: Iterable[str], *arguments: Argument) -> Any:
        """What a script about these keys gives."""
        return await self._connection.execute(*self._command(script, keys, *arguments))

    def _command(self, script: str, keys: Iterable[str], *arguments: Argument) -> Command:
        """The call of a script about these keys; it gets the sink's marker first."""
        own = (self._own.cache_marker, *keys)
        return ("EVAL", script, len(own), *own, *arguments)

    async def _put_members(
        self, tenant_id: UUID, coalition_id: UUID, version: int, members: Sequence[bytes] | None, ttl: int | None
    ) -> None:
        key = TenantKeys(self._epoch, tenant_id).members(coalition_id)
        least, spread = _life(self._member_ttl if ttl is None else ttl)
        life = least + random.randrange(spread)  # noqa: S311 - jitter
        count = -1 if members is None else len(members)
        put: list[Argument] = ["EVAL", redis_scripts.PUT_MEMBERS, 1, key, version, life, count]
        for start in range(0, max(1, count), CHUNK_MEMBERS):
            if not await self._connection.execute(*put, *(members or ())[start : start + CHUNK_MEMBERS]):
                return


def moment_of(moment: datetime) -> bytes:
    """A moment as text of fixed width, whose order is that of time: microseconds since 1970, until the year 2255."""
    return b"%016d" % ((moment - _EPOCH) // _MICROSECOND)


def _life(ttl: int) -> tuple[int, int]:
    """Least milliseconds to live, and how many may be added so that entries do not expire together."""
    return ttl * 1000, max(1, int(ttl * 1000 * JITTER))


def _chunks(values: Iterable[_Keyed]) -> Iterator[list[_Keyed]]:
    """As many at once as one command takes; the last of each is what is put."""
    part: list[_Keyed] = []
    size = 0
    for value in values:
        more = len(value[-1])
        if part and (len(part) == CHUNK_ENTRIES or size + more > CHUNK_BYTES):
            yield part
            part, size = [], 0
        part.append(value)
        size += more
    if part:
        yield part
