"""Reads beliefs as of a time, and all of history."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from freeagentics_persistence.database.context import TenantContext
from freeagentics_persistence.database.engine import driver_of
from freeagentics_persistence.database.models import agent_history
from freeagentics_persistence.database.reads.opening import batch_of, open_stored, rows_by_id
from freeagentics_persistence.domain.beliefs.batch import BeliefBatch
from freeagentics_persistence.domain.beliefs.beliefs import Beliefs
from freeagentics_persistence.domain.results import Revision
from freeagentics_persistence.ports.sealing import Kind

IDS_PER_QUERY = 5000
HISTORY_PAGE = 500

# the present row serves from its last change on: also where history skipped that, or has dropped it
AS_OF = """
SELECT uuid_send(wanted.id) AS id, coalesce(a.version, h.version) AS version,
    uuid_send(coalesce(a.revision, h.revision)) AS revision,
    CASE WHEN a.id IS NULL THEN h.belief_state ELSE a.belief_state END AS belief_state
FROM unnest($2::uuid[]) AS wanted (id)
LEFT JOIN agents a ON a.tenant_id = $1 AND a.id = wanted.id AND a.updated_at <= $3
LEFT JOIN LATERAL (
    SELECT version, revision, belief_state FROM agent_history
    WHERE a.id IS NULL AND tenant_id = $1 AND agent_id = wanted.id AND recorded_at <= $3 AND version IS NOT NULL
    ORDER BY recorded_at DESC LIMIT 1
) h ON true
WHERE coalesce(a.version, h.version) IS NOT NULL
"""


class BeliefReader:
    """Reads for one tenant."""

    def __init__(self, context: TenantContext) -> None:
        self._context = context

    async def read_at(self, ids: Sequence[UUID], at: datetime) -> BeliefBatch:
        """The beliefs of agents as of a moment."""
        return await self.batch_of_rows(ids, await self._stored(AS_OF, list(dict.fromkeys(ids)), at))

    async def batch_of_rows(self, ids: Sequence[UUID], rows: Sequence[Any]) -> BeliefBatch:
        """The batch of rows (id, version, revision, envelope), in the order of ``ids``."""
        found = rows_by_id(ids, rows)
        return batch_of(found, await open_stored(self._context, found))

    async def history(
        self, agent_id: UUID, start: datetime | None, stop: datetime | None, limit: int | None
    ) -> AsyncIterator[Revision]:
        """Accepted changes of an agent in [start, stop), oldest first, read page by page."""
        h = agent_history.c
        after = start
        inclusive, left = True, limit
        while left is None or left > 0:
            size = HISTORY_PAGE if left is None else min(HISTORY_PAGE, left)
            query = sa.select(h.recorded_at, h.version, h.revision, h.belief_state, h.free_energy, h.belief_entropy)
            query = query.where(h.tenant_id == self._context.tenant_id, h.agent_id == agent_id, h.version.is_not(None))
            if after is not None:
                query = query.where(h.recorded_at >= after if inclusive else h.recorded_at > after)
            if stop is not None:
                query = query.where(h.recorded_at < stop)
            async with self._context.database.read(self._context.tenant_id) as connection:
                rows = (await connection.execute(query.order_by(h.recorded_at).limit(size))).all()
            if rows:
                self._context.floors.saw(self._context.tenant_id, agent_id, rows[-1].version)
            for revision in await self._revisions(agent_id, rows):
                yield revision
            if len(rows) < size:
                return
            after, inclusive = rows[-1].recorded_at, False
            left = None if left is None else left - len(rows)

    async def _revisions(self, agent_id: UUID, rows: Sequence[Any]) -> list[Revision]:
        revisions = [UUID(int=row.revision.int) for row in rows]
        ids, envelopes = [agent_id] * len(rows), [row.belief_state for row in rows]
        opening = self._context.sealer.open_many
        payloads = await opening(self._context.tenant_id, Kind.BELIEFS, ids, revisions, envelopes)
        return [
            Revision(
                agent_id=agent_id,
                revision=revision,
                version=row.version,
                recorded_at=row.recorded_at,
                free_energy=row.free_energy,
                entropy=row.belief_entropy,
                beliefs=None if payload is None else Beliefs.from_bytes(payload),
            )
            for row, revision, payload in zip(rows, revisions, payloads, strict=True)
        ]

    async def _stored(self, statement: str, ids: Sequence[UUID], *more: Any) -> list[Any]:
        rows: list[Any] = []
        tenant_id = self._context.tenant_id
        async with self._context.database.read(tenant_id) as connection:
            driver = await driver_of(connection)
            for start in range(0, len(ids), IDS_PER_QUERY):
                rows += await driver.fetch(statement, tenant_id, ids[start : start + IDS_PER_QUERY], *more)
        return rows
