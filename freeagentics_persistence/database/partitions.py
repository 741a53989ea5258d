"""Monthly partitions of the history, made ahead by a function of the database."""

from __future__ import annotations

import re

from freeagentics_persistence.database.engine import Database

MONTHS_AHEAD = 3
_PARTITION = re.compile(r"agent_history_\d{4}_\d{2}")


def is_partition(table: str) -> bool:
    """Whether a table is a partition of the history."""
    return _PARTITION.fullmatch(table) is not None


async def ensure_partitions(database: Database, months_ahead: int = MONTHS_AHEAD) -> int:
    """Make the partitions from last month to ``months_ahead``; how many were made."""
    rows = await database.fetch("SELECT ensure_history_partitions($1) AS made", months_ahead)
    return int(rows[0]["made"])
