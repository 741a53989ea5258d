"""Reads of many agents: by id, filtered and paged, by place, and the nearest ones."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate, chain
from typing import Any
from uuid import UUID

import numpy as np

from freeagentics_persistence.database.context import TenantContext
from freeagentics_persistence.database.engine import driver_of
from freeagentics_persistence.database.reads.parts import in_parts
from freeagentics_persistence.database.reads.shared_reads import SharedReads
from freeagentics_persistence.database.repositories.agent_rows import (
    WITH_BELIEFS,
    WITHOUT_BELIEFS,
    agents_of_rows,
    cell_of,
)
from freeagentics_persistence.database.repositories.resolutions import Resolutions
from freeagentics_persistence.domain.agents import Agent, AgentStatus
from freeagentics_persistence.domain.cursors import LOWEST_ID, Pages, Position
from freeagentics_persistence.domain.identifiers import uuids_of_bytes
from freeagentics_persistence.domain.locations import disk, rings
from freeagentics_persistence.domain.results import AgentPlaces, Page
from freeagentics_persistence.errors import PersistenceError
from freeagentics_persistence.ports.sealing import require_opened

BY_ID = f"SELECT {WITH_BELIEFS} FROM read_agents($1, $2)"  # noqa: S608 - of constants; enters the tenant itself
# active ones, the nearest first; enters the tenant itself
BY_DISTANCE = f"SELECT {WITH_BELIEFS}, distance FROM find_agents($1, $2, $3, $4, $5, $6, $7, $8, $9)"  # noqa: S608
# the same order, as one row of long strings; enters the tenant itself
PLACES = "SELECT * FROM find_places($1, $2, $3, $4, $5, $6, $7, $8)"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFilter:
    """Which agents are listed; None: all. ``location`` with all cells at most ``radius`` grid steps from it."""

    agent_type: str | None = None
    status: AgentStatus | None = None
    active_since: datetime | None = None
    location: str | None = None
    radius: int = 0

    def key(self) -> tuple[object, ...]:
        """What the query is, for its cursors."""
        since = None if self.active_since is None else self.active_since.astimezone(UTC)
        return (self.agent_type, self.status, since, self.location, self.radius if self.location else 0)


class AgentFinder:
    """Reads for one tenant. PostgreSQL answers, as only it knows all agents."""

    def __init__(self, context: TenantContext) -> None:
        self._context = context
        self._tenant = context.tenant_id
        self._resolutions = Resolutions(context)
        self._single: SharedReads[UUID, Agent | None] = SharedReads(self._by_ids, limit=context.limits.read_queue)

    def by_id(self, agent_id: UUID) -> Awaitable[Agent | None]:
        """One agent; calls that wait at the same time share their statement."""
        return self._single.get(agent_id)

    async def by_ids(self, ids: Sequence[UUID]) -> list[Agent]:
        """The agents that exist of these, in no order. Raises the first error of one that does not open."""
        wanted = list(dict.fromkeys(ids))
        parts = await in_parts(wanted, self._context.limits.batch_connections, self._by_ids)
        return [agent for agent in map(require_opened, chain.from_iterable(parts)) if agent is not None]

    async def close(self) -> None:
        """End the single reads that wait, and take no more."""
        await self._single.close()

    async def filtered(self, wanted: AgentFilter, *, limit: int, after: str | None, with_beliefs: bool) -> Page[Agent]:
        """A page of agents in the order of their ids."""
        pages = Pages("list_agents", self._tenant, *wanted.key())
        statement, arguments = _filtered(self._tenant, wanted, pages.position(after), limit + 1, with_beliefs)
        async with self._context.database.read(self._tenant) as connection:
            rows = await (await driver_of(connection)).fetch(statement, *arguments)
        if not rows and after is None and wanted.location is not None:
            await self._resolutions.require(wanted.location)
        found = await self._agents(rows[:limit])
        return Page(found, pages.cursor(Position(found[-1].id)) if len(rows) > limit else None)

    async def by_distance(
        self, location: str, radius: int, *, limit: int, after: str | None, with_beliefs: bool
    ) -> Page[Agent]:
        """A page of active agents, the nearest first, those at the same distance by id."""
        pages = self._pages_by_distance(location, radius)
        rows = await self._by_distance(location, radius, pages.position(after), limit + 1, with_beliefs)
        found = await self._agents(rows[:limit])
        if len(rows) <= limit:
            return Page(found)
        return Page(found, pages.cursor(Position(found[-1].id, rows[limit - 1]["distance"])))

    async def places(self, location: str, radius: int, *, limit: int, after: str | None) -> AgentPlaces:
        """The same page with nothing but ids, cells and distances."""
        pages = self._pages_by_distance(location, radius)
        arguments = _around(location, radius, pages.position(after), limit + 1)
        (row,) = await self._context.database.fetch(PLACES, self._tenant, *arguments)
        if row["ids"] is None:
            if after is None:
                await self._resolutions.require(location)
            return AgentPlaces([], [], np.empty(0, dtype=np.int32))
        ids = uuids_of_bytes(row["ids"])
        cells = [cell_of(cell) for cell in np.frombuffer(row["places"], dtype=">i8").tolist()]
        distances = np.frombuffer(row["distances"], dtype=">i4").astype(np.int32)
        if len(ids) <= limit:
            return AgentPlaces(ids, cells, distances)
        cursor = pages.cursor(Position(ids[limit - 1], int(distances[limit - 1])))
        return AgentPlaces(ids[:limit], cells[:limit], distances[:limit], cursor)

    async def nearest(self, location: str, count: int, radius: int, *, with_beliefs: bool) -> list[Agent]:
        """The ``count`` active agents nearest to a cell, at most ``radius`` grid steps away."""
        return await self._agents(await self._by_distance(location, radius, None, count, with_beliefs))

    def _pages_by_distance(self, location: str, radius: int) -> Pages:
        return Pages("by_distance", self._tenant, location, radius)

    async def _by_distance(
        self, location: str, radius: int, after: Position | None, limit: int, with_beliefs: bool
    ) -> list[Any]:
        around = _around(location, radius, after, limit)
        rows = await self._context.database.fetch(BY_DISTANCE, self._tenant, *around, with_beliefs)
        if not rows and after is None:
            await self._resolutions.require(location)
        return rows

    async def _by_ids(self, ids: Sequence[UUID]) -> list[Agent | PersistenceError | None]:
        """The agent of each of distinct ids, None where there is none, and an error where its beliefs do not open."""
        rows = await self._context.database.fetch(BY_ID, self._tenant, ids)
        asked = {agent_id.bytes: agent_id for agent_id in ids}
        found = [row[0] for row in rows]
        opened = await agents_of_rows(self._context, [asked[packed] for packed in found], rows)
        return list(map(dict(zip(found, opened, strict=True)).get, asked))

    async def _agents(self, rows: Sequence[Any]) -> list[Agent]:
        ids = uuids_of_bytes(b"".join([row[0] for row in rows]))
        return list(map(require_opened, await agents_of_rows(self._context, ids, rows)))


def _around(location: str, radius: int, after: Position | None, limit: int) -> tuple[Any, ...]:
    """The cells ring by ring, each ring's distance, first and last cell (from 1), where to go on, and how many."""
    nearest = 0 if after is None else after.distance
    around = rings(location, radius)[nearest:]
    lasts = list(accumulate(len(ring) for ring in around))
    firsts = [1, *(last + 1 for last in lasts[:-1])]
    cells, distances = [cell for ring in around for cell in ring], list(range(nearest, nearest + len(around)))
    return (cells, distances, firsts, lasts, *((-1, LOWEST_ID) if after is None else (after.distance, after.id)), limit)


def _filtered(
    tenant_id: UUID, wanted: AgentFilter, after: Position | None, limit: int, with_beliefs: bool
) -> tuple[str, list[Any]]:
    """The statement and its arguments. The status is written out, as partial indexes need to see it."""
    arguments: list[Any] = [tenant_id]
    conditions = ["tenant_id = $1"]

    def narrow(condition: str, value: object) -> None:
        arguments.append(value)
        conditions.append(condition.format(f"${len(arguments)}"))

    if after is not None:
        narrow("id > {}", after.id)
    if wanted.agent_type is not None:
        narrow("agent_type = {}", wanted.agent_type)
    if wanted.status is not None:
        conditions.append(f"status = '{wanted.status.value}'")
    if wanted.active_since is not None:
        narrow("last_active_at >= {}", wanted.active_since)
    if wanted.location is not None:
        narrow("location_h3 = ANY ({}::bigint[])", disk(wanted.location, wanted.radius))
    arguments.append(limit)
    columns = WITH_BELIEFS if with_beliefs else WITHOUT_BELIEFS
    where = " AND ".join(conditions)
    return f"SELECT {columns} FROM agents WHERE {where} ORDER BY id LIMIT ${len(arguments)}", arguments  # noqa: S608
