"""The epoch that an open store lives in, and its end."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from freeagentics_persistence.errors import NewEpoch


class Epoch:
    """One unbroken life of the database, shared by all that belongs to one open store.

    Whoever learns first that a new one began calls ``end``; from then on every way into the store is refused.
    """

    def __init__(self, epoch_id: UUID) -> None:
        self.id = epoch_id
        self.ended = False
        self._listeners: set[Callable[[], None]] = set()

    def require(self) -> None:
        """Raise NewEpoch where this one has ended."""
        if self.ended:
            raise NewEpoch

    def end(self) -> None:
        """A new epoch has begun: tell all who listen, once."""
        if not self.ended:
            self.ended = True
            while self._listeners:
                self._listeners.pop()()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` when this epoch ends."""
        self._listeners.add(listener)

    def ignore(self, listener: Callable[[], None]) -> None:
        """Call it no longer."""
        self._listeners.discard(listener)
