"""What PostgreSQL and Valkey have in common here: a lock their processes hold, a log, a start, a stop."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from freeagentics_persistence.embedded.files import log_tail, open_log
from freeagentics_persistence.embedded.kernel_lock import FileLock, parent_of
from freeagentics_persistence.errors import EmbeddedServerError, ServerDidNotStart

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from freeagentics_persistence.embedded.account import Account
    from freeagentics_persistence.embedded.binaries import Binaries
    from freeagentics_persistence.embedded.data_folder import DataFolder
    from freeagentics_persistence.embedded.patience import Patience
    from freeagentics_persistence.embedded.secrets_file import ServerSecrets

STOP_SIGNALS = {
    "postgres": (signal.SIGINT, signal.SIGQUIT),
    "valkey": (signal.SIGTERM, signal.SIGKILL),
}
_STOP_SECONDS = 120.0
_UNREACHABLE_SECONDS = 5.0
_LOOK_AGAIN_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Setup:
    """All that a server needs to start."""

    data: DataFolder
    account: Account
    binaries: Binaries
    sockets: Path
    secrets: ServerSecrets
    durable: bool


@dataclass(frozen=True)
class Answer:
    """What a server said to a first knock."""

    ready: bool
    message: str


class LocalServer(ABC):
    """One server of a data folder, being started. Used by whoever holds the start lock."""

    name: str
    title: str
    socket_name: str

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.log = setup.data.logs / f"{self.name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self._first_seen = time.monotonic()

    @abstractmethod
    def knock(self) -> Answer:
        """Ask the server whether it takes connections, within a second."""

    @abstractmethod
    def make_ready(self, lock: FileLock, patience: Patience) -> None:
        """Make or check the data and write the configuration. No process of the server is alive."""

    @abstractmethod
    def spawn(self, lock: FileLock, output: int) -> subprocess.Popen[bytes]:
        """Start the server, which inherits the lock."""

    def advance(self, patience: Patience) -> bool:
        """Do what is next to do; True once the server takes connections."""
        lock = FileLock(self._lock_path)
        try:
            if lock.try_exclusive():
                self._fail_if_it_ended()
                self._launch(lock, patience)
                return False
        finally:
            lock.close()
        answer = self.knock()
        if not answer.ready:
            self._tell(answer, patience)
            self._end_unreachable(patience)
        return answer.ready

    def _launch(self, lock: FileLock, patience: Patience) -> None:
        self.make_ready(lock, patience)
        patience.say(f"{self.title}: starting")
        output = open_log(self.log)
        try:
            self._log_start = os.fstat(output).st_size
            self._process = self.spawn(lock, output)
        finally:
            os.close(output)
        reap(self._process)

    def _fail_if_it_ended(self) -> None:
        if self._process is not None:
            raise ServerDidNotStart(
                f"{self.title} ended while it started. The end of its log {self.log}:\n"
                f"{log_tail(self.log, self._log_start)}"
            )

    def _end_unreachable(self, patience: Patience) -> None:
        """End processes of an earlier start that nobody can connect to: their socket was removed, or never was."""
        seen_for = time.monotonic() - self._first_seen
        if self._process is None and seen_for > _UNREACHABLE_SECONDS and not self._socket_path.exists():
            patience.say(f"{self.title}: runs without a socket, ending it")
            lock = FileLock(self._lock_path)
            try:
                stop_server(lock, self.setup.account.uid, *STOP_SIGNALS[self.name])
            finally:
                lock.close()

    @property
    def _lock_path(self) -> Path:
        return self.setup.data.locks / f"{self.name}.lock"

    @property
    def _socket_path(self) -> Path:
        return self.setup.sockets / self.socket_name

    def _tell(self, answer: Answer, patience: Patience) -> None:
        with contextlib.suppress(FileNotFoundError):
            patience.saw(str(self.log), self.log.stat().st_size)
        if answer.message:
            patience.say(f"{self.title}: {answer.message}")


def reap(process: subprocess.Popen[bytes]) -> None:
    """Collect the process when it ends, however much later: it must not stay as a zombie of a living caller."""
    threading.Thread(target=process.wait, daemon=True, name=f"reap-{process.pid}").start()


def stop_server(lock: FileLock, uid: int, stop: signal.Signals, last_resort: signal.Signals) -> None:
    """End all processes that hold a server's lock and return once the last has gone.

    The topmost holders get ``stop``, and ``last_resort`` if they are there two minutes later. Raises
    EmbeddedServerError after four.
    """
    began = time.monotonic()
    looked = -_LOOK_AGAIN_SECONDS
    told: set[tuple[int, signal.Signals]] = set()
    while not lock.try_exclusive():
        waited = time.monotonic() - began
        if waited > 2 * _STOP_SECONDS:
            raise EmbeddedServerError(
                f"processes {lock.holders(uid) or 'of another container'} hold {lock.path} and do not end. End them."
            )
        if waited - looked >= _LOOK_AGAIN_SECONDS:
            looked = waited
            how = stop if waited < _STOP_SECONDS else last_resort
            _signal_topmost(lock, uid, how, told)
        time.sleep(0.005)
    lock.unlock()


def _signal_topmost(lock: FileLock, uid: int, how: signal.Signals, told: set[tuple[int, signal.Signals]]) -> None:
    holders = set(lock.holders(uid))
    for pid in holders:
        if (pid, how) in told or parent_of(pid) in holders:
            continue
        with contextlib.suppress(ProcessLookupError):
            process = os.pidfd_open(pid)
            try:
                # Looked at again through the open handle: the number may have passed to another process.
                if pid in lock.holders(uid):
                    signal.pidfd_send_signal(process, how)
                    told.add((pid, how))
            finally:
                os.close(process)
