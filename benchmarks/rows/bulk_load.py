"""bulk_load_agents of a new swarm, beside binary COPY of the same rows into the same table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg
import numpy as np

from benchmarks.outcome import Outcome, at_least
from benchmarks.place import Place
from benchmarks.row import Entry, Slices
from benchmarks.scene import Scene
from benchmarks.swarm import agent_ids
from benchmarks.timing import Sample, Stopwatch
from freeagentics_persistence import Agent, BeliefBatch, Persistence

COLUMNS = ("tenant_id", "id", "name", "agent_type", "revision", "newest_revision", "belief_state")


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkLoadRow:
    """One load a slice."""

    rounds: int = 10
    agents: int = 100_000
    dimensions: Sequence[int] = (16, 256)

    async def measure(self, scene: Scene) -> list[Outcome]:
        """Every dimension."""
        scene.forget_swarm()
        async with Persistence.open(scene.place.settings, relay="off"):
            pass  # which makes the tables
        return [await self._case(scene, dimension) for dimension in self.dimensions]

    async def _case(self, scene: Scene, dimension: int) -> Outcome:
        ours = BulkLoad(scene.place, self.agents, dimension)
        await scene.place.server.forget_swarm()
        await ours.run(0)
        rows = await scene.place.server.connection.fetch(f"SELECT {', '.join(COLUMNS)} FROM agents ORDER BY id")
        copy = BinaryCopy(scene.place, [tuple(row) for row in rows])
        level = scene.place.server.forget_swarm
        samples = await Slices(self.rounds, 0, scene.say, level, f"d={dimension}").take([ours, copy])
        await level()
        case = f"{self.agents:,} agents, d={dimension}"
        return Outcome(case, "agents/s", samples, [at_least(0.4, ours.name, copy.name)])


class BulkLoad:
    """All agents with their beliefs, sealed, with history and events."""

    name = "bulk_load_agents"

    def __init__(self, place: Place, agents: int, dimension: int) -> None:
        self._place, self._ids = place, agent_ids(agents)
        self._beliefs = np.random.default_rng(dimension).dirichlet(np.ones(dimension), agents)

    async def run(self, seconds: float) -> Sample:
        """The amount of work is given by the number of agents, so ``seconds`` are not used."""
        async with Persistence.open(self._place.settings, relay="off") as store:
            watch = Stopwatch(seconds)
            agents = (Agent(id=each, name="agent", agent_type="benchmark") for each in self._ids)
            result = await store.queries.bulk_load_agents(agents, beliefs=BeliefBatch(self._beliefs))
            result.raise_for_conflicts()
            watch.done = len(self._ids)
            return Sample(watch.rate())


class BinaryCopy:
    """The rows that the store made, copied into its table by its owner."""

    name = "binary COPY"

    def __init__(self, place: Place, rows: Sequence[tuple[object, ...]]) -> None:
        self._place, self._rows = place, rows

    async def run(self, seconds: float) -> Sample:
        """The amount of work is given by the number of rows, so ``seconds`` are not used."""
        connection = await asyncpg.connect(self._place.urls.admin_url)
        try:
            watch = Stopwatch(seconds)
            await connection.copy_records_to_table("agents", records=self._rows, columns=COLUMNS)
            watch.done = len(self._rows)
            return Sample(watch.rate())
        finally:
            await connection.close()


ENTRY = Entry("bulk-load", "bulk_load_agents", BulkLoadRow(), BulkLoadRow(rounds=2, agents=10_000, dimensions=(256,)))
