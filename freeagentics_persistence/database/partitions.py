"""Partitions of the history and of skipped revisions: made ahead and dropped by functions of the database."""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import asyncpg

from freeagentics_persistence.database.engine import Database

MONTHS_AHEAD = 3
ATTEMPTS = 5
PAUSE = 0.3  # seconds between two attempts to get a lock
HISTORY, REVISIONS = "agent_history", "accepted_revisions"
_PARTITION = re.compile(r"(agent_history|accepted_revisions)_\d{4}_\d{2}(_\d{2})?")
_LIST = """
SELECT p.parent, r.partition AS name, r.starts, r.ends, clock_timestamp() AS now,
    greatest(c.reltuples, 0)::bigint AS rows, pg_total_relation_size(c.oid) AS bytes
FROM unnest($1::text[]) WITH ORDINALITY AS p (parent, n)
CROSS JOIN LATERAL partition_ranges(p.parent) AS r
JOIN pg_class c ON c.oid = to_regclass('public.' || r.partition)
ORDER BY p.n, r.starts
"""
_log = logging.getLogger(__name__)


def is_partition(table: str) -> bool:
    """Whether a table is a partition of the history or of skipped revisions."""
    return _PARTITION.fullmatch(table) is not None


async def ensure_partitions(database: Database, months_ahead: int = MONTHS_AHEAD) -> int:
    """Make the partitions from last month to ``months_ahead``, or days likewise; how many of history were made."""
    rows = await database.fetch("SELECT ensure_history_partitions($1) AS made", months_ahead)
    return int(rows[0]["made"])


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionRules:
    """What a partition of history holds, how long history stays, and how long revisions that it skipped do."""

    unit: Literal["month", "day"]
    retention: timedelta
    revision_memory: timedelta

    def expired(self, partition: Partition) -> bool:
        """Whether all that a partition may hold is older than it has to be."""
        # revisions are looked up for a little longer than they are promised to be known
        kept = self.retention if partition.parent == HISTORY else self.revision_memory + timedelta(days=1)
        return partition.ends <= partition.now - kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One partition: [starts, ends), about how many rows, bytes with indexes; ``now`` by PostgreSQL's clock."""

    parent: str
    name: str
    starts: datetime
    ends: datetime
    now: datetime
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Upkeep:
    """What the keeper did: names of partitions. ``busy``: expired, and in use by somebody for too long."""

    made: Sequence[str]
    dropped: Sequence[str]
    busy: Sequence[str]


async def list_partitions(connection: asyncpg.Connection) -> list[Partition]:
    """All partitions, those of history first, the oldest first."""
    rows = await connection.fetch(_LIST, [HISTORY, REVISIONS])
    return [Partition(**row) for row in rows]


def next_partition(partitions: Sequence[Partition]) -> tuple[datetime, Partition | None]:
    """When history goes on in another partition than that of now, and which one; None where that is missing."""
    history = [each for each in partitions if each.parent == HISTORY]
    present = next((each for each in history if each.starts <= each.now < each.ends), None)
    if present is None:
        now = partitions[0].now if partitions else datetime.now().astimezone()
        return now, None
    return present.ends, next((each for each in history if each.starts <= present.ends < each.ends), None)


async def keep_partitions(connection: asyncpg.Connection, rules: PartitionRules, *, dry_run: bool = False) -> Upkeep:
    """Make partitions ahead, and drop those that expired, each in a transaction of its own.

    Needs the relay's rights. Any number may run at once. A lock is waited for so briefly that writers do not notice,
    and asked for again; what stays locked is left for the next time. With ``dry_run`` all is rolled back.
    """
    if dry_run:
        transaction = connection.transaction()
        await transaction.start()
        try:
            return await _keep(connection, rules)
        finally:
            await transaction.rollback()
    return await _keep(connection, rules)


async def _keep(connection: asyncpg.Connection, rules: PartitionRules) -> Upkeep:
    rows = await _patiently(connection, "SELECT make_partitions($1) AS result", rules.unit)
    dropped, busy = [], [HISTORY] if rows is None else []
    for partition in await list_partitions(connection):
        if rules.expired(partition):
            done = await _patiently(connection, "SELECT drop_partition($1) AS result", partition.name)
            if done is None:
                busy.append(partition.name)
            elif done == [True]:
                dropped.append(partition.name)
    upkeep = Upkeep(made=rows or [], dropped=dropped, busy=busy)
    if upkeep.made or upkeep.dropped:
        _log.info("partitions made: %s; dropped: %s", list(upkeep.made), list(upkeep.dropped))
    return upkeep


async def _patiently(connection: asyncpg.Connection, statement: str, argument: str) -> list[Any] | None:
    """The results of a statement; tried again where a lock was not to be had in time, None where it never was."""
    for attempt in range(ATTEMPTS):
        try:
            async with connection.transaction():  # within a dry run a savepoint
                return [row["result"] for row in await connection.fetch(statement, argument)]
        except asyncpg.LockNotAvailableError as error:
            _log.debug("a partition is in use: %s", error)
        if attempt < ATTEMPTS - 1:
            await asyncio.sleep(PAUSE * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
    return None
