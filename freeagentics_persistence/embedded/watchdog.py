"""Stops the servers when the last process that used them ended without doing so.

Run as ``python -m freeagentics_persistence.embedded.watchdog <data folder> <descriptor of its lock>`` by
whoever starts the servers. It can be killed at any moment: the next start replaces it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from freeagentics_persistence.embedded.data_folder import DataFolder
from freeagentics_persistence.embedded.files import shorten_log
from freeagentics_persistence.embedded.kernel_lock import FolderLocks
from freeagentics_persistence.embedded.sockets import keep_fresh, noted_socket_folder
from freeagentics_persistence.embedded.supervision import stop_if_unused

_HOUSEKEEPING_SECONDS = 600.0
_AGAIN_SECONDS = 0.02


def watch(data: DataFolder, lock_fd: int) -> None:
    """Wait until nobody uses the servers, stop them, return."""
    locks = FolderLocks(data.locks)
    while True:
        locks.wake.wait_exclusive()
        # Freed before the start lock is asked for: its holder may be about to become a user.
        locks.wake.unlock()
        locks.start.wait_exclusive()
        if stop_if_unused(data, locks):
            # Freed in this order: whoever starts servers next must see that it needs a new watchdog.
            os.close(lock_fd)
            locks.close()
            return
        locks.start.unlock()
        time.sleep(_AGAIN_SECONDS)


def keep_house(data: DataFolder) -> None:
    """Shorten long logs and keep the sockets from looking old, for ever."""
    while True:
        time.sleep(_HOUSEKEEPING_SECONDS)
        for log in data.logs.glob("*.log"):
            shorten_log(log)
        folder = noted_socket_folder(data)
        if folder is not None:
            keep_fresh(folder)


def main() -> None:
    """Run the watchdog of the folder named in the arguments."""
    data = DataFolder(Path(sys.argv[1]))
    threading.Thread(target=keep_house, args=(data,), daemon=True).start()
    watch(data, int(sys.argv[2]))


if __name__ == "__main__":
    main()
