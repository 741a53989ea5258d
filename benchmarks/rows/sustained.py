"""Minutes of updates with the relay on: whether the rate holds, and whether anything grows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from statistics import median

import asyncpg
import psutil

from benchmarks.outcome import Outcome, at_least, at_most
from benchmarks.place import Place
from benchmarks.row import Entry, Slices
from benchmarks.scene import Scene
from benchmarks.swarm import Swarm
from benchmarks.timing import Sample, again_and_again
from benchmarks.yardsticks.in_server import QUICK_ROWS, ROWS, best_in_server
from freeagentics_persistence import Persistence

OURS, FIRST, LAST = "the whole time", "the first minute", "the last minute"
# what is smaller is no growth
FLOORS = {"lag_s": 1.0, "outbox_rows": 50_000.0, "dead_rows": 100_000.0, "memory_mb": 1.0, "redis_mb": 1.0}
LOOK = """
SELECT coalesce((SELECT max(id) - min(id) + 1 FROM events), 0) AS outbox_rows,
    coalesce((SELECT sum(n_dead_tup) FROM pg_stat_user_tables WHERE relname IN ('agents', 'events')), 0) AS dead_rows,
    coalesce((SELECT extract(epoch FROM clock_timestamp() - min(watermark)) FROM relay_positions), 0) AS lag_s
"""


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen at a moment: updates so far, and what should not grow."""

    at: float
    done: int
    figures: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class SustainedRow:
    """Seconds in all, those that warm up, and those of a "minute"."""

    rounds: int = 3
    seconds: float = 195.0
    warm_up: float = 15.0
    minute: float = 60.0
    look_every: float = 2.0
    limit_seconds: float = 2.0
    limit_rows: Sequence[int] = ROWS
    agents: int = 10_000
    dimension: int = 256

    async def measure(self, scene: Scene) -> list[Outcome]:
        """In-server is measured before and after, ``rounds`` times each."""
        swarm = await scene.swarm(self.agents, self.dimension)
        limit, _ = await best_in_server(scene, swarm, self.rounds, self.limit_seconds, self.limit_rows)
        slices = Slices(self.rounds, self.limit_seconds, scene.say, scene.place.server.level, swarm.label)
        await slices.take([limit])
        looks = await self._run(scene, swarm)
        samples = await slices.take([limit])
        at_rest = Sample(median(sample.value for sample in samples[limit.name]))
        begin, end = looks[0].at + self.warm_up, looks[-1].at
        found = {
            OURS: [_between(looks, begin, end)],
            FIRST: [_between(looks, begin, begin + self.minute)],
            LAST: [_between(looks, end - self.minute, end)],
            limit.name: [at_rest],
        }
        checks = [at_least(0.35, OURS, limit.name, reached=0.24), at_least(0.8, LAST, FIRST)]
        checks += [at_most(1.5, LAST, FIRST, figure=figure) for figure in FLOORS]
        floors = ", ".join(f"{name} {value:,.0f}" for name, value in FLOORS.items())
        notes = [
            f"{self.seconds:.0f} s, of which {self.warm_up:.0f} warm up; a minute is {self.minute:.0f} s",
            f"growth counts from these on: {floors}",
        ]
        return [Outcome(f"{self.seconds:.0f} s, relay on, {swarm.label}", "updates/s", found, checks, notes)]

    async def _run(self, scene: Scene, swarm: Swarm) -> list[Look]:
        await scene.place.server.level()
        looks: list[Look] = []
        async with Persistence.open(scene.place.settings, relay="auto") as store:
            steps, done = cycle(swarm.steps), 0

            async def step() -> int:
                nonlocal done
                result = await store.agents.update_beliefs_many(swarm.ids, next(steps), free_energy=swarm.free_energy)
                result.raise_for_conflicts()
                done += len(swarm.ids)
                return len(swarm.ids)

            watching = asyncio.create_task(self._watch(scene.place, looks, lambda: done, scene.say))
            try:
                await again_and_again(self.seconds, step)
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
        return looks

    async def _watch(
        self, place: Place, looks: list[Look], done: Callable[[], int], say: Callable[[str], None]
    ) -> None:
        process, client = psutil.Process(), place.redis()
        connection = await asyncpg.connect(place.urls.admin_url)
        try:
            while True:
                figures = {name: float(value) for name, value in (await connection.fetchrow(LOOK)).items()}
                figures["memory_mb"] = process.memory_info().rss / 2**20
                figures["redis_mb"] = (await client.info("memory"))["used_memory"] / 2**20
                looks.append(Look(time.perf_counter(), done(), figures))
                say(", ".join([f"{done():,} updates", *(f"{name} {value:,.1f}" for name, value in figures.items())]))
                await asyncio.sleep(self.look_every)
        finally:
            await client.aclose()
            await connection.close()


def _between(looks: Sequence[Look], begin: float, end: float) -> Sample:
    """The rate of a stretch of time, and the medians of what was seen in it.

    Of dead rows the most, as they go up until each vacuum and then begin anew, about once a minute.
    """
    part = [look for look in looks if begin <= look.at <= end]
    if len(part) < 2:
        raise RuntimeError(f"{len(part)} looks in {end - begin:.0f} s: the loop was busy for longer than that")
    rate = (part[-1].done - part[0].done) / (part[-1].at - part[0].at)
    summary = {name: max if name == "dead_rows" else median for name in FLOORS}
    seen = {name: summary[name]([look.figures[name] for look in part]) for name in FLOORS}
    return Sample(rate, {name: max(floor, seen[name]) for name, floor in FLOORS.items()})


ENTRY = Entry(
    "sustained",
    "updates with the relay on",
    SustainedRow(),
    SustainedRow(
        rounds=1,
        seconds=8.0,
        warm_up=2.0,
        minute=3.0,
        look_every=0.25,
        limit_seconds=0.3,
        limit_rows=QUICK_ROWS,
        agents=5000,
    ),
)
