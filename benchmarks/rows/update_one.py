"""update_beliefs by one caller, who waits for every commit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.adr_way import AdrCallers, adr_way, updates_of
from benchmarks.outcome import Outcome, at_most, beside
from benchmarks.product import UpdateOne
from benchmarks.row import Entry, Slices
from benchmarks.scene import Scene
from benchmarks.yardsticks.pgbench import Pgbench


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateOneRow:
    """The median wait beside that of pgbench with one client."""

    rounds: int = 10
    seconds: float = 2.0
    agents: int = 10_000
    dimensions: Sequence[int] = (256, 16)

    async def measure(self, scene: Scene) -> list[Outcome]:
        """Every dimension."""
        return [await self._case(scene, dimension) for dimension in self.dimensions]

    async def _case(self, scene: Scene, dimension: int) -> Outcome:
        swarm = await scene.swarm(self.agents, dimension)
        ours = UpdateOne(scene.place.settings, swarm, 1)
        single = Pgbench(scene.place, self.agents, 1, waits=True)
        app = await adr_way(scene, swarm)
        baseline = AdrCallers(swarm, 1, updates_of(app, swarm), "row by row")
        slices = Slices(self.rounds, self.seconds, scene.say, scene.place.server.level, swarm.label)
        samples = await slices.take([ours, single, baseline])
        checks = [
            at_most(1.5, ours.name, single.name, figure="p50_ms"),
            beside(ours.name, baseline.name, figure="p50_ms"),
        ]
        return Outcome(f"one caller, {swarm.label}", "updates/s", samples, checks)


ENTRY = Entry(
    "update-one",
    "update_beliefs",
    UpdateOneRow(),
    UpdateOneRow(rounds=2, seconds=0.5, agents=5000, dimensions=(256,)),
)
