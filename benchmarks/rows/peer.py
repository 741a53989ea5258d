"""The same bytes put and got by the peer that a user might pick instead."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from benchmarks.outcome import Outcome, at_least
from benchmarks.product import UpdateOne
from benchmarks.row import Entry, Slices
from benchmarks.rows.cached import CachedOne
from benchmarks.scene import Scene
from benchmarks.swarm import Swarm
from benchmarks.timing import Sample, by_callers
from benchmarks.yardsticks.peer import open_peer

REACHED = 4.2  # by the puts of 32 callers, a commit for every ten of them
PUT, GET = "langgraph-checkpoint-postgres put", "langgraph-checkpoint-postgres get"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerRow:
    """``targets`` has callers, and how many times its puts and its gets."""

    rounds: int = 10
    seconds: float = 2.0
    agents: int = 10_000
    known: int = 2000
    dimension: int = 256
    targets: Sequence[tuple[int, float, float]] = ((32, 6.0, 8.0), (500, 15.0, 15.0))

    async def measure(self, scene: Scene) -> list[Outcome]:
        """Puts, which are update_beliefs of ours, and gets, which are get_beliefs as it is called by default."""
        swarm = await scene.swarm(self.agents, self.dimension)
        some = Swarm(swarm.dimension, swarm.ids[: self.known], swarm.steps, swarm.free_energy)
        found: list[Outcome] = []
        async with open_peer(scene.place, some) as (put, get):
            for callers, puts, gets in self.targets:
                found.append(await self._puts(scene, swarm, PeerCallers(some, callers, put, PUT), callers, puts))
                found.append(await self._gets(scene, swarm, PeerCallers(some, callers, get, GET), callers, gets))
        return found

    async def _puts(self, scene: Scene, swarm: Swarm, peer: PeerCallers, callers: int, target: float) -> Outcome:
        ours = UpdateOne(scene.place.settings, swarm, callers)
        slices = Slices(self.rounds, self.seconds, scene.say, scene.place.server.level, f"{callers} callers")
        samples = await slices.take([ours, peer])
        case = f"put, {callers} callers, {swarm.label}"
        return Outcome(
            case, "updates/s", samples, [at_least(target, ours.name, peer.name, reached=min(target, REACHED))]
        )

    async def _gets(self, scene: Scene, swarm: Swarm, peer: PeerCallers, callers: int, target: float) -> Outcome:
        ours = CachedOne(scene.place, swarm, callers)
        samples = await Slices(self.rounds, self.seconds, scene.say, None, f"{callers} callers").take([ours, peer])
        case = f"get, {callers} callers, {swarm.label}"
        return Outcome(case, "agents/s", samples, [at_least(target, ours.name, peer.name)])


class PeerCallers:
    """Calls about uniformly chosen threads."""

    def __init__(self, swarm: Swarm, callers: int, call: Callable[[int], Awaitable[object]], name: str) -> None:
        self.name = name
        self._swarm, self._callers, self._call = swarm, callers, call

    async def run(self, seconds: float) -> Sample:
        """Calls per second."""
        return await by_callers(self._callers, seconds, len(self._swarm.ids), self._call)


ENTRY = Entry(
    "peer",
    "the peer, langgraph-checkpoint-postgres",
    PeerRow(),
    PeerRow(rounds=2, seconds=0.4, agents=5000, known=200),
)
