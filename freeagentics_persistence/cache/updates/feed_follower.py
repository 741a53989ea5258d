"""Follows a tenant's updates without missing one: the feed up to now, then the channels, and both after a break.

Channels are subscribed to before the feed is read, so every update is in one or the other; positions tell which
have been seen.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from uuid import UUID

from freeagentics_persistence.cache.connection import RedisConnection
from freeagentics_persistence.cache.keys import EpochKeys, TenantKeys
from freeagentics_persistence.cache.updates.channels import ChannelConnection, Received
from freeagentics_persistence.cache.updates.feed import START, UpdateFeed
from freeagentics_persistence.cache.updates.feed_marker import FeedMarker, from_sortable
from freeagentics_persistence.cache.updates.update_message import ReceivedMessage, format_position, read_message
from freeagentics_persistence.domain.events import FeedPosition
from freeagentics_persistence.errors import AuthenticationFailed, FeedGap, TimedOut, Unavailable

HEALTH_SECONDS = 5.0
MAX_BACKOFF_SECONDS = 2.0
TRIMMED = "REDIS_FEED_LENGTH, REDIS_FEED_MEGABYTES and REDIS_FEED_IDLE_HOURS keep no more"
Take = Callable[[ReceivedMessage], Awaitable[None]]
_log = logging.getLogger(__name__)


class FeedFollower:
    """Follows the updates of ``agents`` (ids as text), of all where that is empty.

    ``position`` is the last place up to which everything was taken. After ``health`` seconds without a message the
    connection is tried.
    """

    def __init__(
        self,
        connection: RedisConnection,
        epoch: UUID,
        tenant_id: UUID,
        agents: frozenset[str],
        *,
        health: float = HEALTH_SECONDS,
    ) -> None:
        self._epoch = epoch
        self._tenant_id = tenant_id
        self._agents = agents
        self._health = health
        self._timeout = connection.timeout
        keys, own = TenantKeys(epoch, tenant_id), EpochKeys(epoch)
        ids = sorted(agents)
        self._gaps_channel = own.gaps_channel
        self._channels = [own.gaps_channel, *(keys.agent_channel(UUID(i)) for i in ids)]
        if not ids:
            self._channels.append(keys.all_channel)
        self._feed = UpdateFeed(connection, epoch)
        self._marker = FeedMarker(connection, own.feed_marker)
        self._link = ChannelConnection(connection)
        self.position = START

    async def start(self, after: tuple[UUID, FeedPosition] | None) -> None:
        """Subscribe, and begin after a position of an epoch, or from now.

        Raises FeedGap where updates after the position are gone, CacheUnavailable, AuthenticationFailed, TimedOut.
        """
        await self._link.open(self._channels)
        if after is not None and after[0] == self._epoch:
            self.position = after[1]
            await self._replay_page(None)
            return
        newest, gap = await self._feed.last(self._tenant_id), await self._marker.gap()
        self.position = max(newest, gap or START)
        if after is not None:
            raise self._gap(self.position, "the database began a new epoch, as after a restore")

    async def follow(self, take: Take) -> None:
        """Hand over every update until cancelled, connecting again wherever the connection is lost.

        Raises FeedGap, AuthenticationFailed, UpdatesError, and what ``take`` raises.
        """
        try:
            failures = 0
            while True:
                try:
                    if failures:
                        await self._link.open(self._channels)
                    while await self._replay_page(take):
                        pass
                    failures = 0
                    await self._live(take)
                except AuthenticationFailed:
                    raise
                except Unavailable as error:
                    failures += 1
                    pause = min(MAX_BACKOFF_SECONDS, 0.05 * 2 ** min(failures, 10)) * random.uniform(0.5, 1.0)  # noqa: S311
                    _log.warning("subscription: %s Connecting again in %.2f s.", error, pause)
                    await asyncio.sleep(pause)
        finally:
            await self._link.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._link.close()

    async def _replay_page(self, take: Take | None) -> bool:
        """Hand over a page of the feed, or only see that it is whole; whether there is more."""
        gap = await self._marker.gap()
        if gap is not None and self.position < gap:
            raise self._gap(gap, "Redis lost updates")
        page = await self._feed.read(self._tenant_id, self.position, self._agents)
        if not page.complete:
            if page.last < self.position == gap:
                return False
            reason = TRIMMED if self.position < page.last else "Redis lost updates"
            raise self._gap(max(page.last, gap or START), reason)
        if take is None:
            return True
        for message in page.messages:
            await self._take(message, take)
        self.position = page.reached
        if page.gap is not None:
            raise self._gap(page.gap, "Redis lost updates")
        return page.reached < page.last

    async def _live(self, take: Take) -> None:
        while True:
            received = await self._link.receive(self._health)
            if received is None:
                received = await self._try_connection(take)
            await self._handle(received, take)

    async def _try_connection(self, take: Take) -> Received:
        """Ask for an answer. Whatever was published before it was asked for comes before it, so the newest position
        as of then has been reached once it is there."""
        newest = await self._feed.last(self._tenant_id)
        await self._link.ping(str(newest))
        while True:
            received = await self._link.receive(self._timeout)
            if received is None:
                raise TimedOut("Redis does not answer on a subscription's connection.")
            if received.channel is None:
                return received
            await self._handle(received, take)

    async def _handle(self, received: Received, take: Take) -> None:
        if received.channel is None:
            round_, _, number = received.data.partition(b"-")
            self.position = max(self.position, FeedPosition(int(round_), int(number)))
        elif received.channel == self._gaps_channel:
            gap = from_sortable(received.data)
            if self.position < gap:
                raise self._gap(gap, "Redis lost updates")
        else:
            await self._take(received.data, take)

    async def _take(self, data: bytes, take: Take) -> None:
        message = read_message(data, self._epoch, self._tenant_id)
        if message.position <= self.position:
            return
        if not self._agents or message.agent_id in self._agents:
            await take(message)
        self.position = message.position

    def _gap(self, resume_after: FeedPosition, reason: str) -> FeedGap:
        return FeedGap(
            f"updates after {format_position(self._epoch, self.position)} are gone: {reason}. Read the agents again, "
            "then subscribe with after=error.resume_after.",
            resume_after=format_position(self._epoch, resume_after),
        )
