"""AgentRepository: agents, their beliefs, and where they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import numpy as np
import numpy.typing as npt

from freeagentics_persistence.database.context import TenantContext
from freeagentics_persistence.database.reads.current_beliefs import CurrentBeliefs
from freeagentics_persistence.database.repositories import agent_deletion
from freeagentics_persistence.database.repositories.agent_arguments import (
    require_agent,
    require_column,
    require_counted,
    require_distinct,
    require_ids,
    require_revisions,
    require_version,
    require_versions,
)
from freeagentics_persistence.database.repositories.agent_queries import AgentFilter, AgentFinder
from freeagentics_persistence.database.repositories.beliefs import BeliefReader
from freeagentics_persistence.database.writes.agent_writer import AgentWriter
from freeagentics_persistence.database.writes.belief_rows import BeliefWrite
from freeagentics_persistence.database.writes.belief_writer import BeliefWriter
from freeagentics_persistence.database.writes.group_commit import GroupCommit
from freeagentics_persistence.database.writes.revisions import revision_or_new
from freeagentics_persistence.domain.agents import Agent, AgentStatus, as_status
from freeagentics_persistence.domain.beliefs.batch import BeliefBatch, as_batch
from freeagentics_persistence.domain.beliefs.beliefs import Beliefs, BeliefsLike
from freeagentics_persistence.domain.beliefs.input import as_row
from freeagentics_persistence.domain.consistency import Level, consistency_of
from freeagentics_persistence.domain.cursors import MAX_PAGE
from freeagentics_persistence.domain.identifiers import new_revisions
from freeagentics_persistence.domain.locations import MAX_RADIUS, require_cell
from freeagentics_persistence.domain.results import AgentPlaces, BatchResult, Page, Revision
from freeagentics_persistence.domain.validation import (
    require_aware,
    require_finite,
    require_int,
    require_text,
    require_uuid,
)
from freeagentics_persistence.errors import InvalidInput


class AgentRepository:
    """Agents of one tenant. Every method raises UnknownTenant, and errors.Unavailable where a server is away."""

    def __init__(self, context: TenantContext) -> None:
        self._context = context
        self._agents = AgentWriter(context)
        self._beliefs = BeliefWriter(context)
        self._current = CurrentBeliefs(context)
        self._reader = BeliefReader(context)
        self._finder = AgentFinder(context)
        self._group = GroupCommit(self._beliefs, queue_limit=context.limits.write_queue)

    async def save_agent(self, agent: Agent, *, expected_version: int | None = None) -> Agent:
        """Insert or update the whole agent; the agent as stored, with version and times.

        ``expected_version`` 0 demands that it is new, n that it is at that version; ConcurrentUpdate otherwise.
        """
        require_agent("agent", agent)
        expected = require_version("expected_version", expected_version)
        result, stored = await self._agents.save([agent], [expected], may_update=True)
        result.raise_for_conflicts()
        return stored[0]

    async def save_agents(
        self, agents: Sequence[Agent], *, on_conflict: Literal["error", "update", "skip"] = "error"
    ) -> BatchResult:
        """Save many agents. Where one exists: ``error`` and ``skip`` leave it (status EXISTS), ``update`` replaces it.

        ``error`` differs from ``skip`` in that it raises AlreadyExists on the result's raise_for_conflicts();
        with ``skip`` such rows count as stored.
        """
        if on_conflict not in ("error", "update", "skip"):
            raise InvalidInput("on_conflict", f"{on_conflict!r} is unknown", "Use error, update or skip.")
        agents = require_counted("agents", agents)
        for i, agent in enumerate(agents):
            require_agent(f"agents[{i}]", agent)
        require_distinct("agents", [agent.id for agent in agents])
        result, _ = await self._agents.save(agents, [None] * len(agents), may_update=on_conflict == "update")
        return result.with_existing_accepted() if on_conflict == "skip" else result

    async def get_agent(
        self, agent_id: UUID, *, consistency: Level = "session", max_staleness: timedelta | None = None
    ) -> Agent | None:
        """The agent, or None. Raises EnvelopeRejected, KeyUnavailable where its beliefs do not open."""
        consistency_of(consistency, max_staleness)
        return await self._finder.by_id(require_uuid("agent_id", agent_id))

    async def get_agents(
        self, ids: Sequence[UUID], *, consistency: Level = "session", max_staleness: timedelta | None = None
    ) -> dict[UUID, Agent]:
        """The agents that exist, by id. PostgreSQL answers at every level: whole agents are not cached."""
        consistency_of(consistency, max_staleness)
        wanted = require_ids(ids)
        return {agent.id: agent for agent in await self._finder.by_ids(wanted)} if wanted else {}

    async def list_agents(
        self,
        *,
        agent_type: str | None = None,
        status: AgentStatus | str | None = None,
        active_since: datetime | None = None,
        location: str | None = None,
        radius: int | None = None,
        limit: int = 1000,
        after: str | None = None,
        with_beliefs: bool = False,
    ) -> Page[Agent]:
        """Agents that fit all that is asked for, by id, in pages.

        ``active_since``: last active then or later (kept to the minute); ``location`` with ``radius`` (0 where None):
        at most so many grid steps from an H3 cell. An agent that fits all the while is on exactly one page, whatever
        happens to others; one that comes, goes or changes meanwhile is on one page or none.
        """
        if location is None and radius is not None:
            raise InvalidInput("radius", "needs a location", "Pass the H3 cell that it is around.")
        wanted = AgentFilter(
            agent_type=None if agent_type is None else require_text("agent_type", agent_type, limit=50),
            status=None if status is None else as_status(AgentStatus, status),
            active_since=None if active_since is None else require_aware("active_since", active_since),
            location=None if location is None else require_cell("location", location),
            radius=require_int("radius", 0 if radius is None else radius, low=0, high=MAX_RADIUS),
        )
        require_int("limit", limit, low=1, high=MAX_PAGE)
        return await self._finder.filtered(wanted, limit=limit, after=after, with_beliefs=with_beliefs)

    async def delete_agent(self, agent_id: UUID) -> bool:
        """Delete the agent and its memberships; whether it existed. Its history stays until its retention ends."""
        return await agent_deletion.delete_agent(self._context, require_uuid("agent_id", agent_id))

    async def get_agents_by_location(
        self,
        location: str,
        radius: int = 3,
        *,
        with_beliefs: bool = True,
        limit: int = 1000,
        after: str | None = None,
    ) -> Page[Agent]:
        """Active agents at most ``radius`` grid steps from an H3 cell, the nearest first, then by id.

        Agents in cells of another resolution are not found; where there are no others, that is an InvalidInput.
        """
        cell = require_cell("location", location)
        require_int("radius", radius, low=0, high=MAX_RADIUS)
        require_int("limit", limit, low=1, high=MAX_PAGE)
        return await self._finder.by_distance(cell, radius, limit=limit, after=after, with_beliefs=with_beliefs)

    async def get_places_by_location(
        self, location: str, radius: int = 3, *, limit: int = MAX_PAGE, after: str | None = None
    ) -> AgentPlaces:
        """The same agents with nothing but id, cell and distance: several times faster."""
        cell = require_cell("location", location)
        require_int("radius", radius, low=0, high=MAX_RADIUS)
        require_int("limit", limit, low=1, high=MAX_PAGE)
        return await self._finder.places(cell, radius, limit=limit, after=after)

    async def get_nearest_agents(
        self, location: str, k: int = 10, *, max_radius: int = MAX_RADIUS, with_beliefs: bool = True
    ) -> list[Agent]:
        """The ``k`` active agents nearest to an H3 cell, the nearest first, then by id; fewer where there are fewer.

        Looks no further than ``max_radius`` grid steps. Of cells of other resolutions see get_agents_by_location.
        """
        cell = require_cell("location", location)
        require_int("k", k, low=1, high=MAX_PAGE)
        require_int("max_radius", max_radius, low=0, high=MAX_RADIUS)
        return await self._finder.nearest(cell, k, max_radius, with_beliefs=with_beliefs)

    async def update_beliefs(
        self,
        agent_id: UUID,
        beliefs: BeliefsLike,
        *,
        free_energy: float | None = None,
        expected_version: int | None = None,
        revision: UUID | None = None,
    ) -> Revision:
        """Replace an agent's beliefs; returns when that is durable. ``free_energy`` in nats.

        The last writer wins, unless ``expected_version`` demands a version (ConcurrentUpdate). ``revision`` is a
        UUIDv7 that makes a retry safe: it is applied once. Raises InvalidInput, UnknownAgent, RevisionExpired,
        OutcomeUnknown (retry with ``error.revisions``), Overloaded.
        """
        expected = require_version("expected_version", expected_version)
        free = None if free_energy is None else require_finite("free_energy", free_energy)
        own = revision_or_new(revision)
        return await self._group.update(require_uuid("agent_id", agent_id), as_row(beliefs), free, expected, own)

    async def update_beliefs_many(
        self,
        ids: Sequence[UUID],
        beliefs: BeliefBatch | npt.NDArray[Any] | Sequence[npt.NDArray[Any]],
        *,
        free_energy: npt.ArrayLike | None = None,
        expected_versions: npt.ArrayLike | None = None,
        revisions: Sequence[UUID] | None = None,
        atomic: bool = False,
    ) -> BatchResult:
        """Replace the beliefs of many agents: a whole swarm's step in one call.

        Row i of ``beliefs`` is agent ``ids[i]``'s; ``free_energy`` (N,) in nats with NaN for none,
        ``expected_versions`` (N,) with -1 for any version. Each row stands for itself: look at the result, or call its
        raise_for_conflicts(). With ``atomic`` all rows are written or none. Raises InvalidInput where the arrays do
        not fit one another, and OutcomeUnknown where only part is known to be stored: repeat the whole call with
        ``revisions=error.revisions``, and each row is applied once.
        """
        wanted = require_ids(ids)
        batch = as_batch(beliefs)
        count = len(wanted)
        if len(batch) != count:
            raise InvalidInput("beliefs", f"have {len(batch)} rows for {count} ids", "Pass one row for each id.")
        own = new_revisions(count) if revisions is None else require_revisions(revisions, count)
        write = BeliefWrite(
            ids=wanted,
            beliefs=batch,
            free_energy=require_column("free_energy", free_energy, count, np.dtype(np.float64), np.nan),
            expected=None if expected_versions is None else require_versions(expected_versions, count),
            revisions=own,
        )
        if atomic:
            return await self._beliefs.write_atomic(write)
        return await self._beliefs.write(write)

    async def get_beliefs(
        self, agent_id: UUID, *, consistency: Level = "session", max_staleness: timedelta | None = None
    ) -> Beliefs | None:
        """The agent's beliefs; None where it does not exist or has none."""
        return await self._current.get(require_uuid("agent_id", agent_id), consistency_of(consistency, max_staleness))

    async def get_beliefs_many(
        self, ids: Sequence[UUID], *, consistency: Level = "session", max_staleness: timedelta | None = None
    ) -> BeliefBatch:
        """The beliefs of agents in the order of ``ids``; ``present`` is False for unknown agents."""
        return await self._current.read(require_ids(ids), consistency_of(consistency, max_staleness))

    async def get_beliefs_at(self, ids: Sequence[UUID], at: datetime) -> BeliefBatch:
        """The beliefs of agents as of a moment; ``present`` is False where an agent did not exist then.

        Before an agent's last change that is the last version that history keeps, see HistoryPolicy.
        """
        return await self._reader.read_at(require_ids(ids), require_aware("at", at))

    def get_belief_history(
        self,
        agent_id: UUID,
        *,
        start: datetime | None = None,
        stop: datetime | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Revision]:
        """Changes of an agent that history keeps in [start, stop), oldest first, with beliefs, read page by page."""
        if start is not None:
            require_aware("start", start)
        if stop is not None:
            require_aware("stop", stop)
        if limit is not None:
            require_int("limit", limit, low=1, high=2**31)
        return self._reader.history(require_uuid("agent_id", agent_id), start, stop, limit)

    async def close(self) -> None:
        """Write what was accepted, end single reads that wait, and accept no more of either."""
        await asyncio.gather(self._group.close(), self._current.close(), self._finder.close())
