"""How much memory and disk this machine lets us plan with."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

MIB = 1024 * 1024
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def memory_bytes() -> int:
    """Memory of the machine, or of the container where that is less."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in _CGROUP_LIMITS:
        # "max", or a file that is not there: no limit.
        with contextlib.suppress(OSError, ValueError):
            total = min(total, int(path.read_text()))
    return total


def share_of_memory(fraction: float, *, least: int, most: int) -> int:
    """A fraction of the memory in bytes, within bounds in MiB."""
    return max(least * MIB, min(most * MIB, int(memory_bytes() * fraction)))


def share_of_disk(folder: Path, fraction: float, *, least: int, most: int) -> int:
    """A fraction of the free disk space in bytes, within bounds in MiB."""
    return max(least * MIB, min(most * MIB, int(shutil.disk_usage(folder).free * fraction)))
