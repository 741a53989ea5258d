"""How far a sink's deliveries are in Redis, kept in Redis itself, so that their loss is noticed.

Redis may be flushed, or come back from an older snapshot, while PostgreSQL remembers what was delivered. A marker in
Redis that is missing, or older than the last delivery, proves it. The marker is one hash: ``position``, ``gap`` (up
to where deliveries were lost last) and ``moment`` (up to when all commits were delivered).
"""

from __future__ import annotations

from datetime import UTC, datetime

from freeagentics_persistence.cache.connection import RedisConnection, server_facts
from freeagentics_persistence.domain.events import FeedPosition
from freeagentics_persistence.errors import CacheUnavailable

# ARGV: the last delivery known to the caller or '', field to set where it is there, and its value
_SET = """
local found = redis.call('HGET', KEYS[1], 'position')
if ARGV[1] ~= '' and (not found or found < ARGV[1]) then
    return 0
end
if ARGV[2] ~= 'position' or not found or found < ARGV[3] then
    redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
end
return 1
"""

_DECLARE_LOSS = """
redis.call('HSET', KEYS[1], 'position', ARGV[1], 'gap', ARGV[1])
redis.call('HDEL', KEYS[1], 'moment')
if ARGV[2] ~= '' then
    redis.call('PUBLISH', ARGV[2], ARGV[1])
end
return 1
"""


class FeedMarker:
    """The marker of one sink. ``channel``, where there is one, is told of losses."""

    def __init__(self, connection: RedisConnection, key: str, channel: str = "") -> None:
        self._connection = connection
        self._key = key
        self._channel = channel
        self._last: FeedPosition | None = None
        self._run = ""

    def resume(self, position: FeedPosition | None) -> None:
        """Take over where deliveries had reached ``position``."""
        self._last = position

    async def lost(self) -> FeedPosition | None:
        """The last delivery, where Redis no longer holds what was delivered, else None. Call it before each batch."""
        commands = (("INFO", "server"), ("HGET", self._key, "position"))
        facts, found = await self._connection.pipeline(commands)
        self._run = server_facts(facts)["run_id"]
        return self._last if found is None or bytes(found) < self._expected() else None

    async def advance(self, position: FeedPosition) -> bool:
        """Say that a batch up to ``position`` is in; False where Redis lost earlier ones since ``lost``.

        Raises CacheUnavailable where the server started anew during the batch, which must then be delivered again.
        """
        command = ("EVAL", _SET, 1, self._key, self._expected(), "position", sortable(position))
        kept, facts = await self._connection.pipeline((command, ("INFO", "server")))
        if server_facts(facts)["run_id"] != self._run:
            raise CacheUnavailable(
                f"Redis at {self._connection.server} started anew during a delivery, which is repeated."
            )
        if kept:
            self._last = position
        return bool(kept)

    async def confirm(self, moment: datetime) -> bool:
        """Say that all commits up to ``moment`` were delivered; False, and not said, where Redis lost deliveries."""
        text = moment.astimezone(UTC).isoformat()
        return bool(await self._connection.execute("EVAL", _SET, 1, self._key, self._expected(), "moment", text))

    async def declare_loss(self, position: FeedPosition) -> None:
        """Begin anew: deliveries up to ``position`` count as lost, and subscribers are told."""
        await self._connection.execute("EVAL", _DECLARE_LOSS, 1, self._key, sortable(position), self._channel)
        self._last = position

    async def gap(self) -> FeedPosition | None:
        """Up to which position deliveries were lost last, None where none ever were."""
        found = await self._connection.execute("HGET", self._key, "gap")
        return None if found is None else from_sortable(found)

    async def moment(self) -> datetime | None:
        """Up to when all commits were delivered, None where that is unknown."""
        found = await self._connection.execute("HGET", self._key, "moment")
        return None if found is None else datetime.fromisoformat(bytes(found).decode())

    async def doubt(self) -> None:
        """Forget up to when commits were delivered."""
        await self._connection.execute("HDEL", self._key, "moment")

    def _expected(self) -> bytes:
        return b"" if self._last is None else sortable(self._last)


def sortable(position: FeedPosition) -> bytes:
    """A position as text of fixed width, whose order is the positions' order."""
    return b"%020d-%020d" % (position.round, position.id)


def from_sortable(text: bytes) -> FeedPosition:
    """The position of such text."""
    round_, _, number = text.partition(b"-")
    return FeedPosition(int(round_), int(number))
