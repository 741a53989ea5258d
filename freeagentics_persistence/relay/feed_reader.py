"""Reads the outbox completely and in order, whatever transactions run beside it.

Ids are given before commits, so reading `id > last` would pass over events that commit late. Instead the feed is read
in rounds, and a round is what one snapshot of PostgreSQL sees and the snapshot before it did not: every committed event
is in exactly one round, and an open transaction holds back nothing but its own events. Within a round events are read
by id. An agent's ids follow its versions, as they are taken under its row lock, and a later version is never in an
earlier round: its transaction waited for the earlier one to end, so a snapshot that sees the later sees both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from freeagentics_persistence.domain.events import Event, FeedPosition
from freeagentics_persistence.errors import UpdatesError
from freeagentics_persistence.relay.places import Place, PlaceTable

MAX_BATCH_BYTES = 32 * 1024 * 1024
MAX_LOOKS = 1000

_SNAPSHOT = """
SELECT s::text AS snapshot, pg_snapshot_xmin(s)::text::bigint AS xmin, pg_snapshot_xmax(s)::text::bigint AS xmax,
    statement_timestamp() AS moment,  -- before the snapshot, so that nothing committed by then is unseen
    (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS microseconds
FROM pg_current_snapshot() AS s
"""
# LIMIT 1 makes the plan look each entry up by its key, however few rows history had when the plan was made; a batch
# ends with the row that reaches its bound in bytes, which is summed up without reading what is summed
EVENTS = """
SELECT * FROM (
    SELECT e.id, e.tenant_id, e.subject_id, e.type, e.version, e.revision, e.recorded_at, e.data,
        e.kept AND h.revision IS NULL AS forgotten, coalesce(h.belief_state, e.envelope) AS envelope,
        coalesce(h.free_energy, e.free_energy) AS free_energy,
        coalesce(h.belief_entropy, e.belief_entropy) AS belief_entropy,
        coalesce(h.max_belief, e.max_belief) AS max_belief,
        coalesce(h.belief_variance, e.belief_variance) AS belief_variance,
        count(*) OVER () AS found,
        sum(coalesce(octet_length(h.belief_state), octet_length(e.envelope), 0) + coalesce(pg_column_size(e.data), 0))
            OVER (ORDER BY e.id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
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
) AS sized
WHERE coalesce(bytes_before, 0) < $5
ORDER BY id
"""


@dataclass(frozen=True, slots=True)
class Batch:
    """Events to deliver, and the place once they are; with the ``last`` ones the round ends.

    Among them were ``forgotten`` ones: history no longer holds what they point at, so they cannot be delivered.
    """

    events: Sequence[Event]
    then: Place
    last: bool
    forgotten: int


@dataclass(frozen=True, slots=True)
class _Look:
    """One look at the outbox: its snapshot's bounds, the newest id read by then, and when it was."""

    xmin: int
    xmax: int
    newest_id: int
    moment: datetime


class FeedReader:
    """Reads for one sink over one connection, which holds that sink's lock."""

    def __init__(self, connection: asyncpg.Connection, sink: str, epoch: UUID, batch_events: int) -> None:
        self._connection = connection
        self._sink = sink
        self._table = PlaceTable(connection, sink, epoch)
        self._limit = batch_events
        self._floor = 0  # no event of a round to come has an id up to this
        self._newest_id = 0
        self._looks: deque[_Look] = deque()
        self._look: _Look | None = None  # the one that opened the round
        self._untold = 0
        self.place = Place()
        self.watermark: datetime | None = None
        self.missed: FeedPosition | None = None  # up to where events were given up before this sink had them

    async def load(self) -> bool:
        """Take up where this sink was left; False where it starts anew, or with a new epoch."""
        found = await self._table.load()
        if found is None:
            return False
        self.place, self._untold = found
        if self._untold:
            look = await self._connection.fetchrow(_SNAPSHOT)
            self.missed = FeedPosition(max(self.place.open_round, look["microseconds"]), 0)
            self.place = replace(self.place, open_round=self.missed.round, last=self.missed)
        return True

    async def next_batch(self) -> Batch | None:
        """The next events, at most so many and about 32 MiB; None where there are none now.

        Call ``commit`` once they are delivered. Raises UpdatesError where events were given up before this sink had
        them, or history holds none of what is next; ``load`` then tells ``missed``.
        """
        place = self.place
        if place.open is None:
            place = await self._open_round(place)
        bounds = (place.open_id, place.done, place.open, self._limit, MAX_BATCH_BYTES)
        rows = await self._connection.fetch(EVENTS, *bounds)
        if await self._table.missed():  # asked after reading: what had been removed by then is in this count
            raise UpdatesError(
                f"events were given up before sink {self._sink} had received them, and the sink is told of a gap. "
                "Find out why it lagged, or raise RELAY_MAX_BACKLOG_HOURS."
            )
        if not rows:
            self._finish_round(place)
            return None
        if place != self.place:
            # the round is kept before it is delivered, so that a repeated delivery has the same positions
            self.place = place
            await self.store()
        batch = self._batch_of(rows, place)
        if not batch.events:
            await self.commit(batch)  # raises, as all of them are forgotten
        return batch

    async def commit(self, batch: Batch, left_out: int = 0) -> None:
        """The batch is delivered, save for so many events that the sink's server refused for good: keep that.

        Raises UpdatesError where events among them were forgotten, which is kept too; ``load`` then tells ``missed``.
        """
        self.place = replace(batch.then, left_out=batch.then.left_out + left_out)
        if batch.last:
            self._finish_round(self.place)
        await self.store(batch.forgotten)
        if batch.forgotten:
            raise UpdatesError(
                f"history was removed before sink {self._sink} had received it: the sink lacks updates "
                f"({batch.forgotten:,}), and is told of a gap. Keep history longer than RELAY_MAX_BACKLOG_HOURS."
            )

    async def store(self, missed: int = 0) -> None:
        """Keep the place, and that so many more events are missed. Raises NewEpoch."""
        await self._table.store(self.place, self.watermark, missed)

    async def told(self) -> None:
        """The sink knows what it had missed when it was loaded."""
        self.missed = None
        await self.store(-self._untold)
        self._untold = 0

    def _batch_of(self, rows: Sequence[Any], place: Place) -> Batch:
        events = [event_of_row(row, place.open_round) for row in rows if not row["forgotten"]]
        forgotten = len(rows) - len(events)
        end = rows[-1]["id"]
        self._newest_id = max(self._newest_id, end)
        last = events[-1].position if events else place.last
        then = replace(place, open_id=end, last=last, delivered=place.delivered + len(events))
        # a round is not whole, and proves nothing of its moment, before the sink knows what it lacks
        whole = not forgotten and len(rows) == rows[0]["found"] < self._limit
        return Batch(events, then, whole, forgotten)

    async def _open_round(self, place: Place) -> Place:
        row = await self._connection.fetchrow(_SNAPSHOT)
        self._look = _Look(row["xmin"], row["xmax"], self._newest_id, row["moment"])
        self._remember(self._look)
        next_round = max(place.open_round + 1, row["microseconds"])
        return replace(place, open=row["snapshot"], open_round=next_round, open_id=self._floor)

    def _remember(self, look: _Look) -> None:
        if self._looks and self._looks[-1].newest_id == look.newest_id:
            return  # the earlier one proves as much, and sooner
        self._looks.append(look)
        if len(self._looks) > MAX_LOOKS:  # fewer looks prove the same a little later
            self._looks = deque(list(self._looks)[1::2])

    def _finish_round(self, place: Place) -> None:
        self.place = replace(place, done=place.open or place.done, open=None)
        if self._look is None:  # a round that another process had opened
            return
        self.watermark = self._look.moment
        # what is still unseen began after every look that ended before the oldest transaction running now, so it
        # has ids above all that had been read by then
        while self._looks and self._looks[0].xmax <= self._look.xmin:
            self._floor = self._looks.popleft().newest_id


def event_of_row(row: Any, round_: int) -> Event:
    """The event of a row of ``events``, delivered in that round."""
    data = row["data"]
    return Event(
        position=FeedPosition(round_, row["id"]),
        tenant_id=UUID(int=row["tenant_id"].int),
        subject_id=UUID(int=row["subject_id"].int),
        type=row["type"],
        version=row["version"],
        revision=UUID(int=row["revision"].int),
        recorded_at=row["recorded_at"],
        envelope=row["envelope"],
        free_energy=row["free_energy"],
        entropy=row["belief_entropy"],
        max_belief=row["max_belief"],
        variance=row["belief_variance"],
        data=orjson.loads(data) if isinstance(data, str) else data,
    )
