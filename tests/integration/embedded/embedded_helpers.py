"""What the tests of the embedded servers share: user processes, connections, and a look at what is running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import redis.asyncio

import freeagentics_persistence
from freeagentics_persistence.embedded.account import server_account
from freeagentics_persistence.embedded.kernel_lock import FileLock, parent_of

SCRIPT = Path(__file__).with_name("embedded_user.py")
CHECKOUT = Path(freeagentics_persistence.__file__).parents[1]


class UserProcess:
    """A separate process that uses the servers of a folder."""

    def __init__(self, folder: Path, *, python: str = sys.executable, path: Path = CHECKOUT, uid: int | None = None):
        self.process = subprocess.Popen(
            [python, str(SCRIPT if uid is None else path / SCRIPT.name), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(path)},
            cwd="/",
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [],
            process_group=0,
        )

    def started(self) -> dict[str, str]:
        """What it printed: URLs by name, or ``error`` and ``message``."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the process ended without a word"
        return dict(json.loads(line))

    def leave(self) -> None:
        self.process.communicate(timeout=60)
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=60)

    def interrupt_group(self) -> None:
        """What the terminal does at Ctrl-C."""
        os.killpg(self.process.pid, signal.SIGINT)
        self.process.communicate(timeout=60)


def processes(folder: Path, name: str) -> list[int]:
    """Pids of all processes that hold the lock of one server ("postgres", "valkey") or of the "watchdog"."""
    path = folder / "locks" / f"{name}.lock"
    if not path.exists():
        return []
    lock = FileLock(path)
    try:
        return lock.holders(os.geteuid() if name == "watchdog" else server_account().uid)
    finally:
        lock.close()


def main_process(folder: Path, name: str) -> int:
    """The one process of a server that is the parent of its others."""
    found = processes(folder, name)
    (main,) = [pid for pid in found if parent_of(pid) not in found]
    return main


def all_processes(folder: Path) -> list[int]:
    return [pid for name in ("postgres", "valkey", "watchdog") for pid in processes(folder, name)]


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        time.sleep(0.02)


async def sql(url: str, statement: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def valkey(url: str, *command: str) -> object:
    client = redis.asyncio.from_url(url, decode_responses=True)
    try:
        return await client.execute_command(*command)
    finally:
        await client.aclose()


def socket_folder(admin_url: str) -> Path:
    return Path(parse_qs(urlsplit(admin_url).query)["host"][0])
