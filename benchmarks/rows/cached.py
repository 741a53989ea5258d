"""Beliefs out of the cache, opened and as numpy: by many callers, and the whole swarm in one call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np

from benchmarks.adr_way import AdrCallers, adr_way
from benchmarks.outcome import Outcome, at_least, beside
from benchmarks.place import Place
from benchmarks.row import Entry, Slices
from benchmarks.scene import Scene
from benchmarks.swarm import Swarm
from benchmarks.timing import Sample, again_and_again, by_callers
from benchmarks.yardsticks.redis_benchmark import RedisBenchmark
from freeagentics_persistence import DEFAULT_TENANT_ID, Persistence
from freeagentics_persistence.cache.keys import TenantKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedRow:
    """Reads of a store that has written all agents itself, so that the cache may answer for every one."""

    rounds: int = 10
    seconds: float = 2.0
    agents: int = 10_000
    callers: int = 32
    dimensions: Sequence[int] = (256, 16)

    async def measure(self, scene: Scene) -> list[Outcome]:
        """Both calls, in every dimension."""
        found: list[Outcome] = []
        for dimension in self.dimensions:
            found += await self._cases(scene, await scene.swarm(self.agents, dimension))
        return found

    async def _cases(self, scene: Scene, swarm: Swarm) -> list[Outcome]:
        size = await entry_bytes(scene.place, swarm)
        one, many = CachedOne(scene.place, swarm, self.callers), CachedMany(scene.place, swarm)
        single, piped = (RedisBenchmark(scene.place, self.agents, size, pipelined) for pipelined in (1, 32))
        await single.fill()
        try:
            app = await adr_way(scene, swarm)
            await app.fill_cache(swarm)
            get = lambda row: app.get_cached_beliefs(swarm.ids[row])  # noqa: E731
            baseline = AdrCallers(swarm, self.callers, get, "GET and JSON")
            slices = Slices(self.rounds, self.seconds, scene.say, None, swarm.label)
            first = await slices.take([one, single, baseline])
            second = await Slices(self.rounds, self.seconds, scene.say, None, swarm.label).take([many, piped])
        finally:
            await single.empty()
        checks = [at_least(0.4, one.name, single.name), beside(one.name, baseline.name)]
        notes = [f"entries of {size:,} B"]
        return [
            Outcome(f"{self.callers} callers, {swarm.label}", "agents/s", first, checks, notes),
            Outcome(
                f"{self.agents:,} agents in one call, {swarm.label}",
                "agents/s",
                second,
                [at_least(0.25, many.name, piped.name)],
                notes,
            ),
        ]


@asynccontextmanager
async def warm_store(place: Place, swarm: Swarm) -> AsyncIterator[Persistence]:
    """A store that has just written and cached the last step of the swarm."""
    async with Persistence.open(place.settings, relay="off") as store:
        written = await store.agents.update_beliefs_many(swarm.ids, swarm.steps[-1], free_energy=swarm.free_energy)
        written.raise_for_conflicts()
        yield store


async def entry_bytes(place: Place, swarm: Swarm) -> int:
    """How large a cached entry is."""
    client = place.redis()
    try:
        async with warm_store(place, swarm) as store:
            key = TenantKeys(store.epoch, DEFAULT_TENANT_ID).beliefs(swarm.ids[0])
            return int(await client.strlen(key))
    finally:
        await client.aclose()


class CachedOne:
    """get_beliefs of uniformly chosen agents."""

    name = "get_beliefs"

    def __init__(self, place: Place, swarm: Swarm, callers: int) -> None:
        self._place, self._swarm, self._callers = place, swarm, callers

    async def run(self, seconds: float) -> Sample:
        """Agents per second; every answer is compared with what was written."""
        swarm, step = self._swarm, self._swarm.steps[-1]
        async with warm_store(self._place, swarm) as store:

            async def get(row: int) -> None:
                beliefs = await store.agents.get_beliefs(swarm.ids[row])
                if beliefs is None or beliefs.factors[0].values[0] != step[row, 0]:
                    raise RuntimeError(f"agent {swarm.ids[row]} does not hold what was written")

            return await by_callers(self._callers, seconds, len(swarm.ids), get)


class CachedMany:
    """get_beliefs_many of the whole swarm."""

    name = "get_beliefs_many"

    def __init__(self, place: Place, swarm: Swarm) -> None:
        self._place, self._swarm = place, swarm

    async def run(self, seconds: float) -> Sample:
        """Agents per second; every answer is compared with what was written."""
        swarm, step = self._swarm, self._swarm.steps[-1]
        async with warm_store(self._place, swarm) as store:

            async def get() -> int:
                batch = await store.agents.get_beliefs_many(swarm.ids)
                if not np.array_equal(batch.factors[0][:, 0], step[:, 0]):
                    raise RuntimeError("the swarm does not hold what was written")
                return len(batch)

            return await again_and_again(seconds, get)


ENTRY = Entry(
    "cached", "beliefs from the cache", CachedRow(), CachedRow(rounds=2, seconds=0.3, agents=5000, dimensions=(256,))
)
