"""Reading the outbox as a relay does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import UUID

import asyncpg

from freeagentics_persistence.database.engine import Database
from freeagentics_persistence.domain.events import Event
from freeagentics_persistence.relay.feed_reader import FeedReader
from freeagentics_persistence.relay.shared_reader import SharedReader

MakeReader = Callable[[asyncpg.Connection, str, UUID, int], FeedReader]


@asynccontextmanager
async def making_readers(database: Database) -> AsyncIterator[MakeReader]:
    """Makes readers of (connection for the place, sink, epoch, events in a batch) that share with nobody."""
    shared: list[SharedReader] = []

    def make(connection: asyncpg.Connection, sink: str, epoch: UUID, batch_events: int) -> FeedReader:
        shared.append(SharedReader(database.connect, batch_events))
        return FeedReader(connection, sink, epoch, shared[-1])

    yield make
    for each in shared:
        await each.close()


async def read_all(reader: FeedReader) -> list[Event]:
    """Everything that can be read now."""
    found: list[Event] = []
    while True:
        batch = await reader.next_batch()
        if batch is None:
            return found
        found += batch.events
        await reader.commit(batch)
