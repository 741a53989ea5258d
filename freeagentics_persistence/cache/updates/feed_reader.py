"""Reads a tenant's feed from a position, and tells where updates after it are gone."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from freeagentics_persistence.cache.connection import RedisConnection
from freeagentics_persistence.cache.keys import EpochKeys
from freeagentics_persistence.cache.updates.feed import START, UpdateFeed
from freeagentics_persistence.cache.updates.feed_marker import FeedMarker
from freeagentics_persistence.cache.updates.update_message import ReceivedMessage, format_position, read_message
from freeagentics_persistence.domain.events import FeedPosition
from freeagentics_persistence.errors import FeedGap

LOST = "Redis lost updates"
TRIMMED = "REDIS_FEED_LENGTH, REDIS_FEED_MEGABYTES and REDIS_FEED_IDLE_HOURS keep no more"
OTHER_EPOCH = "the database began a new epoch, as after a restore"


@dataclass(frozen=True, slots=True)
class Replayed:
    """Messages after a position, up to ``reached``; ``end`` where nothing came after that. ``gap`` ends them."""

    messages: Sequence[ReceivedMessage]
    reached: FeedPosition
    end: bool
    gap: FeedGap | None


class FeedReader:
    """Reads the feeds of one epoch. Errors are those of RedisConnection."""

    def __init__(self, connection: RedisConnection, epoch: UUID) -> None:
        self._epoch = epoch
        self._feed = UpdateFeed(connection, epoch)
        self._marker = FeedMarker(connection, EpochKeys(epoch).feed_marker)

    async def newest(self, tenant_id: UUID) -> FeedPosition:
        """Where a tenant's feed ends now; after the last gap."""
        (last,) = await self._feed.last([tenant_id])
        return max(last, await self._marker.gap() or START)

    async def last(self, tenant_ids: Sequence[UUID]) -> list[FeedPosition]:
        """The newest position in each tenant's feed."""
        return await self._feed.last(tenant_ids)

    async def replay(self, tenant_id: UUID, after: FeedPosition, agents: Collection[str]) -> Replayed:
        """At most 1,000 entries or 4 MiB after a position, of these agents or, where none are named, of all.

        Raises FeedGap where updates after the position are gone, UpdatesError for a message that is none.
        """
        gap = await self._marker.gap()
        if gap is not None and after < gap:
            raise self.gap(after, gap, LOST)
        page = await self._feed.read(tenant_id, after, agents)
        if not page.complete:
            if page.last < after == gap:
                return Replayed((), after, end=True, gap=None)
            raise self.gap(after, max(page.last, gap or START), TRIMMED if after < page.last else LOST)
        messages = [read_message(message, self._epoch, tenant_id) for message in page.messages]
        if agents:
            messages = [message for message in messages if message.agent_id in agents]
        told = None if page.gap is None else self.gap(page.reached, page.gap, LOST)
        return Replayed(messages, page.reached, page.reached >= page.last, told)

    def gap(self, position: FeedPosition, resume_after: FeedPosition, reason: str) -> FeedGap:
        """What a subscriber at ``position`` is told."""
        return FeedGap(
            f"updates after {format_position(self._epoch, position)} are gone: {reason}. Read the agents again, "
            "then subscribe with after=error.resume_after.",
            resume_after=format_position(self._epoch, resume_after),
        )
