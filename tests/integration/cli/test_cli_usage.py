"""Help, version, usage errors and keys: what needs no server."""

from __future__ import annotations

import base64
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.cli.cli_helpers import Run

COMMANDS = ("init", "check", "migrate", "rollback", "status", "partitions", "relay", "watch", "demo", "generate-key")
HEAVY = {"alembic", "asyncpg", "cryptography", "numpy", "pydantic", "redis", "rich", "scipy", "sqlalchemy"}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(run: Run, command: str) -> None:
    shown = run(command, "--help")
    assert shown.code == 0
    assert f"Usage: python -m freeagentics_persistence {command}" in shown.out
    assert f"  freeagentics-db {command}" in shown.out.partition("Examples:")[2]


def test_help_names_every_command(run: Run) -> None:
    shown = run("--help")
    assert shown.code == 0
    for command in COMMANDS:
        assert f"\n  {command} " in shown.out
    assert "..." not in shown.out.partition("Commands:")[2]


def test_help_appears_without_what_commands_need() -> None:
    script = (
        "import sys; sys.argv = ['freeagentics-db', '--help']\n"
        "from freeagentics_persistence.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stderr.split())


def test_version(run: Run) -> None:
    from importlib.metadata import version

    assert run("--version").out == f"freeagentics-db {version('freeagentics-persistence')}\n"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["sing"], "sing"),
        (["check", "--loud"], "--loud"),
        (["demo", "--agents", "0"], "--agents"),
        (["demo", "--agents", "many"], "--agents"),
        (["demo", "--relay", "perhaps"], "--relay"),
        (["watch", "--limit", "0"], "--limit"),
        (["relay", "--every", "-1"], "--every"),
        (["migrate", "--sql", "--json"], "--sql"),
        (["partitions", "drop"], "drop"),
        (["partitions", "--dry-run"], "--dry-run"),
    ],
)
def test_wrong_usage_ends_with_2(run: Run, arguments: list[str], word: str) -> None:
    refused = run(*arguments)
    assert refused.code == 2
    assert refused.out == ""
    assert word in refused.err


def test_a_key_goes_to_stdout_and_the_hint_does_not(run: Run) -> None:
    first, second = run("generate-key"), run("generate-key")
    assert len(base64.b64decode(first.out, validate=False)) == 32
    assert first.out.count("\n") == 1
    assert first.out != second.out
    assert "ENCRYPTION_KEY" in first.err


def test_a_key_file_is_its_owners_alone_and_never_overwritten(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "new" / "key"
    made = run("generate-key", "--file", str(path))
    assert made.code == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key = path.read_text()
    assert len(base64.b64decode(key)) == 32
    assert key.strip() not in made.out + made.err
    run("generate-key", "--file", str(path)).refused(str(path), "exists already", "Name a new file")
    assert path.read_text() == key


def test_a_key_file_that_cannot_be_made(run: Run) -> None:
    run("generate-key", "--file", "/proc/key").refused("/proc/key", "writable place")
