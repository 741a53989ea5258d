"""The command as a user runs it: a process of its own, with settings in its environment."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from freeagentics_persistence.operations.servers import ServerUrls
from tests.integration.cli.cli_helpers import COMMAND, Outcome, Run, environment, refuse_leaks, settings_for
from tests.support import influx
from tests.support.influx import InfluxServer


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a command to its end: ``run("check", "--json", settings)``. No output may hold a password or a traceback."""

    def call(*arguments: str | dict[str, str], timeout: float = 60) -> Outcome:
        words = [word for word in arguments if isinstance(word, str)]
        settings = next((word for word in arguments if isinstance(word, dict)), {})
        done = subprocess.run(
            [*COMMAND, *words],
            env=environment(tmp_path, settings),
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        outcome = Outcome(done.returncode, done.stdout, done.stderr)
        refuse_leaks(outcome.out + outcome.err, settings)
        return outcome

    return call


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a command that goes on: ``start("relay", settings)``."""
    started = []

    def call(*arguments: str | dict[str, str]) -> subprocess.Popen[str]:
        words = [word for word in arguments if isinstance(word, str)]
        settings = next((word for word in arguments if isinstance(word, dict)), {})
        process = subprocess.Popen(
            [*COMMAND, *words],
            env=environment(tmp_path, settings),
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield call
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def own(urls: ServerUrls) -> dict[str, str]:
    """Settings of a migrated database."""
    return settings_for(urls)


@pytest.fixture(scope="session")
def influx_server() -> Iterator[InfluxServer]:
    """InfluxDB of this worker; skips where there is none."""
    with influx.influx_server() as server:
        yield server
