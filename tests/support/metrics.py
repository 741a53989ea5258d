"""Events of agents and coalitions, and the ways they come into each metrics store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy.dialects.postgresql import insert

from freeagentics_persistence.database.engine import Database
from freeagentics_persistence.database.models import agent_history, coalition_performance, coalitions
from freeagentics_persistence.database.repositories.tenants import TenantRepository
from freeagentics_persistence.database.time_series import PostgresMetricsStore
from freeagentics_persistence.domain.events import Event, EventType
from freeagentics_persistence.domain.identifiers import new_revision
from freeagentics_persistence.domain.performance import performance_data
from freeagentics_persistence.errors import AlreadyExists
from freeagentics_persistence.metrics.influx_sink import InfluxSink
from freeagentics_persistence.metrics.influx_store import InfluxMetricsStore
from freeagentics_persistence.ports.metrics import AGENT_FIELDS, MetricPoint, MetricsStore, MetricsWindow

# midnight, two days ago: recent enough for partitions and retention, and a multiple of a day
MIDNIGHT = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=2)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)

_numbers = count(1)


class Series(Protocol):
    """A metrics store, and how events come into it."""

    store: MetricsStore

    async def deliver(self, *events: Event) -> None:
        """Bring events in, as often as they come."""


def belief_event(
    tenant_id: UUID, agent_id: UUID, at: datetime, free_energy: float | None = None, **values: Any
) -> Event:
    """An update of beliefs at a moment; further ``values`` replace those of the event."""
    number = next(_numbers)
    arguments: dict[str, Any] = {"type": EventType.BELIEFS_UPDATED, "written_as": str(new_revision()), **values}
    return Event(
        round=number,
        id=number,
        tenant=str(tenant_id),
        subject=str(agent_id),
        version=number,
        recorded_at=at,
        free_energy=free_energy,
        **arguments,
    )


def coalition_event(
    tenant_id: UUID,
    coalition_id: UUID,
    at: datetime,
    *performance: Any,
    type: str = EventType.COALITION_MEASURED,
    **money: float,
) -> Event:
    """A measurement of a coalition: member count, revenue, efficiency; with ``money``, a change of it."""
    return belief_event(tenant_id, coalition_id, at, type=type, data={**performance_data(*performance), **money})


def window(
    start: datetime, stop: datetime, every: timedelta = HOUR, fields: Sequence[str] = AGENT_FIELDS
) -> MetricsWindow:
    """Windows of an hour, of all fields of agents, where nothing else is said."""
    return MetricsWindow(start=start, stop=stop, every=every, fields=fields)


def rows(points: Sequence[MetricPoint]) -> list[tuple[datetime, str, float]]:
    """Points as tuples, values rounded to what two servers agree on."""
    assert {type(point.value) for point in points} <= {float}
    return [(point.time, point.field, round(point.value, 9)) for point in points]


@dataclass(frozen=True, slots=True)
class InfluxSeries:
    """InfluxDB, served by its sink."""

    store: InfluxMetricsStore

    async def deliver(self, *events: Event) -> None:
        """See Series."""
        await InfluxSink(self.store).deliver(events)


@dataclass(frozen=True, slots=True)
class PostgresSeries:
    """PostgreSQL's history, written as the application's role."""

    store: PostgresMetricsStore
    database: Database

    async def deliver(self, *events: Event) -> None:
        """See Series."""
        for event in events:
            await self.ensure_tenant(event.tenant_id)
            if event.data is None:
                await self._insert_belief(event)
            else:
                await self._insert_performance(event)

    async def ensure_tenant(self, tenant_id: UUID) -> None:
        """Make the tenant if it is missing."""
        try:
            await TenantRepository(self.database).create_tenant(str(tenant_id), tenant_id)
        except AlreadyExists:
            return

    async def _insert_belief(self, event: Event) -> None:
        values = {
            "tenant_id": event.tenant_id,
            "agent_id": event.subject_id,
            "recorded_at": event.recorded_at,
            "version": event.version,
            "revision": event.revision,
            "free_energy": event.free_energy,
            "belief_entropy": event.entropy,
            "max_belief": event.max_belief,
            "belief_variance": event.variance,
        }
        async with self.database.write(event.tenant_id) as connection:
            await connection.execute(insert(agent_history).values(values).on_conflict_do_nothing())

    async def _insert_performance(self, event: Event) -> None:
        owner = {"tenant_id": event.tenant_id, "revision": event.revision}
        coalition = {"id": event.subject_id, "name": "couriers", "business_model": "delivery", **owner}
        measured = {"coalition_id": event.subject_id, "recorded_at": event.recorded_at, **owner, **(event.data or {})}
        async with self.database.write(event.tenant_id) as connection:
            await connection.execute(insert(coalitions).values(coalition).on_conflict_do_nothing())
            await connection.execute(insert(coalition_performance).values(measured).on_conflict_do_nothing())
