"""How far each sink has been served, as ``relay_positions`` keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from freeagentics_persistence.domain.events import FeedPosition
from freeagentics_persistence.errors import NewEpoch

BEGINNING = "1:1:"  # the snapshot that sees nothing

_REGISTER = """
INSERT INTO relay_positions AS known (sink, epoch, done_snapshot) VALUES ($1, $2, $3::text::pg_snapshot)
ON CONFLICT (sink) DO UPDATE SET
    epoch = excluded.epoch, done_snapshot = excluded.done_snapshot, open_snapshot = NULL, open_round = 0, open_id = 0,
    last_round = 0, last_id = 0, delivered = 0, left_out = 0, watermark = NULL, missed = 0, retired = false,
    reached_id = NULL, reached_at = NULL,
    updated_at = clock_timestamp()
WHERE known.epoch <> excluded.epoch
"""
# nothing was kept for a sink while it was retired
_WANTED = """
UPDATE relay_positions SET wanted_at = clock_timestamp(), missed = missed + retired::integer, retired = false
WHERE sink = $1
"""
_LOAD = """
SELECT done_snapshot::text AS done_snapshot, open_snapshot::text AS open_snapshot, open_round, open_id,
    last_round, last_id, delivered, left_out, missed, coalesce(reached_id, last_id) AS reached_id
FROM relay_positions WHERE sink = $1 AND epoch = $2
"""
_STORE = """
UPDATE relay_positions SET
    done_snapshot = $3::text::pg_snapshot, open_snapshot = $4::text::pg_snapshot, open_round = $5, open_id = $6,
    last_round = $7, last_id = $8, delivered = $9, left_out = $10, watermark = coalesce($11, watermark),
    missed = missed + $12, reached_id = $14, reached_at = clock_timestamp(), updated_at = clock_timestamp()
WHERE sink = $1 AND epoch = $2 AND set_config('synchronous_commit', $13, true) IS NOT NULL
RETURNING missed
"""
_MISSED = "SELECT missed FROM relay_positions WHERE sink = $1"


@dataclass(frozen=True, slots=True)
class Place:
    """How far a sink has been served: all that ``done`` sees and, of the round that ``open`` ends, up to ``open_id``.

    ``last`` is the last position that was delivered or told as lost, None at the very beginning. ``left_out`` of the
    ``delivered`` events were refused by the sink's server for good. ``reached`` is the id up to which, but for events
    of transactions that ran meanwhile, the sink has all.
    """

    done: str = BEGINNING
    open: str | None = None
    open_round: int = 0
    open_id: int = 0
    last: FeedPosition | None = None
    delivered: int = 0
    left_out: int = 0
    reached: int = 0


class PlaceTable:
    """The row of one sink in one epoch."""

    def __init__(self, connection: asyncpg.Connection, sink: str, epoch: UUID) -> None:
        self._connection = connection
        self._sink = sink
        self._epoch = epoch

    async def load(self) -> tuple[Place, int] | None:
        """The place, and how many events were given up before the sink had them; None where it starts anew."""
        row = await self._connection.fetchrow(_LOAD, self._sink, self._epoch)
        if row is None:
            await register(self._connection, [self._sink], self._epoch)
            return None
        place = Place(
            done=row["done_snapshot"],
            open=row["open_snapshot"],
            open_round=row["open_round"],
            open_id=row["open_id"],
            last=FeedPosition(row["last_round"], row["last_id"]) if row["last_round"] else None,
            delivered=row["delivered"],
            left_out=row["left_out"],
            reached=row["reached_id"],
        )
        return place, row["missed"]

    async def store(self, place: Place, watermark: datetime | None, missed: int = 0, *, durably: bool = True) -> int:
        """Keep the place, and in one with it that so many more events are missed; fewer, once the sink was told.

        How many are missed then. What is not stored ``durably`` is in effect at once, and may be undone by a crash of
        the server. Raises NewEpoch where the row is of another epoch by now.
        """
        found = await self._connection.fetchval(
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
            place.left_out,
            watermark,
            missed,
            "on" if durably else "off",
            place.reached,
        )
        if found is None:
            raise NewEpoch
        return int(found)

    async def missed(self) -> int:
        """How many events were given up before the sink had them, and it has not been told of."""
        return int(await self._connection.fetchval(_MISSED, self._sink) or 0)


async def register(connection: asyncpg.Connection, sinks: Sequence[str], epoch: UUID) -> None:
    """Make events wait for these sinks from now on; those known in this epoch keep their place."""
    for sink in sinks:
        await connection.execute(_REGISTER, sink, epoch, BEGINNING)
        await connection.execute(_WANTED, sink)
