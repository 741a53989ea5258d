"""Frees the feeds of tenants without updates, and what ended epochs have left; feeds do not expire by themselves.

An expiry would make them volatile, and Redis evicts what is volatile when its memory runs short.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from freeagentics_persistence.cache.connection import Command, RedisConnection
from freeagentics_persistence.cache.keys import FEEDS, EpochKeys

FIRST_SECONDS = 10.0
SWEEP_SECONDS = 600.0
SCAN_COUNT = 1000
_START = datetime(1970, 1, 1, tzinfo=UTC)

# ARGV: the round before which a feed counts as idle, 1 where its epoch has ended. The last entry stays otherwise, so
# that subscribers that had read all of the feed go on, and the others are told of a gap.
_FREE_FEED = """
local info = redis.pcall('XINFO', 'STREAM', KEYS[1])
if info.err then
    return 0
end
for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' and tonumber(string.match(info[i + 1], '^%d+')) >= tonumber(ARGV[1]) then
        return 0
    end
end
if ARGV[2] == '1' then
    return redis.call('UNLINK', KEYS[1])
end
return redis.call('XTRIM', KEYS[1], 'MAXLEN', 1)
"""
_FREE_MARKER = """
local position = redis.call('HGET', KEYS[1], 'position')
if position and tonumber(string.match(position, '^%d+')) < tonumber(ARGV[1]) then
    return redis.call('UNLINK', KEYS[1])
end
return 0
"""


class FeedSweep:
    """Looks at all feeds of an epoch and of those before it every ten minutes, in small steps between deliveries."""

    def __init__(
        self, connection: RedisConnection, epoch: UUID, former_epochs: Sequence[UUID], idle_seconds: int
    ) -> None:
        self._connection = connection
        self._own = EpochKeys(epoch).prefix
        self._former = [EpochKeys(former) for former in former_epochs]
        self._idle = timedelta(seconds=idle_seconds)
        self._cursor: bytes | None = None  # None between two sweeps
        self._next = time.monotonic() + FIRST_SECONDS

    async def step(self, now: datetime) -> None:
        """One step, if one is due. ``now`` is of PostgreSQL's clock, as rounds are."""
        if self._cursor is None and time.monotonic() < self._next:
            return
        before = (now - self._idle - _START) // timedelta(microseconds=1)
        commands: list[Command] = []
        if self._cursor is None:
            self._next = time.monotonic() + SWEEP_SECONDS
            markers = [marker for keys in self._former for marker in (keys.cache_marker, keys.feed_marker)]
            commands += [("EVAL", _FREE_MARKER, 1, marker, before) for marker in markers]
        scan = ("SCAN", self._cursor or b"0", "MATCH", FEEDS, "COUNT", SCAN_COUNT, "TYPE", "stream")
        cursor, feeds = await self._connection.execute(*scan)
        for feed in feeds:
            if feed.startswith(self._own.encode()):
                commands.append(("EVAL", _FREE_FEED, 1, feed, before, 0))
            elif feed.startswith(tuple(keys.prefix.encode() for keys in self._former)):
                commands.append(("EVAL", _FREE_FEED, 1, feed, before, 1))
        if commands:
            await self._connection.pipeline(commands)
        self._cursor = None if cursor == b"0" else cursor
