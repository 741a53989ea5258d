"""update_beliefs_many: a whole swarm's step in one call, with the relay off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.adr_way import AdrSwarm, adr_way, updates_of
from benchmarks.outcome import Outcome, at_least, beside
from benchmarks.product import UpdateMany
from benchmarks.row import Entry, Slices
from benchmarks.scene import Scene
from benchmarks.yardsticks.in_server import QUICK_ROWS, ROWS, best_in_server
from benchmarks.yardsticks.pgbench import Pgbench

REACHED = {256: 0.4, 16: 0.3}


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateManyRow:
    """``targets`` has the least share of in-server for each number of values a belief has."""

    rounds: int = 10
    seconds: float = 2.0
    limit_rounds: int = 3
    limit_seconds: float = 1.5
    limit_rows: Sequence[int] = ROWS
    agents: int = 10_000
    targets: Sequence[tuple[int, float]] = ((256, 0.7), (16, 0.5))

    async def measure(self, scene: Scene) -> list[Outcome]:
        """Both dimensions, beside in-server, lean, pgbench and the ADR's way."""
        return [await self._case(scene, dimension, target) for dimension, target in self.targets]

    async def _case(self, scene: Scene, dimension: int, target: float) -> Outcome:
        swarm = await scene.swarm(self.agents, dimension)
        limit, lean = await best_in_server(scene, swarm, self.limit_rounds, self.limit_seconds, self.limit_rows)
        ours, single = UpdateMany(scene.place.settings, swarm), Pgbench(scene.place, self.agents, 32)
        app = await adr_way(scene, swarm)
        baseline = AdrSwarm(swarm, updates_of(app, swarm), "row by row")
        slices = Slices(self.rounds, self.seconds, scene.say, scene.place.server.level, swarm.label)
        samples = await slices.take([ours, limit, lean, single, baseline])
        checks = [
            at_least(target, ours.name, limit.name, reached=REACHED[dimension]),
            beside(ours.name, lean.name),
            beside(ours.name, single.name),
            beside(ours.name, baseline.name),
        ]
        size = await scene.place.server.envelope_bytes()
        return Outcome(f"{self.agents:,} agents, {swarm.label}", "updates/s", samples, checks, [f"envelope {size:,} B"])


ENTRY = Entry(
    "update-many",
    "update_beliefs_many",
    UpdateManyRow(),
    UpdateManyRow(
        rounds=2,
        seconds=0.4,
        limit_rounds=1,
        limit_seconds=0.3,
        limit_rows=QUICK_ROWS,
        agents=5000,
        targets=((16, 0.5), (256, 0.7)),
    ),
)
