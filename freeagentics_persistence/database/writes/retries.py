"""Writes that PostgreSQL undid through no fault of theirs are made again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from freeagentics_persistence.database import driver_errors
from freeagentics_persistence.database.engine import Database
from freeagentics_persistence.database.partitions import ensure_partitions
from freeagentics_persistence.errors import PersistenceError

MAX_RETRIES = 5
T = TypeVar("T")


async def retried(database: Database, write: Callable[[], Awaitable[T]]) -> T:
    """What ``write`` gives; made again after a deadlock, or once history's partition of the month is there.

    Raises what the write raises otherwise, and after too many deadlocks.
    """
    for attempt in range(MAX_RETRIES):
        try:
            return await write()
        except PersistenceError as error:
            cause = error.__cause__
            if cause is not None and driver_errors.is_missing_partition(cause):
                await ensure_partitions(database)
            elif cause is not None and driver_errors.is_retryable(cause):
                await asyncio.sleep(random.uniform(0, 0.02 * 2**attempt))  # noqa: S311 - jitter
            else:
                raise
    return await write()
