"""A circuit breaker: after several failures in a row calls fail at once, so that a hanging server slows no one."""

from __future__ import annotations

import time

FAILURES = 5
PAUSE_SECONDS = 1.0


class CircuitBreaker:
    """Opens after ``failures`` failures in a row; then one call every ``pause`` seconds tries whether it is over."""

    def __init__(self, failures: int = FAILURES, pause: float = PAUSE_SECONDS) -> None:
        self._limit = failures
        self._pause = pause
        self._failures = 0
        self._closed_until = 0.0

    def refuses(self) -> bool:
        """Whether a call must fail at once. Where the answer is no, report its end by succeeded() or failed()."""
        if self._failures < self._limit:
            return False
        now = time.monotonic()
        if now < self._closed_until:
            return True
        self._closed_until = now + self._pause  # this one call tries; the others go on failing at once
        return False

    def succeeded(self) -> None:
        """The server answered."""
        self._failures = 0

    def failed(self) -> None:
        """The server did not answer."""
        self._failures += 1
        if self._failures >= self._limit:
            self._closed_until = time.monotonic() + self._pause
