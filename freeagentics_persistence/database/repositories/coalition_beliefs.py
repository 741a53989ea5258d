"""The beliefs of a coalition's members, all of one moment: one statement reads them, at once or bit by bit."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any
from uuid import UUID

from freeagentics_persistence.database.context import TenantContext
from freeagentics_persistence.database.engine import driver_of
from freeagentics_persistence.database.repositories.beliefs import BeliefReader
from freeagentics_persistence.database.repositories.coalition_rows import load
from freeagentics_persistence.domain.beliefs.batch import BeliefBatch

BELIEFS = """
SELECT uuid_send(a.id) AS id, a.version, uuid_send(a.revision) AS revision, a.belief_state
FROM coalition_members m JOIN agents a ON a.tenant_id = m.tenant_id AND a.id = m.agent_id
WHERE m.tenant_id = $1 AND m.coalition_id = $2
ORDER BY m.agent_id
"""


class CoalitionBeliefs:
    """Reads for one tenant. Raises UnknownCoalition."""

    def __init__(self, context: TenantContext) -> None:
        self._context = context
        self._tenant = context.tenant_id
        self._reader = BeliefReader(context)

    async def read(self, coalition_id: UUID) -> BeliefBatch:
        """All of them, by agent id."""
        async with self._context.database.read(self._tenant) as connection:
            await load(connection, self._tenant, coalition_id)
            rows = await (await driver_of(connection)).fetch(BELIEFS, self._tenant, coalition_id)
        return await self._batch(rows)

    async def pages(self, coalition_id: UUID, size: int) -> AsyncGenerator[BeliefBatch, None]:
        """Batches of so many, by agent id; a cursor keeps the moment, and a connection, until the last is taken."""
        async with self._context.database.read(self._tenant) as connection:
            await load(connection, self._tenant, coalition_id)
            cursor = await (await driver_of(connection)).cursor(BELIEFS, self._tenant, coalition_id)
            while rows := await cursor.fetch(size):
                yield await self._batch(rows)

    async def _batch(self, rows: Sequence[Any]) -> BeliefBatch:
        return await self._reader.batch_of_rows([UUID(bytes=row["id"]) for row in rows], rows)
