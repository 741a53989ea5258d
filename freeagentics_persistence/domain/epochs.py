"""The epoch that an open store lives in, and its end."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from freeagentics_persistence.errors import NewEpoch, StoreClosed


class Epoch:
    """One unbroken life of the database as one open store lives it, shared by all that belongs to the store.

    It ends once: a new one began, as whoever learns it first says, or the store was closed. From then on every way
    into the store is refused for that reason.
    """

    def __init__(self, epoch_id: UUID) -> None:
        self.id = epoch_id
        self._reason: type[NewEpoch | StoreClosed] | None = None
        self._listeners: set[Callable[[], None]] = set()

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self._reason is not None

    def require(self) -> None:
        """Raise NewEpoch or StoreClosed where this one has ended."""
        if self._reason is not None:
            raise self._reason

    def end(self, reason: type[NewEpoch | StoreClosed] = NewEpoch) -> None:
        """It is over: tell all who listen, once. The first ``reason`` stays."""
        if self._reason is None:
            self._reason = reason
            while self._listeners:
                self._listeners.pop()()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` when this epoch ends, at once where it has ended."""
        if self.ended:
            listener()
        else:
            self._listeners.add(listener)

    def ignore(self, listener: Callable[[], None]) -> None:
        """Call it no longer."""
        self._listeners.discard(listener)
