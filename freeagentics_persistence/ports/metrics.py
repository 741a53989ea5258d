"""Time series of beliefs and coalitions, wherever they are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

AGENT_FIELDS = ("free_energy", "belief_entropy", "max_belief", "belief_variance")
COALITION_FIELDS = (
    "member_count",
    "revenue",
    "efficiency",
    "revenue_per_member",
    "total_revenue",
    "current_capital",
)


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """The mean of one field over one window. ``time`` is the window's start, or the range's where it begins later."""

    time: datetime
    field: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsWindow:
    """Which part of a series: [start, stop) in windows of ``every``, aligned to 1970-01-01 UTC."""

    start: datetime
    stop: datetime
    every: timedelta
    fields: Sequence[str]


class MetricsStore(Protocol):
    """Answers windowed queries. Windows without values are left out. Ordered by field (as asked), then time."""

    async def query_agent(self, tenant_id: UUID, agent_id: UUID, window: MetricsWindow) -> list[MetricPoint]:
        """Means of an agent's fields. Raises MetricsUnavailable, or what PostgreSQL raises."""

    async def query_coalition(self, tenant_id: UUID, coalition_id: UUID, window: MetricsWindow) -> list[MetricPoint]:
        """Means of a coalition's fields."""

    async def close(self) -> None:
        """Let go of connections."""
