"""Advisory locks that the kernel frees when their holders die.

A flock(2) lock belongs to an open file, not to a process: a child that inherits the descriptor holds the
lock too, until the last of them has closed it. The servers inherit a locked descriptor each, so "the lock is
taken" means "a process of that server is alive", whatever pid files say.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class FileLock:
    """One open lock file. Locking is on this object's own open file, also against others of this process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    @property
    def fd(self) -> int:
        """The descriptor, to be inherited by a process that shall hold the lock."""
        return self._fd

    def try_exclusive(self) -> bool:
        """Take the lock alone; False where anyone else holds it."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def wait_exclusive(self) -> None:
        """Take the lock alone, however long that takes."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def wait_shared(self) -> None:
        """Take the lock together with other sharers, as soon as nobody has it alone."""
        fcntl.flock(self._fd, fcntl.LOCK_SH)

    def unlock(self) -> None:
        """Give the lock up, also for processes that inherited this open file."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close this descriptor. Processes that inherited the open file keep the lock."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def write_note(self, text: str) -> None:
        """Leave a line for those who wait for this lock."""
        data = text.encode()[:500]
        os.pwrite(self._fd, data, 0)
        os.ftruncate(self._fd, len(data))

    def read_note(self) -> str:
        """What the holder says it is doing."""
        return os.pread(self._fd, 500, 0).decode(errors="replace")

    def holders(self, uid: int) -> list[int]:
        """Pids of processes of this user that hold the lock through a descriptor of their own."""
        mine = os.fstat(self._fd)
        found = []
        for name in os.listdir("/proc"):
            # A process may end between being listed and being looked at.
            with contextlib.suppress(OSError):
                if name.isdigit() and os.stat(f"/proc/{name}").st_uid == uid and _holds(int(name), mine):
                    found.append(int(name))
        return found


def _holds(pid: int, lock_file: os.stat_result) -> bool:
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            opened = os.stat(f"/proc/{pid}/fd/{fd}")
            if (opened.st_dev, opened.st_ino) == (lock_file.st_dev, lock_file.st_ino):
                with open(f"/proc/{pid}/fdinfo/{fd}") as info:
                    if any(line.startswith("lock:") for line in info):
                        return True
    return False


def parent_of(pid: int) -> int:
    """The parent's pid, 0 where the process is gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as stat:
        return int(stat.read().rpartition(")")[2].split()[1])
    return 0


class FolderLocks:
    """The lock files of one data folder, opened once: they stay the same files if the folder is removed.

    ``start``     held alone, briefly, by whoever starts or stops servers
    ``users``     shared by every process that uses the servers, for as long as it does; tried alone only by
                  the holder of ``start``, so that a refusal means: there are users
    ``wake``      shared in the same way; the watchdog waits until it gets this one alone
    ``watchdog``  held alone by the watchdog
    ``postgres``, ``valkey``  held by the processes of that server
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.start = FileLock(folder / "start.lock")
        self.users = FileLock(folder / "users.lock")
        self.wake = FileLock(folder / "wake.lock")
        self.watchdog = FileLock(folder / "watchdog.lock")
        self.servers = {name: FileLock(folder / f"{name}.lock") for name in ("postgres", "valkey")}

    def join(self) -> None:
        """Become a user. The caller holds ``start``."""
        self.users.wait_shared()
        self.wake.wait_shared()

    def leave(self) -> None:
        """Be a user no longer."""
        self.users.unlock()
        self.wake.unlock()

    def close(self) -> None:
        """Close all; locks that only this object held are free then."""
        for lock in (self.start, self.users, self.wake, self.watchdog, *self.servers.values()):
            lock.close()
