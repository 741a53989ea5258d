"""Waiting that ends when nothing moves any more, and tells what it is waiting for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from freeagentics_persistence.errors import ServerDidNotStart

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable


class Abandoned(Exception):
    """The caller was cancelled while it waited."""


class Patience:
    """Waits as long as there is progress, and ``seconds`` longer.

    ``report`` gets each new message once; ``abandon``, once set, ends the wait with ``Abandoned``.
    """

    def __init__(self, seconds: float, report: Callable[[str], None], abandon: threading.Event) -> None:
        self._seconds = seconds
        self._report = report
        self._abandon = abandon
        self._began = time.monotonic()
        self._deadline = self._began + seconds
        self._seen: dict[str, object] = {}
        self._said: str | None = None
        self._copy: Callable[[str], None] | None = None

    def copy_to(self, copy: Callable[[str], None] | None) -> None:
        """From now on give every message to ``copy`` too; None ends that."""
        self._copy = copy

    def say(self, message: str) -> None:
        """Report a message unless it was the last one; a message counts as progress."""
        if message != self._said:
            self._said = message
            self._report(message)
            if self._copy is not None:
                self._copy(message)
            self._renew()

    def saw(self, what: str, state: object) -> None:
        """Note the state of something that is awaited; a change counts as progress."""
        if self._seen.get(what) != state:
            self._seen[what] = state
            self._renew()

    def pause(self, waiting_for: str) -> None:
        """Sleep a little, longer after the first second. Raises ServerDidNotStart where nothing moves."""
        if self._abandon.wait(0.01 if time.monotonic() < self._began + 1 else 0.1):
            raise Abandoned
        if time.monotonic() > self._deadline:
            raise ServerDidNotStart(
                f"{waiting_for}: no progress for {self._seconds:g} s. "
                "If the machine is busy, raise start_timeout; otherwise look at the log and end the process that hangs."
            )

    def _renew(self) -> None:
        self._deadline = time.monotonic() + self._seconds
