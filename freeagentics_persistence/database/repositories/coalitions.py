"""CoalitionRepository: coalitions, members, and what they earn."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from freeagentics_persistence.database.context import TenantContext
from freeagentics_persistence.database.driver_errors import constraint_of
from freeagentics_persistence.database.engine import HARMLESS, SAVED_AGAIN, driver_of
from freeagentics_persistence.database.models import coalition_performance
from freeagentics_persistence.database.models import coalitions as table
from freeagentics_persistence.database.repositories import member_rows
from freeagentics_persistence.database.repositories.beliefs import BeliefReader
from freeagentics_persistence.database.repositories.coalition_rows import (
    coalition_of_row,
    load,
    lock,
    lock_any,
    require_not_dissolved,
    select,
)
from freeagentics_persistence.database.writes.event_rows import bump_coalition, insert_event
from freeagentics_persistence.database.writes.revisions import revision_or_new, was_recorded
from freeagentics_persistence.domain.belief_batch import BeliefBatch
from freeagentics_persistence.domain.coalitions import Coalition, CoalitionStatus, Member
from freeagentics_persistence.domain.events import EventType
from freeagentics_persistence.domain.identifiers import new_revision
from freeagentics_persistence.domain.performance import performance_data
from freeagentics_persistence.domain.results import Page
from freeagentics_persistence.domain.validation import (
    require_finite,
    require_int,
    require_money,
    require_text,
    require_uuid,
)
from freeagentics_persistence.errors import (
    InvalidInput,
    PersistenceError,
    UnknownAgent,
)
from freeagentics_persistence.ports.cache import Membership

MAX_PAGE = 10_000
_DISSOLVED = "Repeat the call: CoalitionDissolved then means that it is done."


class CoalitionRepository:
    """Coalitions of one tenant. A dissolved coalition takes no more changes (CoalitionDissolved)."""

    def __init__(self, context: TenantContext) -> None:
        self._context = context
        self._tenant = context.tenant_id
        self._beliefs = BeliefReader(context)

    async def save_coalition(self, coalition: Coalition, *, expected_version: int | None = None) -> Coalition:
        """Insert or update a coalition; as stored. ``total_revenue`` is kept by record_revenue.

        ``expected_version`` 0 demands that it is new, n that it is at that version; ConcurrentUpdate otherwise.
        """
        if not isinstance(coalition, Coalition):
            raise InvalidInput("coalition", f"is a {type(coalition).__name__}", "Pass a Coalition.")
        if coalition.status is CoalitionStatus.DISSOLVED:
            raise InvalidInput("status", "is dissolved", "Use dissolve_coalition().")
        if expected_version is not None:
            require_int("expected_version", expected_version, low=0, high=2**53)
        values = {
            "name": coalition.name,
            "business_model": coalition.business_model,
            "formation_criteria": dict(coalition.formation_criteria),
            "business_config": dict(coalition.business_config),
            "initial_capital": coalition.initial_capital,
            "current_capital": coalition.current_capital,
            "status": coalition.status.value,
        }
        revision = new_revision()
        async with self._context.database.write(self._tenant, if_unknown=SAVED_AGAIN) as connection:
            if not expected_version and await self._insert(connection, coalition.id, values, revision):
                version = 1
            else:
                row = await lock(connection, self._tenant, coalition.id, expected_version)
                version = await bump_coalition(
                    connection, self._tenant, row.id, EventType.COALITION_SAVED, revision, changes=values
                )
            stored = await load(connection, self._tenant, coalition.id)
        self._context.wake()
        self._context.floors.saw(self._tenant, coalition.id, version)
        return coalition_of_row(stored)

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
            if status not in tuple(CoalitionStatus):
                raise InvalidInput("status", f"{status!r} is unknown", f"Use one of: {', '.join(CoalitionStatus)}.")
            query = query.where(table.c.status == str(status))
        if after is not None:
            query = query.where(table.c.id > require_uuid("after", after))
        async with self._context.database.read(self._tenant) as connection:
            rows = (await connection.execute(query.order_by(table.c.id).limit(limit + 1))).all()
        found = [coalition_of_row(row) for row in rows[:limit]]
        return Page(found, str(found[-1].id) if len(rows) > limit else None)

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
                raise UnknownAgent(await self._first_unknown(wanted)) from error
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
        start = None if after is None else require_uuid("after", after)
        async with self._context.database.read(self._tenant) as connection:
            found = await member_rows.page(connection, self._tenant, own, limit=limit + 1, after=start)
            if not found:
                await load(connection, self._tenant, own)
        return Page(found[:limit], str(found[limit - 1].agent_id) if len(found) > limit else None)

    async def record_revenue(
        self,
        coalition_id: UUID,
        amount: Decimal | int,
        *,
        efficiency: float | None = None,
        revision: UUID | None = None,
    ) -> Coalition:
        """Add revenue (negative: a loss) to total and capital, and record the performance; as stored.

        ``revision`` is a UUIDv7 that names this booking: it is booked once, however often it comes.
        """
        own, money = require_uuid("coalition_id", coalition_id), require_money("amount", amount)
        if efficiency is not None:
            require_finite("efficiency", efficiency)
        booking = revision_or_new(revision)
        async with self._context.database.write(self._tenant, revisions=[booking]) as connection:
            row = await lock_any(connection, self._tenant, own)
            if revision is not None and await was_recorded(connection, self._tenant, own, booking, booked=money):
                return coalition_of_row(row)
            require_not_dissolved(row)
            count = await member_rows.count(connection, self._tenant, own)
            data = performance_data(count, float(money), efficiency)
            changes = {
                "total_revenue": table.c.total_revenue + money,
                "current_capital": table.c.current_capital + money,
            }
            await bump_coalition(
                connection, self._tenant, own, EventType.COALITION_REVENUE, booking, changes=changes, data=data
            )
            row = await load(connection, self._tenant, own)
            await connection.execute(
                sa.insert(coalition_performance).values(
                    tenant_id=self._tenant,
                    coalition_id=own,
                    recorded_at=row.updated_at,
                    revision=booking,
                    booked=money,
                    **data,
                )
            )
        self._context.wake()
        return coalition_of_row(row)

    async def dissolve_coalition(self, coalition_id: UUID) -> Coalition:
        """End a coalition. Its members stay on record. Raises CoalitionDissolved where it has ended before."""
        own, revision = require_uuid("coalition_id", coalition_id), new_revision()
        changes = {"status": CoalitionStatus.DISSOLVED.value, "dissolved_at": sa.func.clock_timestamp()}
        async with self._context.database.write(self._tenant, if_unknown=_DISSOLVED) as connection:
            await lock(connection, self._tenant, own)
            version = await bump_coalition(
                connection, self._tenant, own, EventType.COALITION_DISSOLVED, revision, changes=changes
            )
            row = await load(connection, self._tenant, own)
        self._context.wake()
        await self._context.drop_members(own, version)
        return coalition_of_row(row)

    async def get_coalition_beliefs(self, coalition_id: UUID) -> BeliefBatch:
        """The beliefs of all members at one moment, by agent id: one statement of PostgreSQL reads them all."""
        own = require_uuid("coalition_id", coalition_id)
        async with self._context.database.read(self._tenant) as connection:
            await load(connection, self._tenant, own)
            rows = await (await driver_of(connection)).fetch(member_rows.BELIEFS, self._tenant, own)
        ids = [UUID(int=row["id"].int) for row in rows]
        return await self._beliefs.batch_of_rows(ids, rows)

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
        async with self._context.database.write(self._tenant, if_unknown=HARMLESS) as connection:
            await lock(connection, self._tenant, own)
            changed = await connection.execute(statement)
            count = sum(1 for (counts,) in changed.all() if counts)
            if change == "added":
                await member_rows.require_room(connection, self._tenant, own)
            version = await bump_coalition(
                connection, self._tenant, own, EventType.COALITION_MEMBERS, revision, data=data
            )
        self._context.wake()
        await self._context.drop_members(own, version)
        return count

    async def _insert(
        self, connection: AsyncConnection, coalition_id: UUID, values: dict[str, Any], revision: UUID
    ) -> bool:
        inserted = await connection.execute(
            insert(table)
            .values(tenant_id=self._tenant, id=coalition_id, revision=revision, **values)
            .on_conflict_do_nothing(constraint="coalitions_pkey")
            .returning(table.c.updated_at)
        )
        row = inserted.first()
        if row is None:
            return False
        await insert_event(
            connection,
            tenant_id=self._tenant,
            subject_id=coalition_id,
            type=EventType.COALITION_SAVED,
            version=1,
            revision=revision,
            recorded_at=row.updated_at,
        )
        return True

    async def _first_unknown(self, ids: Sequence[UUID]) -> UUID:
        query = "SELECT id FROM agents WHERE tenant_id = $1 AND id = ANY ($2)"
        async with self._context.database.read(self._tenant) as connection:
            known = {row[0] for row in await (await driver_of(connection)).fetch(query, self._tenant, list(ids))}
        return next((agent_id for agent_id in ids if agent_id not in known), ids[0])
