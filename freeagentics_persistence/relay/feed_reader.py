"""Reads the outbox completely and in order, whatever transactions run beside it.

Ids are given before commits, so reading `id > last` would pass over events that commit late. Instead the feed is
read in rounds: a round [from, to) holds the events whose transaction id lies between the oldest transaction that was
running when the last round began and the oldest that is running now. All of these have ended, so the round is
complete. Within it events are read by id. An agent's ids follow its versions (they are taken under its row lock), and
a later version never falls into an earlier round: its transaction waited for the earlier one to end, so wherever the
later is old enough, the earlier is too.
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

_SNAPSHOT = """
SELECT pg_snapshot_xmin(s)::text::bigint AS xmin, pg_snapshot_xmax(s)::text::bigint AS xmax,
    clock_timestamp() AS moment
FROM pg_current_snapshot() AS s
"""
_EVENTS = """
SELECT id, tenant_id, subject_id, type, version, revision, recorded_at, envelope,
    free_energy, belief_entropy, max_belief, belief_variance, data
FROM events
WHERE id > $1 AND xid >= $2::text::xid8 AND xid < $3::text::xid8
ORDER BY id LIMIT $4
"""
_WAITING = "SELECT EXISTS (SELECT FROM events WHERE id > $1 AND xid >= $2::text::xid8)"
_LOAD = "SELECT epoch, done_horizon, horizon, last_id, delivered FROM relay_positions WHERE sink = $1"
_STORE = """
INSERT INTO relay_positions (sink, epoch, done_horizon, horizon, last_id, delivered, watermark, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, clock_timestamp())
ON CONFLICT (sink) DO UPDATE SET
    epoch = excluded.epoch, done_horizon = excluded.done_horizon, horizon = excluded.horizon,
    last_id = excluded.last_id, delivered = excluded.delivered,
    watermark = coalesce(excluded.watermark, relay_positions.watermark), updated_at = excluded.updated_at
"""


@dataclass(frozen=True, slots=True)
class Place:
    """How far a sink has been served: rounds below ``done_horizon``, and of the round up to ``horizon`` the events
    up to ``last_id``. No round is open where both horizons are equal."""

    done_horizon: int = 0
    horizon: int = 0
    last_id: int = 0
    delivered: int = 0

    @property
    def position(self) -> FeedPosition | None:
        """The last delivered position, None at the very beginning."""
        return FeedPosition(self.horizon, self.last_id) if self.delivered else None


@dataclass(frozen=True, slots=True)
class Batch:
    """Events to deliver, and the place once they are."""

    events: Sequence[Event]
    then: Place


class FeedReader:
    """Reads for one sink over one connection, which holds that sink's lock."""

    def __init__(self, connection: asyncpg.Connection, sink: str, epoch: UUID, batch_events: int) -> None:
        self._connection = connection
        self._sink = sink
        self._epoch = epoch
        self._limit = batch_events
        self._floor = 0  # no event of a round to come has an id up to this
        self._newest_id = 0
        self._snapshots: deque[tuple[int, int, datetime]] = deque()  # (xmax, newest id, moment)
        self.place = Place()
        self.watermark: datetime | None = None

    async def load(self) -> bool:
        """Take up where this sink was left; False where it starts anew, or with a new epoch."""
        row = await self._connection.fetchrow(_LOAD, self._sink)
        known = row is not None and row["epoch"] == self._epoch
        if known:
            self.place = Place(row["done_horizon"], row["horizon"], row["last_id"], row["delivered"])
        else:
            await self.store()
        return known

    async def next_batch(self) -> Batch | None:
        """The next events, None where there are none yet. Call ``commit`` once they are delivered."""
        place = self.place
        if place.horizon == place.done_horizon:
            snapshot = await self._connection.fetchrow(_SNAPSHOT)
            self._snapshots.append((snapshot["xmax"], self._newest_id, snapshot["moment"]))
            if snapshot["xmin"] <= place.done_horizon:
                return None
            place = replace(place, horizon=snapshot["xmin"], last_id=self._floor)
        rows = await self._connection.fetch(
            _EVENTS, place.last_id, str(place.done_horizon), str(place.horizon), self._limit
        )
        if not rows:
            self._finish_round(place)
            return None
        if place != self.place:
            # the round is kept before it is delivered, so that a repeated delivery has the same positions
            self.place = place
            await self.store()
        self._newest_id = max(self._newest_id, rows[-1]["id"])
        then = replace(place, last_id=rows[-1]["id"], delivered=place.delivered + len(rows))
        return Batch([event_of_row(row, place.horizon) for row in rows], then)

    async def commit(self, batch: Batch) -> None:
        """The batch is delivered: keep that."""
        self.place = batch.then
        if len(batch.events) < self._limit:
            self._finish_round(self.place)
        await self.store()

    async def has_waiting(self) -> bool:
        """Whether committed events wait for an older transaction to end."""
        floor = self._floor if self.place.horizon == self.place.done_horizon else self.place.last_id
        return bool(await self._connection.fetchval(_WAITING, floor, str(self.place.done_horizon)))

    async def store(self) -> None:
        """Keep the place."""
        place = self.place
        await self._connection.execute(
            _STORE,
            self._sink,
            self._epoch,
            place.done_horizon,
            place.horizon,
            place.last_id,
            place.delivered,
            self.watermark,
        )

    def _finish_round(self, place: Place) -> None:
        self.place = replace(place, done_horizon=place.horizon)
        # what began after a snapshot has larger ids, and what ended before it is delivered, once all that it
        # could have seen running has been
        while self._snapshots and self._snapshots[0][0] <= place.horizon:
            _, self._floor, self.watermark = self._snapshots.popleft()


def event_of_row(row: Any, horizon: int) -> Event:
    """The event of a row of ``events``, delivered in the round of that horizon."""
    data = row["data"]
    return Event(
        position=FeedPosition(horizon, row["id"]),
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
