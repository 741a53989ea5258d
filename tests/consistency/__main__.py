"""The checker on embedded servers of its own."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path

from freeagentics_persistence import Settings
from freeagentics_persistence.embedded import EmbeddedServers
from tests.consistency.checker import check_consistency


async def main() -> int:
    """Run it, and print what was counted and what was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.consistency", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long the callers go on (%(default)s)")
    parser.add_argument("--processes", type=int, default=3, help="each with a store of its own (%(default)s)")
    parser.add_argument("--callers", type=int, default=150, help="in each process (%(default)s)")
    parser.add_argument("--agents", type=int, default=20, help="all of them hot (%(default)s)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        settings = Settings.load(env="embedded", data_folder=data)
        environment = {**os.environ, "FREEAGENTICS_ENV": "embedded", "FREEAGENTICS_DATA_FOLDER": str(data)}
        async with EmbeddedServers(data):
            verdict = await check_consistency(settings, environment, Path(folder), **vars(given))
    for what, count in sorted(verdict.counts.items()):
        print(f"{count:>12,}  {what}")
    for fault in verdict.faults[:20]:
        print(f"FAULT  {fault}")
    print(f"{len(verdict.faults):>12,}  faults")
    return 1 if verdict.faults else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
