"""From commit to subscriber, at a given rate of updates."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from benchmarks.outcome import Outcome, at_most
from benchmarks.place import Place
from benchmarks.row import Entry, Slices
from benchmarks.scene import Scene
from benchmarks.swarm import Swarm
from benchmarks.timing import Sample, chosen_rows, percentiles
from freeagentics_persistence import ALL, Persistence

TICK = 0.002  # seconds between two groups of calls
WARM_UP_SHARE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyRow:
    """Writers, relay and subscriber share one process, as with ``relay="auto"``."""

    rounds: int = 10
    seconds: float = 5.0
    agents: int = 10_000
    rate: float = 2000.0
    dimension: int = 256

    async def measure(self, scene: Scene) -> list[Outcome]:
        """Absolute times, which are reported and never gated."""
        swarm = await scene.swarm(self.agents, self.dimension)
        ours = Paced(scene.place, swarm, self.rate)
        slices = Slices(self.rounds, self.seconds, scene.say, scene.place.server.level, swarm.label)
        samples = await slices.take([ours])
        checks = [at_most(15.0, ours.name, figure="p50_ms"), at_most(60.0, ours.name, figure="p99_ms")]
        notes = ["from the update's timestamp, which PostgreSQL takes before it commits", "calls are not held back"]
        return [Outcome(f"{self.rate:,.0f} updates/s, {swarm.label}", "updates/s", samples, checks, notes)]


class Paced:
    """update_beliefs at a steady rate, however long each call takes, and one subscriber to all."""

    def __init__(self, place: Place, swarm: Swarm, rate: float) -> None:
        self.name = "update_beliefs to subscriber"
        self._place, self._swarm, self._rate = place, swarm, rate

    async def run(self, seconds: float) -> Sample:
        """The rate that came about, and the percentiles of the wait."""
        settings, wanted = self._place.settings, int(self._rate * seconds)
        waits: list[float] = []
        async with Persistence.open(settings) as store:
            updates = store.updates.subscribe_to_agent_updates(ALL, buffer=wanted)
            async with updates as seen:

                async def listen() -> None:
                    async for update in seen:
                        waits.append((datetime.now(UTC) - update.timestamp).total_seconds())
                        if len(waits) == wanted:
                            return

                began = time.perf_counter()
                async with asyncio.timeout(seconds * 5 + 60), asyncio.TaskGroup() as group:
                    group.create_task(listen())
                    await self._call(store, group, wanted)
                took = time.perf_counter() - began
        return Sample(wanted / took, percentiles(waits[int(wanted * WARM_UP_SHARE) :]))

    async def _call(self, store: Persistence, group: asyncio.TaskGroup, wanted: int) -> None:
        """Start the calls when they are due."""
        swarm, step = self._swarm, self._swarm.steps[0]
        rows, began, started = chosen_rows(len(swarm.ids)), time.perf_counter(), 0
        while started < wanted:
            due = min(wanted, int((time.perf_counter() - began) * self._rate) + 1)
            for row in (next(rows) for _ in range(due - started)):
                group.create_task(store.agents.update_beliefs(swarm.ids[row], step[row]))
            started = due
            await asyncio.sleep(TICK)


ENTRY = Entry("latency", "commit to subscriber", LatencyRow(), LatencyRow(rounds=2, seconds=1.0, agents=5000))
