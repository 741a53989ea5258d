"""Reads the outbox completely and in order, whatever transactions run beside it.

Ids are given before commits, so reading `id > last` would pass over events that commit late. Instead the feed is read
in rounds, and a round is what one snapshot of PostgreSQL sees and the snapshot before it did not: every committed event
is in exactly one round, and an open transaction holds back nothing but its own events. Within a round events are read
by id. An agent's ids follow its versions, as they are taken under its row lock, and a later version is never in an
earlier round: its transaction waited for the earlier one to end, so a snapshot that sees the later sees both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

import asyncpg

from freeagentics_persistence.domain.events import Event, FeedPosition
from freeagentics_persistence.errors import UpdatesError
from freeagentics_persistence.relay.outbox_reader import Reading, Start
from freeagentics_persistence.relay.places import Place, PlaceTable
from freeagentics_persistence.relay.shared_reader import SharedReader

_NOW = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"


@dataclass(frozen=True, slots=True)
class Batch:
    """Events to deliver, and the place once they are; with the ``last`` ones the round ends.

    Among them were ``forgotten`` ones: history no longer holds what they point at, so they cannot be delivered.
    """

    events: Sequence[Event] = field(repr=False)
    then: Place
    last: bool
    forgotten: int


class FeedReader:
    """Goes on from one sink's place, which it keeps over one connection, that holds the sink's lock."""

    def __init__(self, connection: asyncpg.Connection, sink: str, epoch: UUID, shared: SharedReader) -> None:
        self._connection = connection
        self._sink = sink
        self._table = PlaceTable(connection, sink, epoch)
        self._shared = shared
        self._follower = shared.follow()
        self._since = shared.mark()  # the number of a look that is no older than the place
        self._reading: Reading | None = None
        self._untold = 0
        self.place = Place()
        self.watermark: datetime | None = None
        self.missed: FeedPosition | None = None  # up to where events were given up before this sink had them

    def close(self) -> None:
        """Read no more."""
        self._follower.close()

    async def load(self) -> bool:
        """Take up where this sink was left; False where it starts anew, or with a new epoch."""
        found = await self._table.load()
        self._since = self._shared.mark()
        if found is None:
            return False
        self.place, self._untold = found
        if self._untold:
            now = await self._connection.fetchval(_NOW)
            self.missed = FeedPosition(max(self.place.open_round, now), 0)
            self.place = replace(self.place, open_round=self.missed.round, last=self.missed)
        return True

    async def next_batch(self) -> Batch | None:
        """The next events, at most so many and about 16 MiB; None where there were none when this was called.

        Call ``commit`` once they are delivered. Raises UpdatesError where events were given up before this sink had
        them, or history holds none of what is next; ``load`` then tells ``missed``.
        """
        looks_before = self._shared.looks
        while True:
            place = self.place
            reading = await self._follower.next(_start(place), self._since)
            opened = replace(place, open=reading.open, open_round=reading.round, open_id=reading.begin)
            nothing = not reading.events and not reading.forgotten
            if nothing or opened == place:
                missed = await self._table.missed()
            else:
                # the round is kept before it is delivered, so that a repeated delivery has the same positions
                self.place = opened
                missed = await self.store()
            if missed:  # asked after reading: what had been removed by then is in this count
                raise UpdatesError(
                    f"events were given up before sink {self._sink} had received them, and the sink is told of a gap. "
                    "Find out why it lagged, or raise RELAY_MAX_BACKLOG_HOURS."
                )
            if not nothing:
                break
            self._finish_round(opened, reading)
            if reading.look > looks_before:
                return None
        batch = self._batch_of(reading, opened)
        self._reading = reading
        if not batch.last and not batch.forgotten:
            self._follower.look_ahead(_start(batch.then), self._since)
        if not batch.events:
            await self.commit(batch)  # raises, as all of them are forgotten
        return batch

    async def commit(self, batch: Batch, left_out: int = 0) -> None:
        """The batch is delivered, save for so many events that the sink's server refused for good: keep that.

        Raises UpdatesError where events among them were forgotten, which is kept too; ``load`` then tells ``missed``.
        """
        self.place = replace(batch.then, left_out=batch.then.left_out + left_out)
        if batch.last and self._reading is not None:
            self._finish_round(self.place, self._reading)
        # a place that a crash of the server undoes is reached again by the same deliveries
        await self._table.store(self.place, self.watermark, batch.forgotten, durably=bool(batch.forgotten))
        if batch.forgotten:
            raise UpdatesError(
                f"history was removed before sink {self._sink} had received it: the sink lacks updates "
                f"({batch.forgotten:,}), and is told of a gap. Keep history longer than RELAY_MAX_BACKLOG_HOURS."
            )

    async def store(self) -> int:
        """Keep the place; how many events are missed. Raises NewEpoch."""
        return await self._table.store(self.place, self.watermark)

    async def told(self) -> None:
        """The sink knows what it had missed when it was loaded."""
        self.missed = None
        await self._table.store(self.place, self.watermark, -self._untold)
        self._untold = 0

    def _batch_of(self, reading: Reading, place: Place) -> Batch:
        events = reading.events
        last = events[-1].position if events else place.last
        delivered, reached = place.delivered + len(events), max(place.reached, reading.end)
        then = replace(place, open_id=reading.end, last=last, delivered=delivered, reached=reached)
        # a round is not whole, and proves nothing of its moment, before the sink knows what it lacks
        return Batch(events, then, reading.whole and not reading.forgotten, reading.forgotten)

    def _finish_round(self, place: Place, reading: Reading) -> None:
        self.place = replace(place, done=reading.open, open=None, reached=max(place.reached, reading.handed_out))
        if reading.moment is not None:  # None of a round that another process had opened
            self.watermark, self._since = reading.moment, max(self._since, reading.look)


def _start(place: Place) -> Start:
    # between rounds no id counts: sinks whose last rounds ended with different events are at the same place
    return Start(place.done, place.open, place.open_round, 0 if place.open is None else place.open_id)
