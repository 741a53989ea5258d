"""get_agent by many callers, straight from PostgreSQL."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.adr_way import AdrCallers, adr_way
from benchmarks.outcome import Outcome, at_least, beside
from benchmarks.place import Place
from benchmarks.row import Entry, Slices
from benchmarks.scene import Scene
from benchmarks.swarm import Swarm
from benchmarks.timing import Sample, by_callers
from benchmarks.yardsticks.pgbench import SELECT, Pgbench
from freeagentics_persistence import Persistence


@dataclass(frozen=True, slots=True, kw_only=True)
class GetAgentRow:
    """Whole agents, opened."""

    rounds: int = 10
    seconds: float = 2.0
    agents: int = 10_000
    callers: int = 500
    dimension: int = 256

    async def measure(self, scene: Scene) -> list[Outcome]:
        """Beside one prepared SELECT by key, with the tenant set for the whole connection."""
        swarm = await scene.swarm(self.agents, self.dimension)
        ours = GetAgents(scene.place, swarm, self.callers)
        single = Pgbench(scene.place, self.agents, 8, SELECT)
        app = await adr_way(scene, swarm)
        baseline = AdrCallers(swarm, self.callers, lambda row: app.get_agent(swarm.ids[row]), "one by one")
        slices = Slices(self.rounds, self.seconds, scene.say, None, swarm.label)
        samples = await slices.take([ours, single, baseline])
        checks = [at_least(1.0, ours.name, single.name), beside(ours.name, baseline.name)]
        return [Outcome(f"{self.callers} callers, strong, {swarm.label}", "agents/s", samples, checks)]


class GetAgents:
    """get_agent(consistency="strong") of uniformly chosen agents."""

    name = "get_agent"

    def __init__(self, place: Place, swarm: Swarm, callers: int) -> None:
        self._place, self._swarm, self._callers = place, swarm, callers

    async def run(self, seconds: float) -> Sample:
        """Agents per second."""
        ids = self._swarm.ids
        async with Persistence.open(self._place.settings, relay="off") as store:

            async def get(row: int) -> None:
                agent = await store.agents.get_agent(ids[row], consistency="strong")
                if agent is None or agent.beliefs is None:
                    raise RuntimeError(f"agent {ids[row]} is not whole")

            return await by_callers(self._callers, seconds, len(ids), get)


ENTRY = Entry("get-agent", "get_agent", GetAgentRow(), GetAgentRow(rounds=2, seconds=0.5, agents=5000))
