"""Removes events that every sink has received, and those too old to be kept for a sink that lags."""

from __future__ import annotations

import logging
from uuid import UUID

import asyncpg

ROWS = 5000
MAX_STEPS = 20
_TRIM = """
DELETE FROM events e USING (SELECT id, tenant_id, xid FROM events ORDER BY id LIMIT $1) AS head
WHERE e.id = head.id AND e.tenant_id = head.tenant_id
    AND EXISTS (SELECT FROM relay_positions)
    AND NOT EXISTS (
        SELECT FROM relay_positions p
        WHERE p.epoch <> $2 OR NOT pg_visible_in_snapshot(head.xid, p.done_snapshot))
"""
_GIVE_UP = """
WITH old AS MATERIALIZED (
    SELECT id, tenant_id, xid FROM (SELECT * FROM events ORDER BY id LIMIT $1) AS head
    WHERE recorded_at < clock_timestamp() - make_interval(secs => $2)
),
lagging AS (
    UPDATE relay_positions p SET missed = true
    WHERE EXISTS (SELECT FROM old WHERE NOT pg_visible_in_snapshot(old.xid, p.done_snapshot))
    RETURNING p.sink
),
gone AS (DELETE FROM events e USING old WHERE e.id = old.id AND e.tenant_id = old.tenant_id)
SELECT (SELECT count(*) FROM old) AS events, (SELECT array_agg(sink) FROM lagging) AS sinks
"""
_log = logging.getLogger(__name__)


async def trim(connection: asyncpg.Connection, epoch: UUID, max_backlog_hours: float | None) -> int:
    """Delete delivered events; how many were deleted. One trimmer works at a time.

    With ``max_backlog_hours`` also those older than that, whoever has not received them: such sinks are marked as
    having missed events, which is told them when they go on.
    """
    async with connection.transaction():
        if not await connection.fetchval("SELECT pg_try_advisory_xact_lock(hashtext('freeagentics trim'), 0)"):
            return 0
        removed = 0
        for _ in range(MAX_STEPS):
            step = int((await connection.execute(_TRIM, ROWS, epoch)).split()[-1])
            removed += step
            if step < ROWS:
                break
        if max_backlog_hours is not None:
            row = await connection.fetchrow(_GIVE_UP, ROWS, max_backlog_hours * 3600)
            removed += row["events"]
            for sink in row["sinks"] or ():
                _log.warning(
                    "sink %s lags by more than %g hours: %d events are kept for it no longer.",
                    sink,
                    max_backlog_hours,
                    row["events"],
                )
        return removed
