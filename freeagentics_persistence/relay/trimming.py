"""Removes events that every sink has received, and those too old to be kept for a sink that makes no headway."""

from __future__ import annotations

import logging
from uuid import UUID

import asyncpg

ROWS = 5000
MAX_STEPS = 20
STALLED_SECONDS = 60.0
# a sink that no relay has been configured with for as long as events are kept is waited for no longer
_RETIRE = """
UPDATE relay_positions SET retired = true
WHERE epoch = $1 AND NOT retired
    AND greatest(wanted_at, updated_at) < clock_timestamp() - make_interval(secs => $2)
RETURNING sink
"""
_TRIM = """
DELETE FROM events e USING (SELECT id, tenant_id, xid FROM events ORDER BY id LIMIT $1) AS head
WHERE e.id = head.id AND e.tenant_id = head.tenant_id
    AND EXISTS (SELECT FROM relay_positions WHERE epoch = $2 AND NOT retired)
    AND NOT EXISTS (
        SELECT FROM relay_positions p
        WHERE p.epoch = $2 AND NOT p.retired AND NOT pg_visible_in_snapshot(head.xid, p.done_snapshot))
"""
# what a sink that makes headway still lacks is kept, however old it is
_GIVE_UP = """
WITH lacking AS MATERIALIZED (
    SELECT old.id, old.tenant_id, p.sink,
        p.updated_at < clock_timestamp() - make_interval(secs => $4) AS stalled
    FROM (SELECT * FROM events ORDER BY id LIMIT $1) AS old
    CROSS JOIN relay_positions p
    WHERE old.recorded_at < clock_timestamp() - make_interval(secs => $3)
        AND p.epoch = $2 AND NOT p.retired
        AND NOT pg_visible_in_snapshot(old.xid, p.done_snapshot)
        AND NOT coalesce(old.id <= p.open_id AND pg_visible_in_snapshot(old.xid, p.open_snapshot), false)
),
gone AS (
    DELETE FROM events e USING (SELECT id, tenant_id FROM lacking GROUP BY 1, 2 HAVING bool_and(stalled)) AS given_up
    WHERE e.id = given_up.id AND e.tenant_id = given_up.tenant_id
    RETURNING e.id
),
told AS (
    UPDATE relay_positions p SET missed = p.missed + lost.events
    FROM (SELECT sink, count(*) AS events FROM lacking JOIN gone USING (id) GROUP BY sink) AS lost
    WHERE p.sink = lost.sink
    RETURNING p.sink, lost.events
)
SELECT (SELECT count(*) FROM gone) AS events, told.sink, told.events AS missed FROM told
"""
_log = logging.getLogger(__name__)


async def trim(connection: asyncpg.Connection, epoch: UUID, max_backlog_hours: float | None) -> int:
    """Delete delivered events; how many were deleted. One trimmer works at a time.

    With ``max_backlog_hours`` also those older than that which only sinks without headway for a minute lack: such
    sinks are marked as having missed events, which they are told when they go on. And a sink that no relay was
    configured with for so long is retired: nothing waits for it until one is again.
    """
    async with connection.transaction():
        if not await connection.fetchval("SELECT pg_try_advisory_xact_lock(hashtext('freeagentics trim'), 0)"):
            return 0
        if max_backlog_hours is not None:
            await _retire(connection, epoch, max_backlog_hours)
        removed = 0
        for _ in range(MAX_STEPS):
            step = int((await connection.execute(_TRIM, ROWS, epoch)).split()[-1])
            removed += step
            if step < ROWS:
                break
        if max_backlog_hours is not None:
            removed += await _give_up(connection, epoch, max_backlog_hours)
        return removed


async def _retire(connection: asyncpg.Connection, epoch: UUID, max_backlog_hours: float) -> None:
    for row in await connection.fetch(_RETIRE, epoch, max_backlog_hours * 3600):
        _log.warning(
            "no relay has been configured with sink %s for %g hours: events wait for it no longer.",
            row["sink"],
            max_backlog_hours,
        )


async def _give_up(connection: asyncpg.Connection, epoch: UUID, max_backlog_hours: float) -> int:
    rows = await connection.fetch(_GIVE_UP, ROWS, epoch, max_backlog_hours * 3600, STALLED_SECONDS)
    for row in rows:
        _log.warning(
            "sink %s lags by more than %g hours and makes no headway: %d events are kept for it no longer.",
            row["sink"],
            max_backlog_hours,
            row["missed"],
        )
    return int(rows[0]["events"]) if rows else 0
