"""Reads the outbox over one connection, and remembers what its looks prove."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter
from typing import Any

import asyncpg
import orjson

from freeagentics_persistence.domain.events import Event

MAX_BATCH_BYTES = 16 * 1024 * 1024
MAX_LOOKS = 1000

_SNAPSHOT = """
SELECT s::text AS snapshot, pg_snapshot_xmin(s)::text::bigint AS xmin, pg_snapshot_xmax(s)::text::bigint AS xmax,
    statement_timestamp() AS moment,  -- before the snapshot, so that nothing committed by then is unseen
    (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS microseconds,
    (SELECT last_value FROM events_id_seq) AS handed_out
FROM pg_current_snapshot() AS s
"""
# The columns of Event, in its order; no type where history lacks what is pointed at. LIMIT 1 makes the plan look each
# entry up by its key, however few rows history had when the plan was made; a batch ends with the row that reaches its
# bound in bytes, which is summed up without reading what is summed.
EVENTS = """
SELECT round, id, tenant_id::text, subject_id::text, type, version, revision::text, recorded_at, envelope, free_energy,
    belief_entropy, max_belief, belief_variance, data, bytes
FROM (
    SELECT $6::bigint AS round, e.id, e.tenant_id, e.subject_id,
        CASE WHEN NOT e.kept OR h.revision IS NOT NULL THEN e.type END AS type, e.version, e.revision, e.recorded_at,
        coalesce(h.belief_state, e.envelope) AS envelope, coalesce(h.free_energy, e.free_energy) AS free_energy,
        coalesce(h.belief_entropy, e.belief_entropy) AS belief_entropy,
        coalesce(h.max_belief, e.max_belief) AS max_belief,
        coalesce(h.belief_variance, e.belief_variance) AS belief_variance, e.data,
        z.size, sum(z.size) OVER (ORDER BY e.id ROWS UNBOUNDED PRECEDING) AS bytes
    FROM (
        SELECT * FROM events
        WHERE id > $1 AND NOT pg_visible_in_snapshot(xid, $2::text::pg_snapshot)
            AND pg_visible_in_snapshot(xid, $3::text::pg_snapshot)
        ORDER BY id LIMIT $4
    ) AS e
    LEFT JOIN LATERAL (
        SELECT * FROM agent_history h
        WHERE e.kept AND h.tenant_id = e.tenant_id AND h.agent_id = e.subject_id AND h.recorded_at = e.recorded_at
            AND h.revision = e.revision
        LIMIT 1
    ) AS h ON true
    CROSS JOIN LATERAL (
        SELECT coalesce(octet_length(h.belief_state), octet_length(e.envelope), 0)
            + coalesce(pg_column_size(e.data), 0) AS size
    ) AS z
) AS sized
WHERE bytes - size < $5
ORDER BY id
"""
_columns_of_event = itemgetter(slice(len(Event._fields)))


@dataclass(frozen=True, slots=True)
class Start:
    """Where a reading begins: what ``done`` sees is behind it, and of the round that ``open`` ends, up to ``id``."""

    done: str
    open: str | None
    round: int
    id: int


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read: ``events`` of the round that ``open`` ends, from after ``begin`` to ``end``.

    ``forgotten`` is how many more there were whose history is gone; ``whole`` where the round ends with it. ``look``
    and ``moment`` are of the look that opened the round: its number, 0 where another process had taken it, and when.
    """

    open: str
    round: int
    begin: int
    end: int
    events: Sequence[Event] = field(repr=False)
    forgotten: int
    whole: bool
    look: int
    moment: datetime | None
    handed_out: int  # ids up to there had been given when the round was opened
    weight: float  # as part of the largest batch there may be


@dataclass(frozen=True, slots=True)
class _Look:
    """One look at the outbox: its snapshot with its bounds, the newest id known by then, and when it was.

    No event that it does not see has an id up to ``floor``.
    """

    number: int
    snapshot: str
    xmin: int
    xmax: int
    newest_id: int
    floor: int
    moment: datetime
    round: int
    handed_out: int


class OutboxReader:
    """Reads one batch after another, of any place. It connects when it is first asked to, and again after an error."""

    def __init__(self, connect: Callable[[], Awaitable[asyncpg.Connection]], batch_events: int) -> None:
        self._connect = connect
        self._limit = batch_events
        self._connection: asyncpg.Connection | None = None
        self._one_at_a_time = asyncio.Lock()
        self._newest_id = 0
        self._floor = 0
        self._unended: deque[_Look] = deque()  # while transactions run that were running then
        self._looks: OrderedDict[str, _Look] = OrderedDict()
        self.looks = 0

    async def read(self, start: Start, since: int) -> Reading:
        """What begins there. ``since`` is the number of a look that was taken no earlier than ``start.done``."""
        async with self._one_at_a_time:
            try:
                return await self._read_from(start, since)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Give up the connection: terminated, as a cancelled statement may be under way."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    def mark(self) -> int:
        """A number between the looks so far and those to come.

        For a place that was just loaded: a server that has crashed may give transaction ids again that a look of
        before the crash had seen as ended.
        """
        self.looks += 1
        return self.looks

    async def _read_from(self, start: Start, since: int) -> Reading:
        connection = await self._connected()
        opened, round_, begin = start.open, start.round, start.id
        if opened is None:
            look = next(reversed(self._looks.values()), None)
            if look is None or look.number <= since or look.round <= start.round:
                look = await self._take_look(connection, start.round + 1)
            behind = self._looks.get(start.done)
            opened, round_, begin = look.snapshot, look.round, 0 if behind is None else behind.floor
        else:
            look = self._looks.get(opened)
        rows = await connection.fetch(EVENTS, begin, start.done, opened, self._limit, MAX_BATCH_BYTES, round_)
        events = [Event._make(columns) for columns in map(_columns_of_event, rows)]
        end, size = (rows[-1]["id"], int(rows[-1]["bytes"])) if rows else (begin, 0)
        self._newest_id = max(self._newest_id, end)
        there = [event for event in events if event.type is not None]
        return Reading(
            open=opened,
            round=round_,
            begin=begin,
            end=end,
            events=there,
            forgotten=len(events) - len(there),
            whole=len(rows) < self._limit and size < MAX_BATCH_BYTES,
            look=0 if look is None else look.number,
            moment=None if look is None else look.moment,
            handed_out=0 if look is None else look.handed_out,
            weight=max(len(rows) / self._limit, size / MAX_BATCH_BYTES),
        )

    async def _take_look(self, connection: asyncpg.Connection, least_round: int) -> _Look:
        self.looks += 1  # before it is taken: whoever counts them now knows of none that is older
        number, newest = self.looks, self._newest_id
        row = await connection.fetchrow(_SNAPSHOT)
        xmin, xmax = row["xmin"], row["xmax"]
        # what is still unseen began after every look that ended before the oldest transaction running now, so it
        # has ids above all that were known by then
        if not self._unended or self._unended[-1].newest_id < newest:  # else the earlier proves as much, and sooner
            bare = _Look(number, row["snapshot"], xmin, xmax, newest, 0, row["moment"], 0, 0)
            self._unended.append(bare)
        if len(self._unended) > MAX_LOOKS:  # fewer prove the same a little later
            self._unended = deque(list(self._unended)[1::2])
        while self._unended and self._unended[0].xmax <= xmin:
            self._floor = self._unended.popleft().newest_id
        look = _Look(
            number=number,
            snapshot=row["snapshot"],
            xmin=xmin,
            xmax=xmax,
            newest_id=newest,
            floor=self._floor,
            moment=row["moment"],
            round=max(least_round, row["microseconds"]),
            handed_out=row["handed_out"],
        )
        self._looks.pop(look.snapshot, None)
        self._looks[look.snapshot] = look
        if len(self._looks) > MAX_LOOKS:
            self._looks.popitem(last=False)
        return look

    async def _connected(self) -> asyncpg.Connection:
        if self._connection is None:
            connection = await self._connect()
            try:
                await connection.set_type_codec("jsonb", encoder=_as_text, decoder=orjson.loads, schema="pg_catalog")
                self._newest_id = max(
                    self._newest_id, await connection.fetchval("SELECT coalesce(max(id), 0) FROM events")
                )
            except BaseException:
                connection.terminate()
                raise
            self._connection = connection
        return self._connection


def _as_text(value: Any) -> str:
    return orjson.dumps(value).decode()
