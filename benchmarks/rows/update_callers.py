"""update_beliefs by many callers at once, which group commit brings together, with the relay off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.adr_way import AdrCallers, adr_way, updates_of
from benchmarks.outcome import Outcome, at_least, at_most, beside
from benchmarks.product import UpdateOne
from benchmarks.row import Entry, Slices
from benchmarks.scene import Scene
from benchmarks.yardsticks.in_server import QUICK_ROWS, ROWS, best_in_server
from benchmarks.yardsticks.pgbench import Pgbench


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateCallersRow:
    """Each of the callers waits for its update before it makes the next."""

    rounds: int = 10
    seconds: float = 2.0
    limit_rounds: int = 3
    limit_seconds: float = 1.5
    limit_rows: Sequence[int] = ROWS
    agents: int = 10_000
    callers: int = 500
    dimensions: Sequence[int] = (256, 16)

    async def measure(self, scene: Scene) -> list[Outcome]:
        """The targets are of d=256."""
        return [await self._case(scene, dimension) for dimension in self.dimensions]

    async def _case(self, scene: Scene, dimension: int) -> Outcome:
        swarm = await scene.swarm(self.agents, dimension)
        limit, _ = await best_in_server(scene, swarm, self.limit_rounds, self.limit_seconds, self.limit_rows)
        ours, single = UpdateOne(scene.place.settings, swarm, self.callers), Pgbench(scene.place, self.agents, 32)
        app = await adr_way(scene, swarm)
        baseline = AdrCallers(swarm, self.callers, updates_of(app, swarm), "row by row")
        slices = Slices(self.rounds, self.seconds, scene.say, scene.place.server.level, swarm.label)
        samples = await slices.take([ours, limit, single, baseline])
        compared = [(3.0, single.name, 3.0), (0.5, limit.name, 0.24)]
        checks = [
            at_least(bound, ours.name, over, reached=reached) if dimension == 256 else beside(ours.name, over)
            for bound, over, reached in compared
        ]
        checks += [beside(ours.name, baseline.name), at_most(100.0, ours.name, figure="p95_ms")]
        return Outcome(f"{self.callers} callers, {swarm.label}", "updates/s", samples, checks)


ENTRY = Entry(
    "update-callers",
    "update_beliefs",
    UpdateCallersRow(),
    UpdateCallersRow(
        rounds=2, seconds=0.5, limit_rounds=1, limit_seconds=0.3, limit_rows=QUICK_ROWS, agents=5000, dimensions=(256,)
    ),
)
