"""From a new process to an open store, with the servers running, beside importing what it needs."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from dataclasses import dataclass

from benchmarks.outcome import Outcome, at_most
from benchmarks.place import Place
from benchmarks.row import Entry, Slices
from benchmarks.scene import Scene
from benchmarks.timing import Sample

PACKAGE = "freeagentics_persistence"
OPEN = """
import asyncio, json, sys
from freeagentics_persistence import Persistence

async def main():
    async with Persistence.open():
        print("open", flush=True)
        names = [name for name in sys.modules if name.partition(".")[0] not in sys.stdlib_module_names]
        print(json.dumps(names), flush=True)

asyncio.run(main())
"""
IMPORT = """
import asyncio, contextlib, importlib, sys
for name in sys.argv[1].split():
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
print("open", flush=True)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpeningRow:
    """Each slice is a few processes, one after the other."""

    rounds: int = 10
    seconds: float = 0.0
    processes: int = 3

    async def measure(self, scene: Scene) -> list[Outcome]:
        """The libraries are those that an open store has really imported, in the order in which it did."""
        opening = Processes(scene.place, "import and open()", self.processes, OPEN)
        _, names = await opening.start()
        wanted = [name for name in json.loads(names) if name.partition(".")[0] not in (PACKAGE, "__main__")]
        importing = Processes(scene.place, "its libraries", self.processes, IMPORT, " ".join(wanted))
        await importing.start()
        samples = await Slices(self.rounds, self.seconds, scene.say).take([opening, importing])
        notes = [f"{len(wanted):,} modules of {len({name.partition('.')[0] for name in wanted})} libraries"]
        checks = [at_most(1.5, opening.name, importing.name)]
        return [Outcome("servers running", "ms", samples, checks, notes)]


class Processes:
    """New Python processes that say when they are ready."""

    def __init__(self, place: Place, name: str, processes: int, program: str, *arguments: str) -> None:
        self.name = name
        self._place, self._processes, self._program, self._arguments = place, processes, program, arguments

    async def run(self, seconds: float) -> Sample:
        """Milliseconds, the least of a few processes, as others on the machine only ever add to it."""
        return Sample(min([(await self.start())[0] for _ in range(self._processes)]))

    async def start(self) -> tuple[float, str]:
        """Milliseconds until one is ready, and what it says afterwards."""
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", self._program, *self._arguments),
            env={**os.environ, "FREEAGENTICS_DATA_FOLDER": str(self._place.folder), "FREEAGENTICS_ENV": "embedded"},
            stdout=asyncio.subprocess.PIPE,
        )
        if process.stdout is None or await process.stdout.readline() != b"open\n":
            raise RuntimeError(f"{self.name}: the process failed")
        took = (time.perf_counter() - began) * 1000
        rest = await process.stdout.read()
        await process.wait()
        return took, rest.decode()


ENTRY = Entry("opening", "import and open()", OpeningRow(), OpeningRow(rounds=2, processes=1))
