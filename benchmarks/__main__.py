"""Updates per second of the store, beside PostgreSQL's own limits, in one run: ``python -m benchmarks``.

On embedded servers in a fresh data folder, durable as always (fsync and synchronous_commit on), with 10,000 agents
of the default tenant, for d = 16 and d = 256 float64, in several rounds that measure one contender after another:

- ``update_beliefs_many`` for all agents, call after call, through the public API of an open store: checked, sealed,
  written with history and events, put into the cache before it returns; with ``relay="off"``, and with
  ``relay="auto"``, where the same process also carries every event to the cache, the channels and the feed;
- ``update_beliefs`` by 500 callers at once, which group commit brings together, both ways too;
- the yardstick "in server x2": three writes (UPDATE agents, INSERT agent_history, INSERT events; the same columns,
  role and row-level security, locks in the order of ids), each with the envelope, by a function that reads sealed
  envelopes from a table: no client, no sealing, no cache. It uses as many rows a statement and as many connections as
  the store does, and one connection (x1) for comparison. "lean" is the same with events that point at history instead
  of repeating the envelope, which is what the store itself writes;
- the yardstick pgbench, 32 clients: BEGIN, set_config, UPDATE, two INSERTs, COMMIT, prepared, one random agent each,
  the envelope in each write.

Contenders share the CPUs with the server they measure. Before each measurement history and events are emptied and a
checkpoint is made and paid for (see Server.level), so that all start alike and tables do not grow; everybody warms
up first. Ratios are medians of the ratios within each round, as the speed of a shared machine changes over time.

Then, of a store whose agents are all cached: single reads and reads of the whole swarm, answered by the cache and by
PostgreSQL ("strong"), and the time from an update's timestamp, taken just before its commit, to its subscriber.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from rich.console import Console

from benchmarks.in_server import InServer
from benchmarks.pgbench import Pgbench
from benchmarks.plan import QUICK, Plan
from benchmarks.product import UpdateMany, UpdateOne
from benchmarks.reads import measure_latency, measure_reads
from benchmarks.report import Figures, as_json, show
from benchmarks.server import Server
from benchmarks.swarm import Swarm, make_swarm
from freeagentics_persistence import DEFAULT_TENANT_ID, PersistenceError, Settings
from freeagentics_persistence.embedded import EmbeddedServers, EmbeddedUrls

WIDTH = 100  # of tables that go to a file


class Contender(Protocol):
    """Who is measured."""

    name: str

    async def run(self, seconds: float) -> float:
        """Warm up, then update for that long; updates per second."""


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Write rates beside PostgreSQL's own.")
    parser.add_argument("--quick", action="store_true", help="a minute instead of ten; figures vary more")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--rounds", type=int, help="how often each contender is measured")
    parser.add_argument("--dimensions", type=int, nargs="+", help="numbers of a belief, 16 and 256 where not given")
    parser.add_argument("--data-folder", type=Path, help="a new folder for the servers, kept; a temporary one if unset")
    return parser.parse_args(arguments)


def contenders(settings: Settings, urls: EmbeddedUrls, swarm: Swarm, envelope: bytes, plan: Plan) -> list[Contender]:
    """Who is measured in each round, in this order."""
    rows, connections = settings.database.batch_rows, settings.database.batch_connections
    return [
        UpdateMany(settings, swarm, "off"),
        InServer(urls, plan, rows=rows, connections=connections, repeat=True),
        InServer(urls, plan, rows=rows, connections=connections, repeat=False),
        UpdateOne(settings, swarm, "off", plan.callers),
        Pgbench(urls, plan, envelope),
        UpdateMany(settings, swarm, "auto"),
        InServer(urls, plan, rows=rows, connections=1, repeat=True),
        UpdateOne(settings, swarm, "auto", plan.callers),
    ]


async def measure(
    settings: Settings, urls: EmbeddedUrls, server: Server, plan: Plan, dimension: int, console: Console
) -> Figures:
    """All figures of one dimension."""
    console.print(f"d = {dimension}: making {plan.agents:,} agents")
    swarm = await make_swarm(settings, server, plan, dimension)
    envelope = await server.example_envelope()
    entrants = contenders(settings, urls, swarm, envelope, plan)
    yardsticks = tuple(entrant.name for entrant in entrants if isinstance(entrant, InServer | Pgbench))
    figures = Figures(dimension, len(envelope), {entrant.name: [] for entrant in entrants}, yardsticks)
    for number in range(1, plan.rounds + 1):
        for entrant in entrants:
            await server.level(DEFAULT_TENANT_ID)
            rate = await entrant.run(plan.pgbench_seconds if isinstance(entrant, Pgbench) else plan.seconds)
            figures.rates[entrant.name].append(rate)
            console.print(f"round {number} of {plan.rounds}: {entrant.name}: {rate:,.0f}/s", highlight=False)
    figures.reads = await measure_reads(settings, server, swarm, plan)
    figures.latency = await measure_latency(settings, server, swarm, plan)
    return figures


async def run(folder: Path, plan: Plan, *, json: bool) -> None:
    """Measure on servers in ``folder`` and print the figures; progress goes to stderr."""
    progress = Console(stderr=True)
    settings = Settings.load(env="embedded", data_folder=folder)
    async with AsyncExitStack() as stack:
        urls = await stack.enter_async_context(EmbeddedServers(folder, progress=progress.print))
        server = await Server.connect(urls)
        stack.push_async_callback(server.close)
        facts = await server.facts()
        found = [await measure(settings, urls, server, plan, d, progress) for d in plan.dimensions]
    if json:
        print(as_json(plan, facts, found))
    else:
        show(Console(width=None if sys.stdout.isatty() else WIDTH), facts, found)


def main() -> None:
    """Run."""
    given = parse(sys.argv[1:])
    plan = QUICK if given.quick else Plan()
    plan = replace(plan, rounds=given.rounds or plan.rounds, dimensions=tuple(given.dimensions or plan.dimensions))
    try:
        if given.data_folder is not None:
            if given.data_folder.exists() and any(given.data_folder.iterdir()):
                sys.exit(f"{given.data_folder} is not empty: all agents in it would be removed. Name a new folder.")
            asyncio.run(run(given.data_folder, plan, json=given.json))
            return
        with TemporaryDirectory(prefix="freeagentics-bench-") as folder:
            asyncio.run(run(Path(folder), plan, json=given.json))
    except PersistenceError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
