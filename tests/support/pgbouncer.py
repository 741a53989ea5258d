"""PgBouncer in transaction mode, of the system's packages, in front of a test's PostgreSQL."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

START_SECONDS = 20
CONNECTIONS = 3


@contextmanager
def pgbouncer(url: str) -> Iterator[str]:
    """The URL past a pooler that runs meanwhile, of few connections, for the login and database of ``url``."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.skip("PgBouncer is not installed. Run: make servers")
    parts = urlsplit(url)
    sockets, name = Path(parse_qs(parts.query)["host"][0]), parts.path.lstrip("/")
    owner = sockets.stat()  # who may enter the private folder of the server's socket
    folder = Path(tempfile.mkdtemp(prefix="fa-bouncer-", dir="/tmp"))
    port = free_port()
    (folder / "users").write_text(f'"{parts.username}" "{parts.password}"\n')
    (folder / "ini").write_text(
        f"[databases]\n{name} = host={sockets} port=5432\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir = {folder}\n"
        f"auth_type = plain\nauth_file = {folder / 'users'}\npool_mode = transaction\n"
        f"default_pool_size = {CONNECTIONS}\nmax_client_conn = 200\n"
    )
    account = {}
    if os.geteuid() == 0:
        account = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
        for path in (folder, *folder.iterdir()):
            os.chown(path, owner.st_uid, owner.st_gid)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, folder / "ini"], stdout=log, stderr=log, cwd=folder, **account)
    try:
        wait_until_open(process, port, folder / "log")
        yield f"postgresql://{parts.username}:{parts.password}@127.0.0.1:{port}/{name}?sslmode=disable"
    finally:
        process.terminate()
        process.wait(timeout=START_SECONDS)
        shutil.rmtree(folder)


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_open(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Return once the pooler takes connections."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
