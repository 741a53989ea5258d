"""Sinks: where the relay carries events."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from freeagentics_persistence.domain.events import Event, FeedPosition


class Sink(Protocol):
    """Takes events at least once, in the feed's order: one agent's events come by version.

    ``name`` keeps its place in the feed across processes. A sink raises an error of our tree where it cannot take
    a batch; the relay then offers the same batch again.
    """

    name: str

    async def resume(self, position: FeedPosition | None) -> None:
        """This process serves the sink from now on; ``position`` is the last that was delivered, None if none was."""

    async def resume_after_loss(self, position: FeedPosition) -> None:
        """Like ``resume``, where events up to ``position`` were given up before they were delivered."""

    async def deliver(self, events: Sequence[Event]) -> int:
        """Take a batch. Returning means that it is kept, save for so many events that can never be."""

    async def caught_up(self, moment: datetime) -> None:
        """All commits up to ``moment`` of PostgreSQL's clock have been delivered."""
