"""The sink that carries updates to the channels and the replayable feeds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from freeagentics_persistence.cache.connection import RedisConnection
from freeagentics_persistence.cache.keys import EpochKeys
from freeagentics_persistence.cache.updates.feed import FeedBounds, UpdateFeed
from freeagentics_persistence.cache.updates.feed_marker import FeedMarker
from freeagentics_persistence.cache.updates.feed_sweep import FeedSweep
from freeagentics_persistence.cache.updates.update_message import NOT_UPDATES
from freeagentics_persistence.domain.events import Event, FeedPosition

_log = logging.getLogger(__name__)


class UpdatesSink:
    """Implements ports.sinks.Sink. Where Redis lost what had been delivered, subscribers are told of a gap."""

    name = "updates"

    def __init__(
        self, connection: RedisConnection, epoch: UUID, bounds: FeedBounds, former_epochs: Sequence[UUID] = ()
    ) -> None:
        keys = EpochKeys(epoch)
        self._feed = UpdateFeed(connection, epoch)
        self._bounds = bounds
        self._marker = FeedMarker(connection, keys.feed_marker, keys.gaps_channel)
        self._sweep = FeedSweep(connection, epoch, former_epochs, bounds.idle_seconds)
        self._gap: FeedPosition | None = None

    async def resume(self, position: FeedPosition | None) -> None:
        """See ports.sinks.Sink."""
        self._marker.resume(position)
        self._gap = await self._marker.gap()
        await self._tell_of_loss()

    async def resume_after_loss(self, position: FeedPosition) -> None:
        """See ports.sinks.Sink. Subscribers are told of a gap."""
        _log.warning("Updates up to %s did not all come: subscribers are told of a gap.", position)
        await self._begin_anew(position)

    async def deliver(self, events: Sequence[Event]) -> int:
        """See ports.sinks.Sink."""
        if not events:
            return 0
        await self._tell_of_loss()
        for tenant_id, own in _by_tenant(events).items():
            while (lost := await self._feed.append(tenant_id, own, self._gap, self._bounds)) is not None:
                await self._declare_loss(lost)
        end = events[-1].position
        if not await self._marker.advance(end):
            await self._declare_loss(end)
        return 0

    async def caught_up(self, moment: datetime) -> None:
        """See ports.sinks.Sink."""
        if not await self._marker.confirm(moment):
            await self._tell_of_loss()
        await self._sweep.step(moment)

    async def _tell_of_loss(self) -> None:
        lost = await self._marker.lost()
        if lost is not None:
            await self._declare_loss(lost)

    async def _declare_loss(self, position: FeedPosition) -> None:
        _log.warning("Redis lost updates that had been delivered, up to %s: subscribers are told of a gap.", position)
        await self._begin_anew(position)

    async def _begin_anew(self, position: FeedPosition) -> None:
        await self._marker.declare_loss(position)
        self._gap = position


def _by_tenant(events: Sequence[Event]) -> dict[UUID, list[Event]]:
    found: dict[str, list[Event]] = {}
    for event in events:
        if event.type not in NOT_UPDATES:
            found.setdefault(event.tenant, []).append(event)
    return {UUID(tenant): own for tenant, own in found.items()}
