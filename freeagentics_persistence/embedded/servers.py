"""The embedded servers, as the rest of the package uses them."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from freeagentics_persistence.embedded.data_folder import DataFolder
from freeagentics_persistence.embedded.kernel_lock import FolderLocks
from freeagentics_persistence.embedded.patience import Patience
from freeagentics_persistence.embedded.supervision import bring_up, start_lock, stop_if_unused, stop_watchdog

if TYPE_CHECKING:
    from collections.abc import Callable

    from freeagentics_persistence.embedded.urls import EmbeddedUrls

_T = TypeVar("_T")


class EmbeddedServers:
    """PostgreSQL and Valkey on one data folder, shared by all processes that use the folder.

    The first process starts the servers, others attach to them, the last to leave stops them, and so does a
    watchdog where the last one was killed. ``start_timeout`` (seconds) bounds a wait without any progress; a
    long crash recovery that goes on is waited for. ``progress`` gets one line for each thing waited for, on the
    event loop. ``durable=False`` turns fsync off: a crash of the machine may lose or destroy the data; for tests only.
    """

    def __init__(
        self,
        data_folder: Path,
        *,
        progress: Callable[[str], None] | None = None,
        start_timeout: float = 120.0,
        durable: bool = True,
    ) -> None:
        self._data = DataFolder(Path(data_folder).expanduser().absolute())
        self._progress = progress
        self._start_timeout = start_timeout
        self._durable = durable
        self._locks: FolderLocks | None = None
        self._one_at_a_time = threading.Lock()

    async def start(self) -> EmbeddedUrls:
        """Start the servers or attach to them. Called again, it restarts a server that has died.

        Raises DataFolderUnusable, IncompatibleDataFolder, ServerDidNotStart, EmbeddedServerError.
        """
        joins = self._locks is None
        try:
            return await self._in_thread(self._start)
        except asyncio.CancelledError:
            # the thread may have come to its end before it saw that nobody waits for it any more
            if joins:
                await self._in_thread(self._stop)
            raise

    async def stop(self) -> None:
        """Leave; the last one to leave stops the servers and returns when they have stopped."""
        await self._in_thread(self._stop)

    async def __aenter__(self) -> EmbeddedUrls:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _in_thread(self, work: Callable[[Patience], _T]) -> _T:
        abandon = threading.Event()
        patience = Patience(self._start_timeout, self._reporter(), abandon)
        task = asyncio.ensure_future(asyncio.to_thread(work, patience))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # A thread cannot be cancelled: it is asked to end, and leaves nothing behind.
            abandon.set()
            await asyncio.wait([task])
            if not task.cancelled():
                task.exception()
            raise

    def _reporter(self) -> Callable[[str], None]:
        progress, loop = self._progress, asyncio.get_running_loop()

        def report(message: str) -> None:
            if progress is not None and not loop.is_closed():
                loop.call_soon_threadsafe(progress, message)

        return report

    def _start(self, patience: Patience) -> EmbeddedUrls:
        with self._one_at_a_time:
            self._data.prepare()
            joins = self._locks is None
            locks = self._locks or FolderLocks(self._data.locks)
            try:
                with start_lock(locks, patience):
                    locks.join()
                    self._locks = locks
                    return bring_up(self._data, locks, patience, durable=self._durable)
            except BaseException:
                if joins:
                    # not with the patience that was abandoned: the watchdog may hold the start lock just now
                    self._leave(locks, Patience(self._start_timeout, lambda _: None, threading.Event()))
                raise

    def _stop(self, patience: Patience) -> None:
        with self._one_at_a_time:
            if self._locks is not None:
                self._leave(self._locks, patience)

    def _leave(self, locks: FolderLocks, patience: Patience) -> None:
        self._locks = None
        try:
            locks.leave()
            with start_lock(locks, patience):
                if stop_if_unused(self._data, locks):
                    stop_watchdog(locks)
        finally:
            locks.close()
