"""examples/pymdp_swarm.py: real pymdp agents go on in a fresh process from what is stored, bit for bit."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("pymdp") is None,
        reason="pymdp is not installed: run `make setup-pymdp`",
    ),
    pytest.mark.timeout(300),  # two processes import JAX, compile, and start the embedded servers
]

SCRIPT = Path(__file__).parents[2] / "examples" / "pymdp_swarm.py"
SERVERS_OF_OTHERS = ("DATABASE_", "REDIS_", "INFLUXDB_", "ENCRYPTION_", "RELAY_", "FREEAGENTICS_")
ROW = re.compile(r"(fixed|learning|legacy) +(\w+) +(\w+) +(\w+) ([\[\], \d]*?) +(exact|DIFFERS) +(equal|DIFFERS.*)")

WORLD = {("world", "raw", "int64", "[2]"), ("world_rng", "raw", "uint32", "[10]")}
PARAMETERS = {
    "A": "[7, 7] [2, 7, 7]",
    "B": "[7, 7, 7] [7, 7, 1]",
    "pA": "[7, 7] [2, 7, 7]",
    "pB": "[7, 7, 7] [7, 7, 1]",
}
BATCHED = {
    ("factor", "categorical", "float32", "[1, 7] [1, 7]"),
    ("action", "raw", "int32", "[2]"),
    ("rng", "raw", "uint32", "[2]"),
} | WORLD
STORED = {
    "fixed": BATCHED,
    "learning": BATCHED | {(name, "raw", "float32", shapes) for name, shapes in PARAMETERS.items()},
    "legacy": {
        ("factor", "categorical", "float64", "[7] [7]"),
        ("action", "raw", "float64", "[2]"),
        ("rng", "raw", "uint32", "[624]"),
        ("rng_position", "raw", "int64", "[2]"),
        ("rng_normal", "raw", "float64", "[]"),
    }
    | WORLD
    | {(name, "raw", "float64", shapes) for name, shapes in PARAMETERS.items()},
}


def run(folder: Path, *arguments: str) -> tuple[int, str, list[tuple[str, ...]]]:
    """Exit status, output, and the lines of its table of a run with embedded servers of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(SERVERS_OF_OTHERS)}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), f"--data-folder={folder / 'data'}", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
        check=False,
    )
    return done.returncode, done.stdout, ROW.findall(done.stdout)


def test_a_fresh_process_goes_on_bit_for_bit(tmp_path: Path) -> None:
    status, output, rows = run(tmp_path, "--agents=5", "--steps=8")
    assert status == 0, output
    for kind, expected in STORED.items():
        assert {row[1:5] for row in rows if row[0] == kind} == expected, output
    assert {row[5:] for row in rows} == {("exact", "equal")}, output
    assert "PASS" in output.splitlines()[-1]


def test_a_run_that_forgets_its_generators_is_told_from_the_real_one(tmp_path: Path) -> None:
    status, output, rows = run(tmp_path, "--agents=2", "--steps=3", "--forget=rng")
    assert status == 1, output
    results = {row[:2]: row[5:] for row in rows}
    for kind in STORED:
        assert results[kind, "rng"] == ("DIFFERS", "DIFFERS from step 4"), output
        assert results[kind, "world_rng"] == ("exact", "equal"), output
    assert any(results[kind, "action"][1].startswith("DIFFERS") for kind in STORED), output
    assert "FAIL" in output.splitlines()[-1]
