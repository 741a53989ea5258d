"""The garbage collector, while thousands of objects are made at once."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_waits() -> Iterator[None]:
    """Collect after the block instead of again and again within it: nothing that it makes is garbage yet.

    Every collection moves what it meets on, and so brings the full one nearer, which looks at the whole process. For
    blocks of a few milliseconds that do not await. Where the program has switched the collector off, it stays off.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
