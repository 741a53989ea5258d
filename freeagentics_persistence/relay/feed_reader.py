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

BEGINNING = "1:1:"  # the snapshot that sees nothing

_SNAPSHOT = """
SELECT s::text AS snapshot, pg_snapshot_xmin(s)::text::bigint AS xmin, pg_snapshot_xmax(s)::text::bigint AS xmax,
    statement_timestamp() AS moment,  -- before the snapshot, so that nothing committed by then is unseen
    (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS microseconds
FROM pg_current_snapshot() AS s
"""
# LIMIT 1 makes the plan look each entry up by its key, however few rows history had when the plan was made
EVENTS = """
SELECT e.id, e.tenant_id, e.subject_id, e.type, e.version, e.revision, e.recorded_at, e.data,
    e.kept AND h.revision IS NULL AS forgotten, coalesce(h.belief_state, e.envelope) AS envelope,
    coalesce(h.free_energy, e.free_energy) AS free_energy,
    coalesce(h.belief_entropy, e.belief_entropy) AS belief_entropy,
    coalesce(h.max_belief, e.max_belief) AS max_belief,
    coalesce(h.belief_variance, e.belief_variance) AS belief_variance
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
ORDER BY e.id
"""
_LOAD = """
SELECT epoch, done_snapshot::text AS done_snapshot, open_snapshot::text AS open_snapshot, open_round, open_id,
    last_round, last_id, delivered, missed
FROM relay_positions WHERE sink = $1
"""
_REGISTER = """
INSERT INTO relay_positions AS known (sink, epoch, done_snapshot) VALUES ($1, $2, $3::text::pg_snapshot)
ON CONFLICT (sink) DO UPDATE SET
    epoch = excluded.epoch, done_snapshot = excluded.done_snapshot, open_snapshot = NULL, open_round = 0, open_id = 0,
    last_round = 0, last_id = 0, delivered = 0, watermark = NULL, missed = false, updated_at = clock_timestamp()
WHERE known.epoch <> excluded.epoch
"""
_MISSED = "UPDATE relay_positions SET missed = true WHERE sink = $1"
_TOLD = "UPDATE relay_positions SET missed = false WHERE sink = $1"
_STORE = """
INSERT INTO relay_positions (
    sink, epoch, done_snapshot, open_snapshot, open_round, open_id, last_round, last_id, delivered, watermark,
    updated_at)
VALUES ($1, $2, $3::text::pg_snapshot, $4::text::pg_snapshot, $5, $6, $7, $8, $9, $10, clock_timestamp())
ON CONFLICT (sink) DO UPDATE SET
    epoch = excluded.epoch, done_snapshot = excluded.done_snapshot, open_snapshot = excluded.open_snapshot,
    open_round = excluded.open_round, open_id = excluded.open_id, last_round = excluded.last_round,
    last_id = excluded.last_id, delivered = excluded.delivered,
    watermark = coalesce(excluded.watermark, relay_positions.watermark), updated_at = excluded.updated_at
"""


@dataclass(frozen=True, slots=True)
class Place:
    """How far a sink has been served: all that ``done`` sees and, of the round that ``open`` ends, up to ``open_id``.

    ``last`` is the last position that was delivered, None at the very beginning.
    """

    done: str = BEGINNING
    open: str | None = None
    open_round: int = 0
    open_id: int = 0
    last: FeedPosition | None = None
    delivered: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """Events to deliver, and the place once they are."""

    events: Sequence[Event]
    then: Place


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
        self._epoch = epoch
        self._limit = batch_events
        self._floor = 0  # no event of a round to come has an id up to this
        self._newest_id = 0
        self._looks: deque[_Look] = deque()
        self._look: _Look | None = None  # the one that opened the round
        self.place = Place()
        self.watermark: datetime | None = None
        self.missed: FeedPosition | None = None  # up to where events were given up before this sink had them

    async def load(self) -> bool:
        """Take up where this sink was left; False where it starts anew, or with a new epoch."""
        row = await self._connection.fetchrow(_LOAD, self._sink)
        known = row is not None and row["epoch"] == self._epoch
        if row is not None and known:
            self.place = Place(
                done=row["done_snapshot"],
                open=row["open_snapshot"],
                open_round=row["open_round"],
                open_id=row["open_id"],
                last=FeedPosition(row["last_round"], row["last_id"]) if row["delivered"] else None,
                delivered=row["delivered"],
            )
            if row["missed"]:
                look = await self._connection.fetchrow(_SNAPSHOT)
                self.missed = FeedPosition(max(self.place.open_round, look["microseconds"]), 0)
                self.place = replace(self.place, open_round=self.missed.round, last=self.missed)
        else:
            await self.store()
        return known

    async def next_batch(self) -> Batch | None:
        """The next events, None where there are none now. Call ``commit`` once they are delivered.

        Raises UpdatesError, and has passed the batch over as missed, where history no longer holds what its events
        point at.
        """
        place = self.place
        if place.open is None:
            place = await self._open_round(place)
        rows = await self._connection.fetch(EVENTS, place.open_id, place.done, place.open, self._limit)
        if not rows:
            self._finish_round(place)
            return None
        if place != self.place:
            # the round is kept before it is delivered, so that a repeated delivery has the same positions
            self.place = place
            await self.store()
        end = FeedPosition(place.open_round, rows[-1]["id"])
        self._newest_id = max(self._newest_id, end.id)
        then = replace(place, open_id=end.id, last=end, delivered=place.delivered + len(rows))
        if any(row["forgotten"] for row in rows):
            await self._connection.execute(_MISSED, self._sink)
            self.place = then
            await self.store()
            raise UpdatesError(
                f"history was removed before sink {self._sink} had received it: {len(rows):,} updates are passed over, "
                "and the sink is told of a gap. Keep history longer than RELAY_MAX_BACKLOG_HOURS."
            )
        return Batch([event_of_row(row, place.open_round) for row in rows], then)

    async def commit(self, batch: Batch) -> None:
        """The batch is delivered: keep that."""
        self.place = batch.then
        if len(batch.events) < self._limit:
            self._finish_round(self.place)
        await self.store()

    async def store(self) -> None:
        """Keep the place."""
        place = self.place
        await self._connection.execute(
            _STORE,
            self._sink,
            self._epoch,
            place.done,
            place.open,
            place.open_round,
            place.open_id,
            place.last.round if place.last else 0,
            place.last.id if place.last else 0,
            place.delivered,
            self.watermark,
        )

    async def told(self) -> None:
        """The sink knows what it has missed."""
        self.missed = None
        await self.store()
        await self._connection.execute(_TOLD, self._sink)

    async def _open_round(self, place: Place) -> Place:
        row = await self._connection.fetchrow(_SNAPSHOT)
        self._look = _Look(row["xmin"], row["xmax"], self._newest_id, row["moment"])
        self._looks.append(self._look)
        next_round = max(place.open_round + 1, row["microseconds"])
        return replace(place, open=row["snapshot"], open_round=next_round, open_id=self._floor)

    def _finish_round(self, place: Place) -> None:
        self.place = replace(place, done=place.open or place.done, open=None)
        if self._look is None:  # a round that another process had opened
            return
        self.watermark = self._look.moment
        # what is still unseen began after every look that ended before the oldest transaction running now, so it
        # has ids above all that had been read by then
        while self._looks and self._looks[0].xmax <= self._look.xmin:
            self._floor = self._looks.popleft().newest_id


async def register(connection: asyncpg.Connection, sinks: Sequence[str], epoch: UUID) -> None:
    """Make events wait for these sinks from now on; those known in this epoch keep their place."""
    for sink in sinks:
        await connection.execute(_REGISTER, sink, epoch, BEGINNING)


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
