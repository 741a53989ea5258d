"""The replayable feed: one capped stream a tenant, whose entry ids are the events' positions.

Appending and publishing is one script. A stream takes only ids above its last one, so a repeated delivery is
recognised exactly: what had been appended had also been published, and is skipped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from uuid import UUID

from freeagentics_persistence.cache.connection import Argument, Command, RedisConnection
from freeagentics_persistence.cache.keys import EpochKeys, TenantKeys
from freeagentics_persistence.cache.updates.feed_marker import sortable
from freeagentics_persistence.cache.updates.update_message import encode_update
from freeagentics_persistence.domain.events import Event, FeedPosition

START = FeedPosition(0, 0)
CHUNK_EVENTS = 500
CHUNK_BYTES = 256 * 1024  # larger ones leave the processor's caches, and cost more an event
CHUNKS_AT_ONCE = 4
PAGE_ENTRIES = 1000
PAGE_BYTES = 4 * 1024 * 1024
MAX_FILTER = 1000

# KEYS: the feed, the marker of deliveries. ARGV: length, bytes, channel of all, prefix of agents' channels, position of
# a gap or '', the same in sortable form, the marker's field of this tenant, the first event's position in sortable
# form, then (id, agent, message) of each event. Entries have the fields a (agent) and m (message), a gap has the field
# gap; s, the last field of each, is how many bytes of messages the feed had received before, which tells the bytes
# between any two entries, however the feed has been trimmed. The newest entry always stays.
# The marker keeps where a feed began: one that began earlier than now, after the last loss that was told, and is not
# there, was lost alone, as by an eviction. Nothing is appended then, and the answer is -1.
_APPEND = """
if redis.call('EXISTS', KEYS[1]) == 0 then
    local begun = redis.call('HGET', KEYS[2], ARGV[7])
    if begun and begun > ARGV[6] and begun < ARGV[8] then
        return -1
    end
    redis.call('HSET', KEYS[2], ARGV[7], ARGV[8])
end
local function start(entry)
    return tonumber(entry[2][#entry[2]])
end
local function size(entry)
    return #entry[2] == 6 and #entry[2][4] or 0
end
local received = 0
for _, entry in ipairs(redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)) do
    received = start(entry) + size(entry)
end
local function is_new(reply)
    if type(reply) == 'table' and reply.err then
        if not string.find(reply.err, 'equal or smaller', 1, true) then
            error(reply)
        end
        return false
    end
    return true
end
local function text(number)
    return string.format('%.0f', number)
end
if ARGV[5] ~= '' then
    is_new(redis.pcall('XADD', KEYS[1], ARGV[5], 'gap', '1', 's', text(received)))
end
local appended = 0
for i = 9, #ARGV, 3 do
    local agent, message = ARGV[i + 1], ARGV[i + 2]
    if is_new(redis.pcall('XADD', KEYS[1], ARGV[i], 'a', agent, 'm', message, 's', text(received))) then
        received = received + #message
        redis.call('PUBLISH', ARGV[4] .. '{' .. agent .. '}', message)
        redis.call('PUBLISH', ARGV[3], message)
        appended = appended + 1
    end
end
redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', ARGV[1])
local function at(from)
    return redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', 1)[1]
end
-- Entries too old are left by leaps within a round, whose ids are nearly dense, as reading each would cost more than
-- to append it: a leap too far is taken back and halved. What remains is walked.
local function oldest_within(bytes)
    local here = at('-')
    local mean = math.max((received - start(here)) / redis.call('XLEN', KEYS[1]), 1)
    local leap = math.floor((received - bytes - start(here)) / mean)
    while leap > 16 do
        local round, id = string.match(here[1], '(%d+)-(%d+)')
        local there = at(round .. '-' .. text(tonumber(id) + leap))
        if there and received - start(there) > bytes then
            here, leap = there, math.floor((received - bytes - start(there)) / mean)
        else
            leap = math.floor(leap / 2)
        end
    end
    while here and received - start(here) > bytes do
        local after = at('(' .. here[1])
        if not after then
            break
        end
        here = after
    end
    return here[1]
end
redis.call('XTRIM', KEYS[1], 'MINID', oldest_within(tonumber(ARGV[2])))
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
    """How much of a tenant's feed is kept: about so many updates, so many bytes of messages, so long after the last."""

    length: int = 100_000
    bytes: int = 128 * 1024 * 1024
    idle_seconds: int = 86_400


@dataclass(slots=True)
class _Chunk:
    """What is appended by one command: the script's arguments of some events, and the bytes of their messages."""

    first: FeedPosition
    arguments: list[Argument]
    size: int


class UpdateFeed:
    """The feeds of all tenants."""

    def __init__(self, connection: RedisConnection, epoch: UUID) -> None:
        self._connection = connection
        self._epoch = epoch

    async def append(
        self, tenant_id: UUID, events: Sequence[Event], gap: FeedPosition | None, bounds: FeedBounds
    ) -> FeedPosition | None:
        """Append and publish one tenant's events, in order, and trim its feed.

        ``gap``: up to where deliveries were lost last. It is noted in the feed once, before the first later event.
        Where Redis has lost this feed alone, nothing more is appended: up to where updates may have been lost is the
        answer, which must be declared before they are appended again.
        """
        own, keys = EpochKeys(self._epoch), TenantKeys(self._epoch, tenant_id)
        lost = ("", "") if gap is None else (str(gap), sortable(gap))
        chunks = self._chunks(events)
        sending: asyncio.Task[FeedPosition | None] | None = None
        try:
            while group := list(islice(chunks, CHUNKS_AT_ONCE)):
                # encoded while the group before it is stored
                commands: list[Command] = []
                for chunk in group:
                    head = (bounds.length, bounds.bytes, keys.all_channel, keys.agent_channel_prefix, *lost)
                    arguments = (*head, f"feed:{tenant_id}", sortable(chunk.first), *chunk.arguments)
                    commands.append(("EVAL", _APPEND, 2, keys.feed, own.feed_marker, *arguments))
                if sending is not None and (missing := await sending) is not None:
                    return missing
                sending = asyncio.create_task(self._send(commands, group))
                await asyncio.sleep(0)
            return None if sending is None else await sending
        finally:
            if sending is not None:
                sending.cancel()

    async def read(self, tenant_id: UUID, after: FeedPosition, wanted: Collection[str]) -> FeedPage:
        """A page of messages after a position, of the agents wanted or, where none are named, of all.

        Where more than 1,000 are wanted the page holds others too.
        """
        keys = TenantKeys(self._epoch, tenant_id)
        agents = wanted if len(wanted) <= MAX_FILTER else ()
        command: list[Argument] = ["EVAL", _READ, 1, keys.feed, str(after), PAGE_ENTRIES, PAGE_BYTES, *agents]
        last, complete, reached, messages, gap = await self._connection.execute(*command)
        return FeedPage(_position(last), bool(complete), _position(reached), messages, _position(gap) if gap else None)

    async def last(self, tenant_ids: Sequence[UUID]) -> list[FeedPosition]:
        """The newest position of each tenant's feed."""
        keys = [TenantKeys(self._epoch, tenant_id) for tenant_id in tenant_ids]
        replies = await self._connection.pipeline([("EVAL", _READ, 1, own.feed, "0-0", 0, 0) for own in keys])
        return [_position(reply[0]) for reply in replies]

    async def _send(self, commands: Sequence[Command], group: Sequence[_Chunk]) -> FeedPosition | None:
        """Append chunks; before which position the feed is missing, None where it is there."""
        for chunk, appended in zip(group, await self._connection.pipeline(commands), strict=True):
            if appended < 0:
                return FeedPosition(chunk.first.round, chunk.first.id - 1)
        return None

    def _chunks(self, events: Sequence[Event]) -> Iterator[_Chunk]:
        chunk, epoch = _Chunk(START, [], 0), str(self._epoch)
        for event in events:
            message = encode_update(event, epoch)
            full = chunk.size + len(message) > CHUNK_BYTES or len(chunk.arguments) >= 3 * CHUNK_EVENTS
            if chunk.arguments and full:
                yield chunk
                chunk = _Chunk(START, [], 0)
            if not chunk.arguments:
                chunk.first = event.position
            chunk.arguments += (f"{event.round}-{event.id}", event.subject, message)
            chunk.size += len(message)
        if chunk.arguments:
            yield chunk


def _position(text: bytes) -> FeedPosition:
    round_, _, number = text.partition(b"-")
    return FeedPosition(int(round_), int(number))
