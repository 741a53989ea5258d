"""The whole on one's own servers of the oldest supported versions: init, check and the demo, as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from freeagentics_persistence.encryption.key_providers import generate_key
from tests.support.postgres_server import oldest_postgresql
from tests.support.redis_server import LocalRedis, redis_program


@pytest.fixture
def variables() -> Iterator[dict[str, str]]:
    """The settings of a user with a superuser's URL and a Redis of the system's packages."""
    program = redis_program()
    if program is None:
        pytest.skip("redis is not installed. Run: make servers")
    with oldest_postgresql() as url, tempfile.TemporaryDirectory(prefix="fa-redis-") as folder:
        redis = LocalRedis(program, Path(folder))
        redis.start()
        ours = ("DATABASE_", "HISTORY_", "REDIS_", "INFLUXDB_", "ENCRYPTION_", "FREEAGENTICS_")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        try:
            yield {**inherited, "DATABASE_URL": url, "REDIS_URL": redis.url, "ENCRYPTION_KEY": generate_key()}
        finally:
            redis.stop()


def run(variables: dict[str, str], *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "freeagentics_persistence", *arguments]
    return subprocess.run(command, env=variables, cwd=folder, capture_output=True, text=True, timeout=100, check=False)


def test_init_check_and_demo(variables: dict[str, str], tmp_path: Path) -> None:
    refused = run(variables, "check", folder=tmp_path)
    assert refused.returncode == 1
    assert "freeagentics-db init" in refused.stdout + refused.stderr
    for arguments in (("init",), ("demo", "--agents", "30", "--steps", "5")):
        done = run(variables, *arguments, folder=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    daily = {**variables, "HISTORY_PARTITIONS": "day"}
    kept = run(daily, "partitions", "keep", "--json", folder=tmp_path)
    assert len(json.loads(kept.stdout)["made"]) > 0, kept.stdout + kept.stderr
    checked = run(variables, "check", "--json", folder=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "15." in json.dumps(json.loads(checked.stdout))
