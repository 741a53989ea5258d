"""get_beliefs_many of the whole swarm, straight from PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg
import numpy as np

from benchmarks.adr_way import AdrSwarm, adr_way
from benchmarks.outcome import Outcome, at_least, beside
from benchmarks.place import Place
from benchmarks.row import Entry, Slices
from benchmarks.scene import Scene
from benchmarks.swarm import Swarm
from benchmarks.timing import Sample, again_and_again
from freeagentics_persistence import DEFAULT_TENANT_ID, Persistence
from freeagentics_persistence.database.bootstrap import APP

FETCH = "SELECT id, version, revision, belief_state FROM agents WHERE tenant_id = $1 AND id = ANY ($2)"


@dataclass(frozen=True, slots=True, kw_only=True)
class GetManyRow:
    """``targets`` has the least share of a plain fetch for each number of values a belief has."""

    rounds: int = 10
    seconds: float = 2.0
    agents: int = 10_000
    targets: Sequence[tuple[int, float]] = ((256, 0.5), (16, 0.3))

    async def measure(self, scene: Scene) -> list[Outcome]:
        """Every dimension, beside asyncpg's fetch of the same rows, which opens nothing."""
        return [await self._case(scene, dimension, target) for dimension, target in self.targets]

    async def _case(self, scene: Scene, dimension: int, target: float) -> Outcome:
        swarm = await scene.swarm(self.agents, dimension)
        ours, plain = GetMany(scene.place, swarm), PlainFetch(scene.place, swarm)
        app = await adr_way(scene, swarm)
        baseline = AdrSwarm(swarm, lambda row: app.get_agent(swarm.ids[row]), "one by one")
        slices = Slices(self.rounds, self.seconds, scene.say, None, swarm.label)
        samples = await slices.take([ours, plain, baseline])
        checks = [at_least(target, ours.name, plain.name), beside(ours.name, baseline.name)]
        return Outcome(f"{self.agents:,} agents, strong, {swarm.label}", "agents/s", samples, checks)


class GetMany:
    """get_beliefs_many(consistency="strong") of all agents, as arrays."""

    name = "get_beliefs_many"

    def __init__(self, place: Place, swarm: Swarm) -> None:
        self._place, self._swarm = place, swarm

    async def run(self, seconds: float) -> Sample:
        """Agents per second."""
        async with Persistence.open(self._place.settings, relay="off") as store:

            async def get() -> int:
                batch = await store.agents.get_beliefs_many(self._swarm.ids, consistency="strong")
                if not all(batch.present):
                    raise RuntimeError("agents are missing")
                return len(batch)

            # what comes must be what was written: some step of the swarm, whichever was written last
            batch = await store.agents.get_beliefs_many(self._swarm.ids, consistency="strong")
            if not any(np.array_equal(batch.factors[0][0], step[0]) for step in self._swarm.steps):
                raise RuntimeError("the swarm does not hold what was written")
            return await again_and_again(seconds, get)


class PlainFetch:
    """One prepared SELECT of all rows on one connection, in the application's role."""

    name = "asyncpg fetch"

    def __init__(self, place: Place, swarm: Swarm) -> None:
        self._place, self._swarm = place, swarm

    async def run(self, seconds: float) -> Sample:
        """Agents per second."""
        settings = {"role": APP, "app.tenant_id": str(DEFAULT_TENANT_ID)}
        connection = await asyncpg.connect(self._place.urls.app_url, server_settings=settings)
        try:

            async def fetch() -> int:
                return len(await connection.fetch(FETCH, DEFAULT_TENANT_ID, self._swarm.ids))

            return await again_and_again(seconds, fetch)
        finally:
            await connection.close()


ENTRY = Entry(
    "get-many", "get_beliefs_many", GetManyRow(), GetManyRow(rounds=2, seconds=0.4, agents=5000, targets=((256, 0.5),))
)
