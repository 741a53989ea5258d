"""One connection for all subscriptions of a store, which is there while there are any."""

from __future__ import annotations

from freeagentics_persistence.cache.connection import RedisConnection
from freeagentics_persistence.cache.updates.audience import MAX_FOLLOWED, Audience, Listener
from freeagentics_persistence.cache.updates.channel_follower import HEALTH_SECONDS, ChannelFollower
from freeagentics_persistence.cache.updates.feed_reader import FeedReader
from freeagentics_persistence.domain.epochs import Epoch
from freeagentics_persistence.domain.events import FeedPosition


class UpdateHub:
    """Offers what is published to everyone who follows it. A subscriber is never waited for, see Listener.

    Every ``health`` seconds the positions of feeds go on where nothing came, and the connection is tried by that.
    All listeners together follow at most ``limit`` agents, each counted for each of them.
    """

    def __init__(
        self, connection: RedisConnection, epoch: Epoch, *, health: float = HEALTH_SECONDS, limit: int = MAX_FOLLOWED
    ) -> None:
        self.epoch = epoch
        self.reader = FeedReader(connection, epoch.id)
        self._connection = connection
        self._health = health
        self._audience = Audience(epoch.id, limit)
        self._follower: ChannelFollower | None = None

    async def attach(self, listener: Listener) -> None:
        """Once this returns, the listener is offered everything that is published.

        Raises Overloaded, NewEpoch, StoreClosed, CacheUnavailable, AuthenticationFailed, TimedOut.
        """
        position = await self.reader.newest(listener.tenant_id)
        self.epoch.require()
        channels = self._audience.add(listener, position)
        try:
            if self._follower is None or self._follower.over:
                self._follower = ChannelFollower(
                    self._connection, self.epoch, self.reader, self._audience, health=self._health
                )
            await self._follower.subscribe(channels)
            self.epoch.require()
        except BaseException:
            await self.detach(listener)
            raise

    async def detach(self, listener: Listener) -> None:
        """Offer it nothing more. The last one closes the connection."""
        channels, follower = self._audience.remove(listener), self._follower
        if follower is None:
            return
        if self._audience.tenants:
            await follower.unsubscribe(channels)
        else:
            self._follower = None
            await follower.close()

    def position(self, listener: Listener) -> FeedPosition:
        """Up to here an attached listener was offered everything, unless it fell behind."""
        return self._audience.tenants[listener.tenant_id].position
