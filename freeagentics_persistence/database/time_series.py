"""Metrics without a server of their own: windowed queries over the history that PostgreSQL keeps anyway."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from freeagentics_persistence.database.engine import Database
from freeagentics_persistence.database.models import agent_history, coalition_performance
from freeagentics_persistence.errors import InvalidInput
from freeagentics_persistence.ports.metrics import AGENT_FIELDS, COALITION_FIELDS, MetricPoint, MetricsWindow

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INFINITY: sa.ColumnElement[float] = sa.literal_column("'Infinity'::double precision")


class PostgresMetricsStore:
    """Answers from agent_history and coalition_performance, as fine as the history policy keeps them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def query_agent(self, tenant_id: UUID, agent_id: UUID, window: MetricsWindow) -> list[MetricPoint]:
        """Means of an agent's fields over windows, by field as asked, then time. Raises InvalidInput, and as a read."""
        table = agent_history
        return await self._query(tenant_id, table, table.c.agent_id == agent_id, AGENT_FIELDS, window)

    async def query_coalition(self, tenant_id: UUID, coalition_id: UUID, window: MetricsWindow) -> list[MetricPoint]:
        """Means of a coalition's fields, likewise."""
        table = coalition_performance
        return await self._query(tenant_id, table, table.c.coalition_id == coalition_id, COALITION_FIELDS, window)

    async def close(self) -> None:
        """The database belongs to whoever opened it."""

    async def _query(
        self,
        tenant_id: UUID,
        table: sa.Table,
        is_subject: sa.ColumnElement[bool],
        known: tuple[str, ...],
        window: MetricsWindow,
    ) -> list[MetricPoint]:
        names = list(dict.fromkeys(window.fields))
        unknown = [name for name in names if name not in known]
        if unknown:
            raise InvalidInput("fields", f"{unknown[0]!r} is not kept in PostgreSQL", f"Use {', '.join(known)}.")
        if not names:
            return []
        moment = table.c.recorded_at
        begin = sa.func.date_bin(
            sa.literal(window.every, sa.Interval), moment, sa.literal(_EPOCH, sa.TIMESTAMP(timezone=True))
        ).label("begin")
        query = (
            sa.select(begin, *(_mean(table.c[name]) for name in names))
            .where(table.c.tenant_id == tenant_id, is_subject, moment >= window.start, moment < window.stop)
            .group_by(sa.literal_column("begin"))
            .order_by(sa.literal_column("begin"))
        )
        async with self._database.read(tenant_id) as connection:
            rows = (await connection.execute(query)).all()
        return [
            MetricPoint(max(row[0], window.start), name, row[i])
            for i, name in enumerate(names, start=1)
            for row in rows
            if row[i] is not None
        ]


def _mean(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    """The mean of what is finite, NULL where nothing is."""
    value = sa.cast(column, sa.Double)
    finite = sa.func.abs(value) < _INFINITY  # NaN counts as greater
    # not avg(), which also sums squares and so fails from 1e154 on
    return sa.func.sum(value).filter(finite) / sa.func.count(value).filter(finite)
