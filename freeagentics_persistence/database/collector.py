"""The garbage collector, while thousands of objects are made at once."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_depth = 0  # how many blocks of all threads are under way
_was_on = False


@contextmanager
def collector_waits() -> Iterator[None]:
    """Collect after the block instead of again and again within it: nothing that it makes is garbage yet.

    Every collection moves what it meets on, and so brings the full one nearer, which looks at the whole process. For
    blocks of a few milliseconds that do not await. Threads may have such blocks at once: the first switches the
    collector off, and the last on again where it was on.
    """
    global _depth, _was_on
    with _lock:
        if _depth == 0:
            _was_on = gc.isenabled()
            gc.disable()
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0 and _was_on:
                gc.enable()
