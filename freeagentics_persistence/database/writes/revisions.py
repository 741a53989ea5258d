"""Revisions that callers choose, and how a write that is repeated with one is recognised under its row lock."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from freeagentics_persistence.database.models import agent_history, coalition_performance
from freeagentics_persistence.domain.identifiers import new_revision, revision_time
from freeagentics_persistence.domain.validation import require_uuid
from freeagentics_persistence.errors import InvalidInput, RevisionExpired

CLOCK_TOLERANCE = timedelta(minutes=5)


def require_revision(field: str, value: UUID) -> UUID:
    """A UUIDv7."""
    revision = require_uuid(field, value)
    if revision.version != 7:
        raise InvalidInput(field, f"{revision} is not a UUIDv7", "Make one with new_revision().")
    return revision


def revision_or_new(revision: UUID | None) -> UUID:
    """The caller's revision, a new one for None. Raises InvalidInput for what is no UUIDv7."""
    return new_revision() if revision is None else require_revision("revision", revision)


def ahead_of_clock(field: str, revision: UUID) -> InvalidInput:
    """What is said of a revision that lies further ahead than CLOCK_TOLERANCE."""
    return InvalidInput(
        field, f"{revision} lies over 5 minutes in the future of the database's clock", "Set this machine's clock."
    )


async def was_announced(
    connection: AsyncConnection,
    tenant_id: UUID,
    agent_id: UUID,
    revision: UUID,
    kind: str,
    *,
    now: datetime,
    memory: timedelta,
) -> bool:
    """Whether history holds this announcement of a locked agent already; ``now`` is PostgreSQL's clock.

    Raises RevisionExpired, and InvalidInput where the revision lies ahead of that clock or names something else.
    """
    made = revision_time(revision)
    if made > now + CLOCK_TOLERANCE:
        raise ahead_of_clock("revision", revision)
    if made < now - memory:
        raise RevisionExpired
    h = agent_history.c
    found = await connection.execute(
        sa.select(h.type).where(
            h.tenant_id == tenant_id,
            h.agent_id == agent_id,
            h.recorded_at >= made - CLOCK_TOLERANCE,  # nothing is recorded before its revision is made
            h.revision == revision,
            h.version.is_(None),
        )
    )
    row = found.first()
    if row is not None and row.type != kind:
        raise _names_another(revision)
    return row is not None


async def was_recorded(
    connection: AsyncConnection, tenant_id: UUID, coalition_id: UUID, revision: UUID, *, booked: Decimal | None
) -> bool:
    """Whether this performance of a locked coalition, with the money it booked, is recorded already.

    Raises InvalidInput where the revision names something else.
    """
    p = coalition_performance.c
    found = await connection.execute(
        sa.select(p.booked).where(p.tenant_id == tenant_id, p.coalition_id == coalition_id, p.revision == revision)
    )
    row = found.first()
    if row is not None and row.booked != booked:
        raise _names_another(revision)
    return row is not None


def _names_another(revision: UUID) -> InvalidInput:
    return InvalidInput("revision", f"{revision} names another write", "Make one for each with new_revision().")
