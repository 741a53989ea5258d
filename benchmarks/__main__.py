"""The store beside the limits of its servers, a plain baseline and a peer, in one run: ``python -m benchmarks``.

Everything runs on embedded servers in a fresh data folder, durable as always (fsync and synchronous_commit on), under
forced row-level security, with d = 16 or 256 float64 a belief, sealed, with history (every update) and events.
Contenders share the CPUs with the server they measure, and take turns slice by slice: ours, limit, baseline, ours, ...
A ratio is the median over the rounds of the ratios within each round, as the speed of a shared machine changes over
time. The table says which ratios reach their target; absolute times are reported and never gated.

Write rows run with ``relay="off"`` unless they say otherwise, and put into the cache before they return. Before each of
their slices history and events are emptied and a checkpoint is made and paid for (see place.Server.level), so that all
start alike and tables do not grow; everybody warms up first. Agents are chosen uniformly, or all of them are updated.

- "in-server": three writes (UPDATE agents, INSERT agent_history, INSERT events; the same columns, role and row-level
  security, locks in the order of ids), each with the envelope, by a function that reads sealed envelopes from a table:
  no client, no sealing, no cache. It is the best of 1 or 2 connections and 512 to 10,000 rows a statement, which is
  found first. "lean" beside it is the same with events that point at history instead of repeating the envelope, which
  is what the store itself writes.
- "pgbench update": BEGIN, set_config, UPDATE, two INSERTs, COMMIT, prepared, one random agent each, in the
  application's role, the envelope in each write, its payload from the staged table. "pgbench select" is one prepared
  SELECT of an agent by its key.
- "asyncpg fetch": the same rows in one prepared SELECT, unopened.
- redis-benchmark (or valkey-benchmark): GET from the embedded server of values as large as the store's entries.
- "the ADR's way": see adr_way.py. The peer: see yardsticks/peer.py.
- Latency is from an update's timestamp, taken by PostgreSQL just before its commit, to its subscriber.

Rows are in rows/, one file each, and registry.py names them in the order of the table. A row that cannot run here says
why. ``--quick`` takes less of everything, so that figures vary more: it is for a gate, which fails where a ratio is
under half of its target, or of what was reached where a row misses it (`reached=` in the rows).
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from benchmarks.facts import facts
from benchmarks.place import open_place
from benchmarks.registry import ROWS
from benchmarks.report import Result, as_json, bound_of, markdown, reached_of, show
from benchmarks.row import CannotRunError, Entry, Row
from benchmarks.scene import Scene
from freeagentics_persistence import PersistenceError

WIDTH = 160  # of tables that go to a file
RESULTS = Path(__file__).with_name("RESULTS.md")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    names = [entry.name for entry in ROWS]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="The store beside the limits of its servers.",
        epilog=f"Rows: {', '.join(names)}.",
    )
    parser.add_argument("--quick", action="store_true", help="minutes instead of an hour; figures vary more")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help="these rows alone")
    parser.add_argument("--rounds", type=int, help="how often each contender is measured")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--gate", action="store_true", help="fail where a ratio is, twice, under half of its target")
    parser.add_argument(
        "--write", type=Path, help="write the tables to this Markdown file; RESULTS.md after a whole run"
    )
    parser.add_argument("--data-folder", type=Path, help="a new folder for the servers, kept; a temporary one if unset")
    return parser.parse_args(arguments)


async def measure(entry: Entry, row: Row, scene: Scene) -> Result:
    """One row; whatever goes wrong with it is its own result."""
    result, began = Result(entry.name, entry.title), time.perf_counter()
    scene.say(f"--- {entry.name}")
    try:
        result.outcomes = await row.measure(scene)
    except CannotRunError as error:
        result.skipped = str(error)
        if os.environ.get("CI"):
            result.gate.append(f"{entry.name} did not run: {error}")
    except Exception as error:  # noqa: BLE001 - told in the table and by the exit status; the other rows go on
        scene.say(traceback.format_exc())
        result.failed = f"{type(error).__name__}: {error}"
        result.gate.append(f"{entry.name} failed: {result.failed}")
        scene.forget_swarm()
    result.seconds = time.perf_counter() - began
    for outcome in result.outcomes:
        for finding in outcome.findings():
            if not finding.passes:
                result.gate.append(
                    f"{entry.name}, {outcome.case}: {finding.check.of} / {finding.over} is {finding.value:.2f}, "
                    f"not {bound_of(finding)}{reached_of(finding)} even with half of it forgiven"
                )
    scene.say(f"--- {entry.name}: {result.seconds:.0f} s")
    return result


async def run(given: argparse.Namespace, folder: Path, say: Callable[[str], None]) -> list[Result]:
    """Measure on servers in ``folder``, print and write what was found."""
    chosen = [entry for entry in ROWS if not given.only or entry.name in given.only]
    write = given.write or (None if given.quick or given.only else RESULTS)
    results: list[Result] = []
    async with AsyncExitStack() as stack:
        place = await stack.enter_async_context(open_place(folder / "main", say))
        scene = Scene(folder, place, say, stack)
        about = await facts(place, "quick" if given.quick else "full")
        for entry in chosen:
            row = entry.quick if given.quick else entry.full
            if given.rounds:
                row = dataclasses.replace(row, rounds=given.rounds)  # type: ignore[type-var]
            result = await measure(entry, row, scene)
            if given.gate and result.gate:
                say(f"once more, as this machine may have been busy: {'; '.join(result.gate)}")
                result = await measure(entry, row, scene)
            results.append(result)
            if write is not None:  # row by row, so that a run that is broken off leaves what it found
                write.write_text(markdown(about, results))
    if given.json:
        print(as_json(about, results))
    else:
        show(Console(width=None if sys.stdout.isatty() else WIDTH), results)
    return results


def main() -> None:
    """Run."""
    given = parse(sys.argv[1:])
    began = time.perf_counter()

    def say(line: str) -> None:
        print(f"{time.perf_counter() - began:6.0f} s  {line}", file=sys.stderr, flush=True)

    folder: Path | None = given.data_folder
    if folder is not None and folder.exists() and any(folder.iterdir()):
        sys.exit(f"{folder} is not empty: all agents in it would be removed. Name a new folder.")
    try:
        if folder is not None:
            results = asyncio.run(run(given, folder, say))
        else:
            with TemporaryDirectory(prefix="freeagentics-bench-", ignore_cleanup_errors=True) as temporary:
                results = asyncio.run(run(given, Path(temporary), say))
    except PersistenceError as error:
        sys.exit(str(error))
    troubles = [trouble for result in results for trouble in result.gate]
    if given.gate and troubles:
        sys.exit("\n".join(troubles))
    if any(result.failed for result in results):
        sys.exit(1)


if __name__ == "__main__":
    main()
