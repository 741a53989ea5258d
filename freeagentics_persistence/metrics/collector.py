"""Recording and querying how agents and coalitions do over time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from freeagentics_persistence.domain.beliefs.beliefs import BeliefsLike, as_beliefs
from freeagentics_persistence.domain.epochs import Epoch
from freeagentics_persistence.domain.validation import require_finite, require_int, require_uuid
from freeagentics_persistence.metrics.windows import checked_fields, checked_window
from freeagentics_persistence.ports.metrics import AGENT_FIELDS, COALITION_FIELDS, MetricPoint, MetricsStore
from freeagentics_persistence.ports.outbox import Outbox


class MetricsCollector:
    """Metrics of one tenant. What is recorded is committed at once, and queried once the relay has carried it.

    ``dimensions`` tells that ``store`` also keeps single probabilities, as fields belief_0, belief_1 ...
    Queries raise NewEpoch or StoreClosed once ``epoch`` has ended, whoever keeps the series.
    """

    def __init__(
        self, store: MetricsStore, outbox: Outbox, tenant_id: UUID, epoch: Epoch, *, dimensions: bool = False
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._tenant = require_uuid("tenant_id", tenant_id)
        self._epoch = epoch
        self._dimensions = dimensions

    async def record_agent_belief_update(
        self, agent_id: UUID, beliefs: BeliefsLike, free_energy: float | None = None, *, revision: UUID | None = None
    ) -> UUID:
        """Record statistics of beliefs without changing the agent; the revision that names the record.

        ``free_energy`` in nats. ``revision`` is a UUIDv7 that makes a retry safe: it is recorded once.
        Raises InvalidInput, UnknownAgent, RevisionExpired, and what a write raises.
        """
        energy = None if free_energy is None else require_finite("free_energy", free_energy)
        agent = require_uuid("agent_id", agent_id)
        return await self._outbox.record_beliefs(self._tenant, agent, as_beliefs(beliefs), energy, revision)

    async def record_coalition_performance(
        self,
        coalition_id: UUID,
        *,
        member_count: int,
        revenue: float,
        efficiency: float | None = None,
        revision: UUID | None = None,
    ) -> UUID:
        """Record how a coalition performed; the revision that names the record.

        ``efficiency`` is the caller's own measure. Revenue per member is derived, 0 without members. ``revision`` is
        a UUIDv7 that makes a retry safe: it is recorded once.
        Raises InvalidInput, UnknownCoalition, and what a write raises.
        """
        return await self._outbox.record_performance(
            self._tenant,
            require_uuid("coalition_id", coalition_id),
            require_int("member_count", member_count, low=0, high=2**31 - 1),
            require_finite("revenue", revenue),
            None if efficiency is None else require_finite("efficiency", efficiency),
            revision,
        )

    async def query_agent_performance_history(
        self,
        agent_id: UUID,
        hours: float = 24,
        *,
        start: datetime | None = None,
        stop: datetime | None = None,
        every: str | timedelta = "1h",
        fields: Sequence[str] | None = None,
    ) -> list[MetricPoint]:
        """Means of free_energy, belief_entropy (both nats), max_belief and belief_variance over windows.

        From ``start`` (by default ``hours`` before ``stop``) up to but without ``stop`` (by default now), in windows
        of ``every`` ("30s", "5m", "1h", "1d" or a timedelta) aligned to 1970-01-01 UTC; the first begins at ``start``.
        Windows without values are left out. Ordered by field, as ``fields`` has them, then time.
        Raises InvalidInput, and what the store raises.
        """
        self._epoch.require()
        agent = require_uuid("agent_id", agent_id)
        names = checked_fields(fields, AGENT_FIELDS, dimensions=self._dimensions)
        return await self._store.query_agent(self._tenant, agent, checked_window(hours, start, stop, every, names))

    async def query_coalition_performance_history(
        self,
        coalition_id: UUID,
        hours: float = 24,
        *,
        start: datetime | None = None,
        stop: datetime | None = None,
        every: str | timedelta = "1h",
        fields: Sequence[str] | None = None,
    ) -> list[MetricPoint]:
        """Means of a coalition's fields (ports.metrics.COALITION_FIELDS) over windows, as for an agent.

        member_count, revenue, efficiency and revenue_per_member, and total_revenue and current_capital after a change.
        """
        self._epoch.require()
        coalition = require_uuid("coalition_id", coalition_id)
        names = checked_fields(fields, COALITION_FIELDS, dimensions=False)
        window = checked_window(hours, start, stop, every, names)
        return await self._store.query_coalition(self._tenant, coalition, window)
