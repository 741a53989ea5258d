"""Removes events that every sink has received, and gives up sinks that have been away for too long."""

from __future__ import annotations

import logging
from uuid import UUID

import asyncpg

ROWS = 5000
_ABANDON = """
DELETE FROM relay_positions
WHERE epoch <> $1 OR updated_at < clock_timestamp() - make_interval(secs => $2)
RETURNING sink
"""
_TRIM = """
DELETE FROM events WHERE (id, tenant_id) IN (
    SELECT e.id, e.tenant_id FROM events e
    WHERE EXISTS (SELECT FROM relay_positions)
        AND NOT EXISTS (SELECT FROM relay_positions p WHERE NOT pg_visible_in_snapshot(e.xid, p.done_snapshot))
    ORDER BY e.id LIMIT $1
)
"""
_log = logging.getLogger(__name__)


async def trim(connection: asyncpg.Connection, epoch: UUID, max_backlog_hours: float) -> int:
    """Delete delivered events, up to a bound; how many were deleted. One trimmer works at a time."""
    async with connection.transaction():
        if not await connection.fetchval("SELECT pg_try_advisory_xact_lock(hashtext('freeagentics trim'), 0)"):
            return 0
        for row in await connection.fetch(_ABANDON, epoch, max_backlog_hours * 3600):
            _log.warning(
                "sink %s has not been served for %g hours: its events are kept no longer, and it starts anew when it "
                "comes back.",
                row["sink"],
                max_backlog_hours,
            )
        return int((await connection.execute(_TRIM, ROWS)).split()[-1])
