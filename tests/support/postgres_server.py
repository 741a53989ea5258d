"""A PostgreSQL of the system's packages, for a test's own use: the oldest version that is supported."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

VERSION = "15"
PASSWORD = "for-this-test"
NOBODY = 65534
START_SECONDS = 60


@contextmanager
def oldest_postgresql() -> Iterator[str]:
    """A superuser's URL of a server that runs meanwhile; skips where that version is not installed."""
    programs = Path(f"/usr/lib/postgresql/{VERSION}/bin")
    if not (programs / "initdb").exists():
        pytest.skip(f"PostgreSQL {VERSION} is not installed. Run: make servers")
    account = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="fa-pg-", dir="/tmp"))
    try:
        if account:
            os.chown(folder, NOBODY, NOBODY)
        secret = folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        data = folder / "data"
        subprocess.run(
            [
                programs / "initdb",
                "-D",
                data,
                "-U",
                "postgres",
                "-A",
                "scram-sha-256",
                f"--pwfile={secret}",
                "-E",
                "UTF8",
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=folder,
            **account,
        )
        command = [programs / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, **account)
        try:
            wait_until_ready(process, folder)
            yield f"postgresql://postgres:{PASSWORD}@/freeagentics?host={folder}"
        finally:
            process.terminate()
            process.wait(timeout=START_SECONDS)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait_until_ready(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Return once the server takes connections."""
    deadline = time.monotonic() + START_SECONDS
    while "ready to accept connections" not in (folder / "log").read_text():
        assert process.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < deadline, "the server did not start in time"
        time.sleep(0.02)
