"""Bringing the servers of a data folder up, and down again when nobody uses them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from freeagentics_persistence.embedded.account import server_account
from freeagentics_persistence.embedded.binaries import find_binaries
from freeagentics_persistence.embedded.data_folder import folder_problems
from freeagentics_persistence.embedded.files import open_log
from freeagentics_persistence.embedded.kernel_lock import FileLock
from freeagentics_persistence.embedded.local_server import STOP_SIGNALS, Setup, reap, stop_server
from freeagentics_persistence.embedded.postgres_server import PostgresServer
from freeagentics_persistence.embedded.secrets_file import load_secrets, new_secrets, save_secrets
from freeagentics_persistence.embedded.sockets import noted_socket_folder, remove_sockets, socket_folder
from freeagentics_persistence.embedded.urls import EmbeddedUrls, embedded_urls
from freeagentics_persistence.embedded.valkey_server import ValkeyServer
from freeagentics_persistence.errors import EmbeddedServerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from freeagentics_persistence.embedded.data_folder import DataFolder
    from freeagentics_persistence.embedded.kernel_lock import FolderLocks
    from freeagentics_persistence.embedded.patience import Patience
    from freeagentics_persistence.embedded.secrets_file import ServerSecrets

_PYTHON_SETTINGS = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME")


@contextmanager
def start_lock(locks: FolderLocks, patience: Patience) -> Iterator[None]:
    """Hold the start lock. While another process has it, tell what that one does; that it goes on is progress."""
    while not locks.start.try_exclusive():
        note = locks.start.read_note()
        patience.say(f"waiting for another process: {note}")
        patience.pause(f"another process holds {locks.start.path}: {note}")
    me = f"process {os.getpid()} starts or stops the servers"
    locks.start.write_note(me)
    patience.copy_to(lambda message: locks.start.write_note(f"{me}: {message}"))
    try:
        yield
    finally:
        patience.copy_to(None)
        locks.start.unlock()


def bring_up(data: DataFolder, locks: FolderLocks, patience: Patience, *, durable: bool) -> EmbeddedUrls:
    """Start what does not run and wait until both servers take connections. The caller holds the start lock."""
    with folder_problems(data.root):
        data.tidy()
        start_watchdog(data)
        account = server_account()
        setup = Setup(
            data=data,
            account=account,
            binaries=find_binaries(account),
            sockets=socket_folder(data, account),
            secrets=_secrets(data, locks, patience),
            durable=durable,
        )
        waiting = [PostgresServer(setup), ValkeyServer(setup)]
        while waiting := [server for server in waiting if not server.advance(patience)]:
            patience.pause(" and ".join(f"{server.title} ({server.log})" for server in waiting))
    return embedded_urls(setup.sockets, setup.secrets)


def stop_if_unused(data: DataFolder, locks: FolderLocks) -> bool:
    """Stop the servers unless a process uses them; False where one does. The caller holds the start lock."""
    if not locks.users.try_exclusive():
        return False
    try:
        uid = server_account().uid
        for name, lock in locks.servers.items():
            stop_server(lock, uid, *STOP_SIGNALS[name])
        folder = noted_socket_folder(data)
        if folder is not None:
            remove_sockets(folder)
    finally:
        locks.users.unlock()
    return True


def stop_watchdog(locks: FolderLocks) -> None:
    """End the watchdog, for there is nothing left to watch. The caller holds the start lock."""
    stop_server(locks.watchdog, os.geteuid(), signal.SIGTERM, signal.SIGKILL)


def _secrets(data: DataFolder, locks: FolderLocks, patience: Patience) -> ServerSecrets:
    """The folder's passwords, or new ones that the cluster, where there is one, gets before they are saved."""
    found = load_secrets(data.secrets)
    if found is not None:
        return found
    for lock in locks.servers.values():
        while not lock.try_exclusive():
            patience.say(f"{data.secrets} is missing: waiting until the running servers have stopped")
            patience.pause(f"{data.secrets} was removed while its servers run: end the programs that use them")
        lock.unlock()
    made = new_secrets()
    if not data.postgres.is_dir():
        save_secrets(data.secrets, made)
    return made


def start_watchdog(data: DataFolder) -> None:
    """Start a watchdog unless one is alive. It inherits its lock, so there is never a second one."""
    lock = FileLock(data.locks / "watchdog.lock")
    try:
        if not lock.try_exclusive():
            return
        if not sys.executable:
            raise EmbeddedServerError(
                "this program has no Python interpreter to watch over the servers with (sys.executable is empty). "
                "Set DATABASE_URL and REDIS_URL to servers of your own."
            )
        output = open_log(data.logs / "watchdog.log")
        try:
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", f"{__package__}.watchdog", str(data.root), str(lock.fd)],
                cwd="/",
                env=_watchdog_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(lock.fd,),
                start_new_session=True,
            )
        finally:
            os.close(output)
        reap(process)
    finally:
        lock.close()


def _watchdog_environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _PYTHON_SETTINGS if name in os.environ}
    return {**kept, "PYTHONPATH": str(Path(__file__).parents[2])}
