"""Looks at the relay: how far each sink lags, who serves it, and which transaction keeps it from tidying up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from freeagentics_persistence.database.engine import Database
from freeagentics_persistence.errors import PersistenceError
from freeagentics_persistence.operations.findings import Finding, failure, span
from freeagentics_persistence.settings import Environment, Settings

LAG_SECONDS = 10.0
OPEN_SECONDS = 60.0
MAX_COUNTED = 100_000
NOTHING = "1:1:"  # the snapshot that sees nothing
ALWAYS = ("cache", "updates")
METRICS = "metrics"
_SINKS = """
SELECT p.sink, p.delivered, p.left_out, p.missed, p.retired, p.done_snapshot::text AS done,
    p.open_snapshot::text AS open, p.open_id, l.pid
FROM relay_positions p
JOIN (SELECT id FROM epochs ORDER BY number DESC LIMIT 1) AS present ON present.id = p.epoch
LEFT JOIN LATERAL (
    SELECT pid FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND objsubid = 2
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND classid::bigint = hashtext('freeagentics relay')::bigint & 4294967295
        AND objid::bigint = hashtext(p.sink)::bigint & 4294967295
    LIMIT 1
) l ON true
ORDER BY p.sink
"""
_WAITING = """
SELECT count(*) AS events, coalesce(extract(epoch FROM clock_timestamp() - min(recorded_at)), 0)::float8 AS seconds
FROM (
    SELECT recorded_at FROM events
    WHERE NOT pg_visible_in_snapshot(xid, $1::text::pg_snapshot)
        AND NOT (id <= $3 AND pg_visible_in_snapshot(xid, $2::text::pg_snapshot))
    LIMIT $4
) AS waiting
"""
# those that write, in every database of the server
_OPEN = """
SELECT * FROM (
    SELECT datname AS database, pid, usename::text AS login, application_name AS application, state,
        extract(epoch FROM clock_timestamp() - xact_start)::float8 AS seconds, NULL::text AS prepared
    FROM pg_stat_activity WHERE backend_xid IS NOT NULL
    UNION ALL
    SELECT database, NULL, owner, '', 'prepared', extract(epoch FROM clock_timestamp() - prepared)::float8, gid
    FROM pg_prepared_xacts
) AS writers
WHERE seconds > $1 ORDER BY seconds DESC LIMIT 1
"""


async def look_at_relay(settings: Settings, database: Database, relay_database: Database) -> Sequence[Finding]:
    """One finding for each sink, one for transactions. ``relay_database`` may read the events of every tenant."""
    try:
        sinks = {row["sink"]: row for row in await database.fetch(_SINKS)}
        found = [await _sink(settings, relay_database, name, sinks.get(name)) for name in _expected(settings, sinks)]
        return [*found, await _transactions(relay_database)]
    except PersistenceError as error:
        return [failure("relay", error, "correct DATABASE_RELAY_URL, then: freeagentics-db check")]


def _expected(settings: Settings, known: dict[str, Any]) -> list[str]:
    wanted = list(ALWAYS)
    if settings.influx.url is not None:
        wanted.append(METRICS)
    return wanted + sorted(known.keys() - wanted)


async def _sink(settings: Settings, relay_database: Database, name: str, row: Any) -> Finding:
    if row is not None and row["retired"]:
        return _retired(name, row)
    place = (NOTHING, NOTHING, 0) if row is None else (row["done"], row["open"] or NOTHING, row["open_id"])
    waiting = (await relay_database.fetch(_WAITING, *place, MAX_COUNTED))[0]
    events, seconds = waiting["events"], waiting["seconds"]
    pid = None if row is None else row["pid"]
    counts = {name: 0 if row is None else row[name] for name in ("delivered", "left_out", "missed")}
    if events:
        more = " or more" if events == MAX_COUNTED else ""
        lag = f"{events:,}{more} events behind, the oldest by {span(seconds)}"
    else:
        lag = "up to date"
    said = [lag, f"{counts['delivered']:,} delivered", *_losses(counts)]
    said.append("served by no process" if pid is None else f"served by backend {pid}")
    remedy = _remedy(settings, name, served=pid is not None) if events and seconds > LAG_SECONDS else None
    return Finding(
        subject=f"relay to {name}",
        ok=remedy is None,
        summary=", ".join(said),
        remedy=remedy,
        facts={
            "sink": name,
            **counts,
            "behind_events": events,
            "behind_seconds": round(seconds, 3),
            "served_by_pid": pid,
        },
    )


def _losses(counts: dict[str, int]) -> list[str]:
    """What a sink will never have, where there is any."""
    said = []
    if counts["left_out"]:
        said.append(f"{counts['left_out']:,} left out, as its server refused them")
    if counts["missed"]:
        said.append(f"{counts['missed']:,} given up, which it is told when it is served")
    return said


def _retired(name: str, row: Any) -> Finding:
    return Finding(
        subject=f"relay to {name}",
        ok=True,
        summary=f"retired, as no relay is configured with it: nothing waits for it, {row['delivered']:,} delivered",
        facts={"sink": name, "delivered": row["delivered"], "retired": True},
    )


def _remedy(settings: Settings, name: str, *, served: bool) -> str | None:
    if served:
        return f"look at what the relay logs about {name}; then: freeagentics-db check"
    if name == METRICS and settings.influx.url is None:
        hours = f"{settings.relay.max_backlog_hours:g}"
        return f"set INFLUXDB_URL again, or wait: {hours} hours after it was unset nothing waits for this sink"
    # embedded servers are often at rest, and the next program that opens the store delivers
    return None if settings.env is Environment.EMBEDDED else "freeagentics-db relay"


async def _transactions(relay_database: Database) -> Finding:
    """A write transaction that stays open keeps the relay reading the same rows, and the server from vacuuming."""
    subject = "transactions"
    rows = await relay_database.fetch(_OPEN, OPEN_SECONDS)
    if not rows:
        return Finding(subject=subject, ok=True, summary=f"none that writes has been open for {OPEN_SECONDS:g} s")
    row = rows[0]
    if row["prepared"] is not None:
        who = f"the prepared transaction {row['prepared']} of {row['login']}"
        remedy = f"in database {row['database']}: COMMIT PREPARED or ROLLBACK PREPARED '{row['prepared']}'"
    else:
        application = f", {row['application']}" if row["application"] else ""
        who = f"that of backend {row['pid']} ({row['login']}{application}, {row['state']})"
        remedy = f"let it end, or in psql: SELECT pg_terminate_backend({row['pid']})"
    return Finding(
        subject=subject,
        ok=False,
        summary=f"{who} in database {row['database']} has been open for {span(row['seconds'])}: the relay reads what "
        "came since again and again, and nothing is vacuumed",
        remedy=remedy,
        facts=dict(row),
    )
