"""A data folder for each test, after which no process may be left."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from embedded_helpers import all_processes, wait_until


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A data folder that does not exist yet, inside a folder that only its owner can enter."""
    data = tmp_path / "data"
    yield data
    wait_until(lambda: not all_processes(data))
