"""What the tests of the Redis side share: events as the relay delivers them, and a sealer with a key of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID, uuid4

from freeagentics_persistence.cache.connection import RedisConnection
from freeagentics_persistence.cache.updates.feed import FeedBounds
from freeagentics_persistence.cache.updates.hub import UpdateHub
from freeagentics_persistence.cache.updates.real_time_updates import AgentUpdate, RealTimeUpdates, Subscription
from freeagentics_persistence.domain.beliefs.beliefs import Beliefs
from freeagentics_persistence.domain.epochs import Epoch
from freeagentics_persistence.domain.events import Event, EventType
from freeagentics_persistence.domain.identifiers import new_revision
from freeagentics_persistence.encryption.envelope import Opener, Writer, derive_cipher
from freeagentics_persistence.errors import PersistenceError
from freeagentics_persistence.ports.cache import CacheEntry
from freeagentics_persistence.ports.sealing import Kind, require_opened
from freeagentics_persistence.relay.updates_sink import UpdatesSink


class OneKeySealer:
    """Seals with the real envelope and one data key, so that no keyring and no PostgreSQL is needed."""

    def __init__(self) -> None:
        self._key = os.urandom(32)
        self._writer = Writer(uuid4(), self._key)

    async def seal_many(
        self, tenant_id: UUID, kind: Kind, subjects: Sequence[UUID], revisions: Sequence[UUID], values: Sequence[bytes]
    ) -> list[bytes]:
        return self._writer.seal(tenant_id, kind, subjects, revisions, values)

    async def open_many(
        self,
        tenant_id: UUID,
        kind: Kind,
        subjects: Sequence[UUID],
        revisions: Sequence[UUID],
        envelopes: Sequence[bytes | None],
    ) -> list[bytes | None]:
        opened = await self.open_each(tenant_id, kind, subjects, [each.bytes for each in revisions], envelopes)
        return list(map(require_opened, opened))

    async def open_each(
        self,
        tenant_id: UUID,
        kind: Kind,
        subjects: Sequence[UUID],
        revisions: Sequence[bytes],
        envelopes: Sequence[bytes | None],
    ) -> list[bytes | PersistenceError | None]:
        opener = Opener(lambda _, salt: derive_cipher(self._key, salt), tenant_id, kind)
        return opener.open_each(subjects, revisions, envelopes)


def entry(agent_id: UUID, version: int, envelope: bytes | None = b"sealed") -> CacheEntry:
    """An entry to cache."""
    return CacheEntry(agent_id, version, new_revision(), envelope)


def change(entry: CacheEntry) -> Event:
    """The event of the change that makes this entry."""
    agent, version, revision, envelope = str(entry.agent_id), entry.version, str(entry.revision), entry.envelope
    return Event(7, 1, str(uuid4()), agent, EventType.BELIEFS_UPDATED, version, revision, datetime.now(UTC), envelope)


@dataclass
class Feed:
    """One epoch and tenant with a sink that delivers made-up events to it, and what follows them."""

    connection: RedisConnection
    epoch: UUID = field(default_factory=uuid4)
    tenant_id: UUID = field(default_factory=uuid4)
    sealer: OneKeySealer = field(default_factory=OneKeySealer)
    feed_length: int = 100_000
    feed_bytes: int = 128 * 1024 * 1024
    last_id: int = 0
    seen: list[tuple[UUID, UUID, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sink = self.new_sink()
        self.hub = UpdateHub(self.connection, Epoch(self.epoch))

    def new_sink(self) -> UpdatesSink:
        """A sink as another relay has it."""
        return UpdatesSink(self.connection, self.epoch, FeedBounds(length=self.feed_length, bytes=self.feed_bytes))

    def updates(self, tenant_id: UUID | None = None, connection: RedisConnection | None = None) -> RealTimeUpdates:
        """What the tenant's subscribers use; publishing goes elsewhere, so there is no outbox."""
        seen = self.seen.append
        hub = self.hub if connection is None else UpdateHub(connection, Epoch(self.epoch))
        return RealTimeUpdates(
            tenant_id or self.tenant_id,
            hub,
            None,  # type: ignore[arg-type]
            self.sealer,
            lambda *update: seen(update),
        )

    async def event(
        self,
        agent_id: UUID,
        version: int,
        *,
        beliefs: Beliefs | None = None,
        type: str = EventType.BELIEFS_UPDATED,
        tenant_id: UUID | None = None,
        sealed: bytes | None = None,
        kind: Kind = Kind.BELIEFS,
        **scalars: object,
    ) -> Event:
        """The next event of the feed."""
        self.last_id += 1
        tenant, revision = tenant_id or self.tenant_id, new_revision()
        payload = beliefs.to_bytes() if beliefs is not None else sealed
        if payload is None:
            envelope = None
        else:
            envelope = (await self.sealer.seal_many(tenant, kind, [agent_id], [revision], [payload]))[0]
        return Event(
            round=7,
            id=self.last_id,
            tenant=str(tenant),
            subject=str(agent_id),
            type=type,
            version=version,
            written_as=str(revision),
            recorded_at=datetime.now(UTC),
            envelope=envelope,
            **scalars,  # type: ignore[arg-type]
        )

    async def versions(self, agent_id: UUID, first: int, last: int) -> list[Event]:
        """Events of consecutive versions of one agent."""
        return [await self.event(agent_id, version) for version in range(first, last + 1)]

    async def deliver(self, agent_id: UUID, first: int, last: int) -> list[Event]:
        """The same, delivered."""
        events = await self.versions(agent_id, first, last)
        await self.sink.deliver(events)
        return events


async def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until a condition holds."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not come about in time"
        await asyncio.sleep(0.01)


async def take(updates: Subscription, count: int, seconds: float = 10.0) -> list[AgentUpdate]:
    """The next ``count`` updates."""
    async with asyncio.timeout(seconds):
        return [await anext(updates) for _ in range(count)]
