"""The replayable feed: one capped stream a tenant, whose entry ids are the events' positions.

Appending and publishing is one script. A stream takes only ids above its last one, so a repeated delivery is
recognised exactly: what had been appended had also been published, and is skipped.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from freeagentics_persistence.cache.connection import Argument, RedisConnection
from freeagentics_persistence.cache.keys import TenantKeys
from freeagentics_persistence.cache.update_message import encode_update
from freeagentics_persistence.domain.events import Event, FeedPosition

START = FeedPosition(0, 0)
CHUNK_EVENTS = 500
CHUNK_BYTES = 4 * 1024 * 1024
PAGE_ENTRIES = 1000
PAGE_BYTES = 4 * 1024 * 1024
MAX_FILTER = 1000

# ARGV: length, channel of all, prefix of agents' channels, position of a gap or '', seconds until an idle feed goes,
# then (id, agent, message) of each event. Entries have the fields a (agent) and m (message), a gap has the field gap.
_APPEND = """
local function append(...)
    local reply = redis.pcall('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], ...)
    if type(reply) == 'table' and reply.err then
        if not string.find(reply.err, 'equal or smaller', 1, true) then
            error(reply)
        end
        return false
    end
    return true
end
if ARGV[4] ~= '' then
    append(ARGV[4], 'gap', '1')
end
local appended = 0
for i = 6, #ARGV, 3 do
    if append(ARGV[i], 'a', ARGV[i + 1], 'm', ARGV[i + 2]) then
        redis.call('PUBLISH', ARGV[3] .. '{' .. ARGV[i + 1] .. '}', ARGV[i + 2])
        redis.call('PUBLISH', ARGV[2], ARGV[i + 2])
        appended = appended + 1
    end
end
redis.call('EXPIRE', KEYS[1], ARGV[5])
return appended
"""

# ARGV: position, most entries to look at, most bytes, then the agents wanted (none: all).
# Returns: the stream's last id, 1 where nothing after the position is missing, the last id looked at, messages,
# and the id of a gap that ends them, or ''.
_READ = """
local after, most, bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local info = redis.pcall('XINFO', 'STREAM', KEYS[1])
if info.err then
    if not string.find(info.err, 'no such key', 1, true) then
        error(info)
    end
    return {'0-0', after == '0-0' and 1 or 0, after, {}, ''}
end
local facts = {}
for i = 1, #info, 2 do
    facts[info[i]] = info[i + 1]
end
local last = facts['last-generated-id']
if after == last then
    return {last, 1, after, {}, ''}
end
local whole = false
if after == '0-0' then
    whole = facts['entries-added'] == facts['length']
else
    whole = #redis.call('XRANGE', KEYS[1], after, after) == 1
end
if not whole then
    return {last, 0, after, {}, ''}
end
local wanted = {}
for i = 4, #ARGV do
    wanted[ARGV[i]] = true
end
local found, size, seen = {}, 0, 0
while seen < most and size < bytes do
    local part = redis.call('XRANGE', KEYS[1], '(' .. after, '+', 'COUNT', 50)
    if #part == 0 then
        break
    end
    for _, entry in ipairs(part) do
        local fields = entry[2]
        if fields[1] == 'gap' then
            return {last, 1, after, found, entry[1]}
        end
        if #ARGV < 4 or wanted[fields[2]] then
            found[#found + 1] = fields[4]
            size = size + #fields[4]
        end
        after = entry[1]
    end
    seen = seen + #part
end
return {last, 1, after, found, ''}
"""


@dataclass(frozen=True, slots=True)
class FeedPage:
    """Part of the feed after a position.

    ``complete`` is False where entries after the position were trimmed or lost. ``reached`` is the last position
    looked at, ``last`` the newest of the stream; ``gap`` ends the page where deliveries were lost behind it.
    """

    last: FeedPosition
    complete: bool
    reached: FeedPosition
    messages: Sequence[bytes] = field(repr=False)
    gap: FeedPosition | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedBounds:
    """How much of a tenant's feed is kept: about so many updates, about so many bytes, and so long after the last."""

    length: int = 100_000
    bytes: int = 128 * 1024 * 1024
    idle_seconds: int = 86_400

    def length_for(self, mean_bytes: float) -> int:
        """How many updates of that mean size are kept."""
        return max(1, min(self.length, int(self.bytes / max(mean_bytes, 1.0))))


class UpdateFeed:
    """The feeds of all tenants."""

    def __init__(self, connection: RedisConnection, epoch: UUID) -> None:
        self._connection = connection
        self._epoch = epoch

    async def append(
        self, tenant_id: UUID, events: Sequence[Event], gap: FeedPosition | None, bounds: FeedBounds
    ) -> int:
        """Append and publish one tenant's events, in order, and trim its feed; how many were new.

        ``gap``: up to where deliveries were lost last. It is noted in the feed once, before the first later event.
        """
        keys = TenantKeys(self._epoch, tenant_id)
        lost = "" if gap is None else str(gap)
        appended = 0
        for part, mean_bytes in self._chunks(events):
            length = bounds.length_for(mean_bytes)
            head = (length, keys.all_channel, keys.agent_channel_prefix, lost, bounds.idle_seconds)
            appended += await self._connection.execute("EVAL", _APPEND, 1, keys.feed, *head, *part)
        return appended

    async def read(self, tenant_id: UUID, after: FeedPosition, wanted: Collection[str]) -> FeedPage:
        """A page of messages after a position, of the agents wanted or, where none are named, of all.

        Where more than 1,000 are wanted the page holds others too.
        """
        keys = TenantKeys(self._epoch, tenant_id)
        agents = wanted if len(wanted) <= MAX_FILTER else ()
        command: list[Argument] = ["EVAL", _READ, 1, keys.feed, str(after), PAGE_ENTRIES, PAGE_BYTES, *agents]
        last, complete, reached, messages, gap = await self._connection.execute(*command)
        return FeedPage(_position(last), bool(complete), _position(reached), messages, _position(gap) if gap else None)

    async def last(self, tenant_id: UUID) -> FeedPosition:
        """The newest position of a tenant's feed."""
        command = ("EVAL", _READ, 1, TenantKeys(self._epoch, tenant_id).feed, "0-0", 0, 0)
        return _position((await self._connection.execute(*command))[0])

    def _chunks(self, events: Sequence[Event]) -> Iterator[tuple[list[Argument], float]]:
        """Arguments of some events, and the mean size of their messages."""
        chunk: list[Argument] = []
        size = 0
        for event in events:
            message = encode_update(event, self._epoch)
            if chunk and (size + len(message) > CHUNK_BYTES or len(chunk) >= 3 * CHUNK_EVENTS):
                yield chunk, 3 * size / len(chunk)
                chunk, size = [], 0
            chunk += (str(event.position), str(event.subject_id), message)
            size += len(message)
        if chunk:
            yield chunk, 3 * size / len(chunk)


def _position(text: bytes) -> FeedPosition:
    round_, _, number = text.partition(b"-")
    return FeedPosition(int(round_), int(number))
