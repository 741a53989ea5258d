"""What the tests of the command share: how it ends and what it may say, and settings as environments."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from freeagentics_persistence.encryption.key_providers import generate_key
from freeagentics_persistence.operations.servers import ServerUrls

COMMAND = [sys.executable, "-m", "freeagentics_persistence"]
Run = Callable[..., "Outcome"]


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its result for scripts."""
        return json.loads(self.out)

    def refused(self, *words: str) -> None:
        """It ended with exactly one message, which has these words, and no result."""
        assert self.code == 1, self
        assert self.out == "", self
        assert self.err.startswith("error: "), self
        assert self.err.count("\n") == 1, self
        for word in words:
            assert word in self.err, self


def environment(home: Path, settings: dict[str, str]) -> dict[str, str]:
    """Nothing of this process's settings."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONUNBUFFERED": "1", **settings}


def refuse_leaks(text: str, settings: dict[str, str]) -> None:
    """No traceback, and nothing that is secret."""
    assert "Traceback" not in text
    passwords = [found[1] for value in settings.values() if (found := re.search(r"://[^:/@]*:(.+)@", value))]
    secrets = [part for password in passwords for part in re.split("[/?#@]", password) if len(part) > 3]
    secrets += [settings.get("ENCRYPTION_KEY", ""), settings.get("INFLUXDB_TOKEN", "")]
    for secret in secrets:
        assert not secret or secret not in text


def ended(process: subprocess.Popen[str], number: signal.Signals) -> Outcome:
    """Signal a command and wait until it has ended."""
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    return Outcome(process.returncode, out, err)


def settings_for(urls: ServerUrls, **changes: str | None) -> dict[str, str]:
    """The environment that names these servers; a change to None leaves a setting out."""
    values: dict[str, str | None] = {
        "DATABASE_URL": urls.app,
        "DATABASE_MIGRATOR_URL": urls.migrator,
        "DATABASE_RELAY_URL": urls.relay,
        "DATABASE_ADMIN_URL": urls.admin,
        "REDIS_URL": urls.redis,
        "ENCRYPTION_KEY": generate_key(),
        **changes,
    }
    return {name: value for name, value in values.items() if value is not None}


@contextmanager
def silent_port() -> Iterator[int]:
    """A port that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def with_password(url: str, password: str) -> str:
    """The same URL with another password."""
    parts = urlsplit(url)
    user, _, rest = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user.partition(':')[0]}:{password}@{rest}").geturl()
