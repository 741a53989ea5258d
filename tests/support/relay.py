"""Reading the outbox as a relay does."""

from __future__ import annotations

from freeagentics_persistence.domain.events import Event
from freeagentics_persistence.relay.feed_reader import FeedReader


async def read_all(reader: FeedReader) -> list[Event]:
    """Everything that can be read now."""
    found: list[Event] = []
    while True:
        batch = await reader.next_batch()
        if batch is None:
            return found
        found += batch.events
        await reader.commit(batch)
