"""The sink that keeps the cache true where a writer could not."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from operator import attrgetter
from uuid import UUID

from freeagentics_persistence.cache.redis_cache import RedisCache, moment_of
from freeagentics_persistence.domain.events import Event, EventType, FeedPosition

_AGENT_CHANGES = frozenset({EventType.AGENT_SAVED, EventType.BELIEFS_UPDATED, EventType.AGENT_DELETED})
_MEMBER_CHANGES = frozenset({EventType.COALITION_SAVED, EventType.COALITION_MEMBERS, EventType.COALITION_DISSOLVED})
_recorded_at = attrgetter("recorded_at")
_log = logging.getLogger(__name__)


class CacheSink:
    """Implements ports.sinks.Sink. Where Redis lost what had been delivered, cached entries are dropped.

    A Redis that came back from an older snapshot holds entries that changed since; the deliveries that repaired them
    will not come again.
    """

    name = "cache"

    def __init__(self, cache: RedisCache) -> None:
        self._cache = cache
        self._marker = cache.deliveries

    async def resume(self, position: FeedPosition | None) -> None:
        """See ports.sinks.Sink."""
        self._marker.resume(position)
        await self._drop_what_is_doubtful()

    async def resume_after_loss(self, position: FeedPosition) -> None:
        """See ports.sinks.Sink. Any entry may be out of date, so all are dropped."""
        await self._drop_all(position)

    async def deliver(self, events: Sequence[Event]) -> int:
        """See ports.sinks.Sink."""
        if not events:
            return 0
        await self._drop_what_is_doubtful()
        recorded = moment_of(max(map(_recorded_at, events)))
        await self._cache.pass_changes(max(_round_of(events[-1].position), recorded))
        for tenant, newest in _newest_changes(events).items():
            await self._cache.repair_beliefs(UUID(tenant), list(newest.values()))
        for (tenant_id, coalition_id), version in _member_versions(events).items():
            await self._cache.drop_members(tenant_id, coalition_id, version)
        end = events[-1].position
        if not await self._marker.advance(end):
            await self._drop_all(end)
        return 0

    async def caught_up(self, moment: datetime) -> None:
        """See ports.sinks.Sink."""
        if not await self._marker.confirm(moment):
            await self._drop_what_is_doubtful()

    async def _drop_what_is_doubtful(self) -> None:
        lost = await self._marker.lost()
        if lost is not None:
            await self._drop_all(lost)

    async def _drop_all(self, position: FeedPosition) -> None:
        # first dropped, then declared: a stop in between leaves the loss to be found again
        await self._cache.pass_changes(_round_of(position))
        dropped = await self._cache.forget_all()
        await self._marker.declare_loss(position)
        _log.warning("Changes up to %s are lost or did not come: %d cached entries were dropped.", position, dropped)


def _round_of(position: FeedPosition) -> bytes:
    """When PostgreSQL was asked for what is delivered up to this position: all of that was recorded before."""
    return b"%016d" % position.round


def _newest_changes(events: Sequence[Event]) -> dict[str, dict[str, Event]]:
    """By tenant and agent."""
    newest: dict[str, dict[str, Event]] = {}
    for event in events:
        if event.type in _AGENT_CHANGES:
            newest.setdefault(event.tenant, {})[event.subject] = event
    return newest


def _member_versions(events: Sequence[Event]) -> dict[tuple[UUID, UUID], int]:
    return {(e.tenant_id, e.subject_id): e.version for e in events if e.type in _MEMBER_CHANGES}
