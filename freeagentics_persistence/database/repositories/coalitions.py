"""CoalitionRepository: coalitions, members, and what they earn."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import sqlalchemy as sa

from freeagentics_persistence.database.context import TenantContext
from freeagentics_persistence.database.driver_errors import constraint_of
from freeagentics_persistence.database.engine import HARMLESS, SAVED_AGAIN
from freeagentics_persistence.database.models import coalitions as table
from freeagentics_persistence.database.repositories import member_rows
from freeagentics_persistence.database.repositories.agent_arguments import require_version
from freeagentics_persistence.database.repositories.coalition_beliefs import CoalitionBeliefs
from freeagentics_persistence.database.repositories.coalition_rows import (
    coalition_of_row,
    insert_new,
    load,
    lock,
    lock_any,
    require_not_dissolved,
    select,
    status_after,
)
from freeagentics_persistence.database.writes.coalition_changes import change_coalition, record_change
from freeagentics_persistence.database.writes.revisions import revision_or_new, was_recorded
from freeagentics_persistence.domain.agents import as_status
from freeagentics_persistence.domain.beliefs.batch import BeliefBatch
from freeagentics_persistence.domain.coalitions import IN_BUSINESS, Coalition, CoalitionStatus, Member, next_status
from freeagentics_persistence.domain.cursors import MAX_PAGE, Pages, Position
from freeagentics_persistence.domain.events import EventType
from freeagentics_persistence.domain.identifiers import new_revision
from freeagentics_persistence.domain.results import Page
from freeagentics_persistence.domain.validation import (
    add_money,
    require_finite,
    require_int,
    require_money,
    require_text,
    require_uuid,
)
from freeagentics_persistence.errors import InvalidInput, PersistenceError, UnknownAgent
from freeagentics_persistence.ports.cache import Membership

NOTHING = Decimal("0.00")
_DISSOLVED = "Repeat the call: CoalitionDissolved then means that it is done."


class CoalitionRepository:
    """Coalitions of one tenant. Every change is a version, with its performance and its event.

    A dissolved coalition takes no more changes (CoalitionDissolved). See domain.coalitions.next_status of the others.
    """

    def __init__(self, context: TenantContext) -> None:
        self._context = context
        self._tenant = context.tenant_id
        self._beliefs = CoalitionBeliefs(context)

    async def save_coalition(self, coalition: Coalition, *, expected_version: int | None = None) -> Coalition:
        """Insert or update a coalition; as stored. ``total_revenue`` is kept by record_revenue.

        ``current_capital`` is stored as given, so name the version that you read: ``expected_version`` 0 demands that
        it is new, n that it is at that version; ConcurrentUpdate otherwise. A new coalition is forming. Raises
        InvalidTransition where its status cannot become what is given; of active and profitable, the money decides.
        """
        if not isinstance(coalition, Coalition):
            raise InvalidInput("coalition", f"is a {type(coalition).__name__}", "Pass a Coalition.")
        if coalition.status is CoalitionStatus.DISSOLVED:
            raise InvalidInput("status", "is dissolved", "Use dissolve_coalition().")
        expected = require_version("expected_version", expected_version)
        values = {
            "name": coalition.name,
            "business_model": coalition.business_model,
            "formation_criteria": dict(coalition.formation_criteria),
            "business_config": dict(coalition.business_config),
            "initial_capital": coalition.initial_capital,
            "current_capital": coalition.current_capital,
        }
        tenant, own, revision, event = self._tenant, coalition.id, new_revision(), EventType.COALITION_SAVED
        async with self._context.change(if_unknown=SAVED_AGAIN) as connection:
            row = None if expected else await insert_new(connection, tenant, own, values, revision)
            if row is not None:
                next_status(own, None, coalition.status, members=0, initial_capital=NOTHING, total_revenue=NOTHING)
                await record_change(connection, row, event, members=0)
            else:
                before = await lock(connection, tenant, own, expected)
                status = await status_after(
                    connection, before, coalition.status, initial_capital=coalition.initial_capital
                )
                row = await change_coalition(
                    connection, tenant, own, event, revision, changes={**values, "status": status}
                )
        return self._written(row)

    async def activate_coalition(self, coalition_id: UUID) -> Coalition:
        """Take a forming coalition into business; as stored, and unchanged where it is in business already.

        Raises InvalidTransition where it has fewer than two members, UnknownCoalition, CoalitionDissolved.
        """
        own, revision = require_uuid("coalition_id", coalition_id), new_revision()
        async with self._context.change(if_unknown=HARMLESS) as connection:
            row = await lock(connection, self._tenant, own)
            if row.status not in IN_BUSINESS:
                status = await status_after(connection, row, CoalitionStatus.ACTIVE)
                row = await change_coalition(
                    connection, self._tenant, own, EventType.COALITION_SAVED, revision, changes={"status": status}
                )
        return self._written(row)

    async def get_coalition(self, coalition_id: UUID) -> Coalition | None:
        """The coalition, or None."""
        own = require_uuid("coalition_id", coalition_id)
        async with self._context.database.read(self._tenant) as connection:
            row = (await connection.execute(select(self._tenant, own))).first()
        return None if row is None else coalition_of_row(row)

    async def list_coalitions(
        self,
        *,
        business_model: str | None = None,
        status: CoalitionStatus | str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> Page[Coalition]:
        """Coalitions by id, in pages."""
        require_int("limit", limit, low=1, high=MAX_PAGE)
        query = sa.select(table).where(table.c.tenant_id == self._tenant)
        if business_model is not None:
            query = query.where(table.c.business_model == require_text("business_model", business_model, limit=100))
        if status is not None:
            status = as_status(CoalitionStatus, status)
            query = query.where(table.c.status == status.value)
        pages = Pages("list_coalitions", self._tenant, business_model, status)
        position = pages.position(after)
        if position is not None:
            query = query.where(table.c.id > position.id)
        async with self._context.database.read(self._tenant) as connection:
            rows = (await connection.execute(query.order_by(table.c.id).limit(limit + 1))).all()
        found = [coalition_of_row(row) for row in rows[:limit]]
        return Page(found, pages.cursor(Position(found[-1].id)) if len(rows) > limit else None)

    async def add_members(self, coalition_id: UUID, ids: Sequence[UUID], *, role: str = "member") -> int:
        """Add agents, or change the role of those that are members; how many are new.

        A coalition has at most 100,000 members; WriteRefused beyond. Raises UnknownAgent.
        """
        wanted, own = member_rows.distinct_ids(ids), require_uuid("coalition_id", coalition_id)
        statement = member_rows.joining(self._tenant, own, wanted, require_text("role", role, limit=50))
        try:
            return await self._change_members(own, statement, "added", wanted)
        except PersistenceError as error:
            if error.__cause__ is not None and constraint_of(error.__cause__) == "coalition_members_agent_fkey":
                async with self._context.database.read(self._tenant) as connection:
                    unknown = await member_rows.first_unknown(connection, self._tenant, wanted)
                raise UnknownAgent(unknown) from error
            raise

    async def remove_members(self, coalition_id: UUID, ids: Sequence[UUID]) -> int:
        """Remove agents; how many were members."""
        wanted, own = member_rows.distinct_ids(ids), require_uuid("coalition_id", coalition_id)
        statement = member_rows.leaving(self._tenant, own, wanted)
        return await self._change_members(own, statement, "removed", wanted)

    async def get_members(self, coalition_id: UUID, *, limit: int = 1000, after: str | None = None) -> Page[Member]:
        """Members by agent id, in pages. Raises UnknownCoalition."""
        own = require_uuid("coalition_id", coalition_id)
        require_int("limit", limit, low=1, high=MAX_PAGE)
        pages = Pages("members", self._tenant, own)
        start = pages.position(after)
        async with self._context.database.read(self._tenant) as connection:
            found = await member_rows.page(connection, self._tenant, own, limit=limit + 1, after=start)
            if not found:
                await load(connection, self._tenant, own)
        last = Position(found[limit - 1].agent_id) if len(found) > limit else None
        return Page(found[:limit], None if last is None else pages.cursor(last))

    async def update_contributions(self, coalition_id: UUID, scores: Mapping[UUID, Decimal | int]) -> None:
        """Set the contribution scores of members, 0 to 999.99, by agent id; the others keep theirs.

        Raises UnknownMember where one is no member (nothing is written then), UnknownCoalition, CoalitionDissolved.
        """
        own, wanted = require_uuid("coalition_id", coalition_id), member_rows.checked_scores(scores)
        async with self._context.change(if_unknown=HARMLESS) as connection:
            await lock(connection, self._tenant, own)
            await member_rows.score(connection, self._tenant, own, wanted)
            await change_coalition(connection, self._tenant, own, EventType.COALITION_MEASURED, new_revision())
        self._context.wake()

    async def rank_members(self, coalition_id: UUID, *, limit: int = 100, after: str | None = None) -> Page[Member]:
        """Members by contribution score, the highest first, then by agent id, in pages.

        Each page is as the scores are when it is read. Raises UnknownCoalition.
        """
        own = require_uuid("coalition_id", coalition_id)
        require_int("limit", limit, low=1, high=MAX_PAGE)
        pages = Pages("ranking", self._tenant, own)
        start = pages.position(after) or member_rows.ABOVE_ALL
        async with self._context.database.read(self._tenant) as connection:
            found = await member_rows.ranked(connection, self._tenant, own, limit=limit + 1, after=start)
            if not found:
                await load(connection, self._tenant, own)
        last = member_rows.place(found[limit - 1]) if len(found) > limit else None
        return Page(found[:limit], None if last is None else pages.cursor(last))

    async def record_revenue(
        self,
        coalition_id: UUID,
        amount: Decimal | int,
        *,
        efficiency: float | None = None,
        revision: UUID | None = None,
    ) -> Coalition:
        """Add revenue (negative: a loss) to total and capital, and record the performance; as stored.

        One in business becomes profitable when its revenue exceeds its initial capital, and active when it no longer
        does. ``revision`` is a UUIDv7 that names this booking: it is booked once, however often it comes.
        """
        own, money = require_uuid("coalition_id", coalition_id), require_money("amount", amount)
        if efficiency is not None:
            require_finite("efficiency", efficiency)
        booking = revision_or_new(revision)
        async with self._context.change(revisions=[booking]) as connection:
            row = await lock_any(connection, self._tenant, own)
            if revision is not None and await was_recorded(connection, self._tenant, own, booking, booked=money):
                return coalition_of_row(row)
            require_not_dissolved(row)
            total = add_money("amount", money, row.total_revenue)
            changes = {
                "total_revenue": total,
                "current_capital": add_money("amount", money, row.current_capital),
                "status": await status_after(connection, row, row.status, total_revenue=total),
            }
            by = (connection, self._tenant, own, EventType.COALITION_REVENUE, booking)
            row = await change_coalition(*by, changes=changes, booked=money, efficiency=efficiency)
        self._context.wake()
        return coalition_of_row(row)

    async def dissolve_coalition(self, coalition_id: UUID) -> Coalition:
        """End a coalition. Its members stay on record. Raises CoalitionDissolved where it has ended before."""
        own, revision = require_uuid("coalition_id", coalition_id), new_revision()
        async with self._context.change(if_unknown=_DISSOLVED) as connection:
            row = await lock(connection, self._tenant, own)
            status = await status_after(connection, row, CoalitionStatus.DISSOLVED)
            changes = {"status": status, "dissolved_at": sa.func.clock_timestamp()}
            event = EventType.COALITION_DISSOLVED
            row = await change_coalition(connection, self._tenant, own, event, revision, changes=changes)
        await self._context.drop_members(own, row.version)
        return self._written(row)

    async def get_coalition_beliefs(self, coalition_id: UUID) -> BeliefBatch:
        """The beliefs of all members at one moment, by agent id. Raises UnknownCoalition."""
        return await self._beliefs.read(require_uuid("coalition_id", coalition_id))

    def iterate_coalition_beliefs(self, coalition_id: UUID, *, size: int = 1000) -> AsyncGenerator[BeliefBatch, None]:
        """The same in batches of ``size``, still of one moment, for coalitions that are too large to hold at once.

        It keeps a connection until its end: take each batch within DATABASE_STATEMENT_TIMEOUT of the one before, and
        where you stop early, close it (``contextlib.aclosing``).
        """
        require_int("size", size, low=1, high=MAX_PAGE)
        return self._beliefs.pages(require_uuid("coalition_id", coalition_id), size)

    async def load_membership(self, coalition_id: UUID) -> Membership:
        """The members now, with the coalition's version, in one snapshot. Raises UnknownCoalition."""
        own = require_uuid("coalition_id", coalition_id)
        async with self._context.database.read_snapshot(self._tenant) as connection:
            version = (await load(connection, self._tenant, own)).version
            found = await member_rows.ids_of(connection, self._tenant, own)
        self._context.floors.saw(self._tenant, own, version)
        return Membership(own, version, found)

    async def _change_members(
        self, own: UUID, statement: Any, change: Literal["added", "removed"], ids: Sequence[UUID]
    ) -> int:
        revision = new_revision()
        data: dict[str, Any] = {change: [str(agent_id) for agent_id in ids]}
        async with self._context.change(if_unknown=HARMLESS) as connection:
            await lock(connection, self._tenant, own)
            changed = await connection.execute(statement)
            count = sum(1 for (counts,) in changed.all() if counts)
            event = EventType.COALITION_MEMBERS
            row = await change_coalition(connection, self._tenant, own, event, revision, data=data)
            if change == "added":
                member_rows.require_room(own, row.members)
        self._context.wake()
        await self._context.drop_members(own, row.version)
        return count

    def _written(self, row: Any) -> Coalition:
        """The coalition of a row that was just committed, which this session must see from now on."""
        self._context.wake()
        self._context.floors.saw(self._tenant, UUID(int=row.id.int), row.version)
        return coalition_of_row(row)
