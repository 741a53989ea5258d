"""The metrics sink: what the relay delivers becomes points in InfluxDB."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from freeagentics_persistence.domain.beliefs.beliefs import Beliefs
from freeagentics_persistence.domain.events import Event, FeedPosition
from freeagentics_persistence.errors import EncryptionError, UnknownTenant
from freeagentics_persistence.metrics.influx_points import BELIEF_EVENTS, event_lines
from freeagentics_persistence.ports.sealing import Kind, Sealer

if TYPE_CHECKING:
    from freeagentics_persistence.metrics.influx_store import InfluxMetricsStore

_log = logging.getLogger(__name__)


class InfluxSink:
    """Writes measurements ``agent_beliefs`` and ``coalition_performance``; an event that comes again changes nothing.

    With ``dimensions`` it opens the beliefs and stores every probability, readable by all who read the bucket.
    """

    name = "metrics"

    def __init__(self, store: InfluxMetricsStore, dimensions: Sealer | None = None) -> None:
        self._store = store
        self._dimensions = dimensions

    async def resume(self, position: FeedPosition | None) -> None:
        """Make sure of the bucket, which may not have been there before. A point that comes again replaces itself."""
        await self._store.ensure_bucket()

    async def resume_after_loss(self, position: FeedPosition) -> None:
        """As ``resume``. The series keep a hole; agent_history in PostgreSQL has what was not removed there too."""
        _log.warning("Points were given up before InfluxDB had them; agent_history has those not removed there too.")
        await self.resume(position)

    async def deliver(self, events: Sequence[Event]) -> int:
        """Store a batch; how many points the server refused for good. Raises what the store's write raises.

        An event whose beliefs do not open is stored without their probabilities.
        """
        beliefs = await self._opened(events)
        lines = (line for i, event in enumerate(events) for line in event_lines(event, beliefs.get(i)))
        return await self._store.write(lines)

    async def caught_up(self, moment: datetime) -> None:
        """Nothing is held back: each batch was stored as it came."""

    async def _opened(self, events: Sequence[Event]) -> dict[int, Beliefs]:
        """Beliefs by the number of their event."""
        if self._dimensions is None:
            return {}
        sealed: dict[str, list[int]] = defaultdict(list)
        for i, event in enumerate(events):
            if event.type in BELIEF_EVENTS and event.envelope is not None:
                sealed[event.tenant].append(i)
        opened: dict[int, Beliefs] = {}
        for tenant, numbers in sealed.items():
            opened |= await self._opened_of(self._dimensions, UUID(tenant), events, numbers)
        return opened

    async def _opened_of(
        self, sealer: Sealer, tenant_id: UUID, events: Sequence[Event], numbers: Sequence[int]
    ) -> dict[int, Beliefs]:
        """What opens of a tenant's events; those that do not are found by halves."""
        try:
            payloads = await sealer.open_many(
                tenant_id,
                Kind.BELIEFS,
                [events[i].subject_id for i in numbers],
                [events[i].revision for i in numbers],
                [events[i].envelope for i in numbers],
            )
            return {i: Beliefs.from_bytes(p) for i, p in zip(numbers, payloads, strict=True) if p is not None}
        except (EncryptionError, UnknownTenant) as error:
            if len(numbers) == 1:
                event = events[numbers[0]]
                _log.warning("event %s of agent %s has no probabilities: %s", event.position, event.subject, error)
                return {}
        middle = len(numbers) // 2
        first = await self._opened_of(sealer, tenant_id, events, numbers[:middle])
        return first | await self._opened_of(sealer, tenant_id, events, numbers[middle:])
