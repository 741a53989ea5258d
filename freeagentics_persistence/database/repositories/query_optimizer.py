"""QueryOptimizer: what a whole swarm needs at once, by the fastest way there is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from datetime import UTC, datetime
from types import SimpleNamespace
from uuid import UUID

from freeagentics_persistence.database.context import TenantContext
from freeagentics_persistence.database.repositories.agent_arguments import MAX_BATCH
from freeagentics_persistence.database.repositories.coalition_rows import coalition_of_row
from freeagentics_persistence.database.repositories.resolutions import Resolutions
from freeagentics_persistence.database.writes.agent_loader import AgentLoader, OnConflict
from freeagentics_persistence.database.writes.revisions import CLOCK_TOLERANCE, ahead_of_clock, require_revision
from freeagentics_persistence.domain.agents import Agent, as_status
from freeagentics_persistence.domain.beliefs.batch import BeliefBatch
from freeagentics_persistence.domain.coalitions import IN_BUSINESS, Coalition, CoalitionStatus
from freeagentics_persistence.domain.cursors import LOWEST_ID, MAX_PAGE, Pages, Position
from freeagentics_persistence.domain.identifiers import new_revision, revision_time
from freeagentics_persistence.domain.locations import MAX_RADIUS, disk, require_cell
from freeagentics_persistence.domain.results import BatchResult, LoadProgress, Page
from freeagentics_persistence.domain.validation import require_int, require_text
from freeagentics_persistence.errors import InvalidInput, RevisionExpired

COALITIONS = "SELECT * FROM find_coalitions($1, $2, $3, $4, $5, $6, $7)"


class QueryOptimizer:
    """Loads and queries of one tenant that are made for size."""

    def __init__(self, context: TenantContext) -> None:
        self._context = context
        self._tenant = context.tenant_id
        self._resolutions = Resolutions(context)

    async def bulk_load_agents(
        self,
        agents: Iterable[Agent],
        *,
        beliefs: BeliefBatch | None = None,
        on_conflict: OnConflict = "error",
        revision: UUID | None = None,
        progress: Callable[[LoadProgress], None] | None = None,
    ) -> BatchResult:
        """Store many new agents, each with history and event; what became of each, in their order.

        ``agents`` may be a generator: a few thousand at a time are in memory, and some 300 bytes of result for each.
        ``beliefs``, row i for the i-th agent, takes the place of the agents' own. Where an agent exists, ``error`` and
        ``skip`` leave it and ``update`` replaces it, as save_agents() does. Rows that cannot be stored fail alone.

        ``revision`` is a UUIDv7 that names the load. Called again with it, after a crash too and for as long as
        revisions are remembered, the load goes on: what it stored before has the status REPEATED and is not stored
        again. ``progress`` is called after every few thousand rows. Loaded agents come into the cache when they are
        first read.

        Raises InvalidInput, RevisionExpired, and OutcomeUnknown where part is stored: its ``revisions[0]`` goes on.
        """
        if on_conflict not in ("error", "update", "skip"):
            raise InvalidInput("on_conflict", f"{on_conflict!r} is unknown", "Use error, update or skip.")
        if isinstance(agents, str | bytes) or not isinstance(agents, Iterable):
            raise InvalidInput("agents", f"is a {type(agents).__name__}", "Pass agents in a list or from a generator.")
        if beliefs is not None and not isinstance(beliefs, BeliefBatch):
            raise InvalidInput("beliefs", f"is a {type(beliefs).__name__}", "Pass a BeliefBatch.")
        total = len(agents) if isinstance(agents, Sized) else None
        if total is not None and total > MAX_BATCH:
            raise InvalidInput("agents", f"are {total:,}", f"Pass at most {MAX_BATCH:,} in one call.")
        if total is not None and beliefs is not None and len(beliefs) != total:
            raise InvalidInput("beliefs", f"have {len(beliefs):,} rows for {total:,} agents", "Pass one for each.")
        if progress is not None and not callable(progress):
            raise InvalidInput("progress", f"is a {type(progress).__name__}", "Pass a function, or None.")
        own = new_revision() if revision is None else self._remembered(require_revision("revision", revision))
        return await AgentLoader(self._context, own, on_conflict).run(agents, beliefs, total, progress)

    async def efficient_coalition_query(
        self,
        location: str,
        business_model: str,
        *,
        radius: int = 2,
        min_members: int = 2,
        status: CoalitionStatus | str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> Page[Coalition]:
        """Coalitions of a business model with at least ``min_members`` active members near a place, by id, in pages.

        Near is at most ``radius`` grid steps from the H3 cell ``location``; of cells of other resolutions see
        AgentRepository.get_agents_by_location. ``status`` None: those in business, active or profitable.
        """
        cell = require_cell("location", location)
        require_text("business_model", business_model, limit=100)
        require_int("radius", radius, low=0, high=MAX_RADIUS)
        require_int("min_members", min_members, low=1, high=2**31 - 1)
        require_int("limit", limit, low=1, high=MAX_PAGE)
        wanted = IN_BUSINESS if status is None else (as_status(CoalitionStatus, status),)
        pages = Pages("coalitions", self._tenant, cell, business_model, radius, min_members, wanted)
        position = pages.position(after)
        rows = await self._context.database.fetch(
            COALITIONS,
            self._tenant,
            disk(cell, radius),
            business_model,
            [each.value for each in wanted],
            min_members,
            LOWEST_ID if position is None else position.id,
            limit + 1,
        )
        if not rows and position is None:
            await self._resolutions.require(cell)
        found = [coalition_of_row(SimpleNamespace(**row)) for row in rows[:limit]]
        return Page(found, pages.cursor(Position(found[-1].id)) if len(rows) > limit else None)

    def _remembered(self, revision: UUID) -> UUID:
        """The revision of a load that may be repeated. Raises InvalidInput, RevisionExpired."""
        made, now = revision_time(revision), datetime.now(UTC) + self._context.database.clock_offset
        if made < now - self._context.limits.revision_memory:
            raise RevisionExpired(
                f"revision {revision} is too old for what it stored to be recognised. Load what is missing with a new "
                "revision and on_conflict='skip'."
            )
        if made > now + CLOCK_TOLERANCE:
            raise ahead_of_clock("revision", revision)
        return revision
