"""Coalitions of a business model near a cell."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.city import City, open_city
from benchmarks.outcome import Outcome, at_least
from benchmarks.place import Place
from benchmarks.row import Entry, Slices
from benchmarks.scene import Scene
from benchmarks.timing import Sample, again_and_again
from freeagentics_persistence import Persistence

DIMENSION = 16
REACHED = 1.5  # a round trip alone takes a tenth of ADR's query: docs/decisions/0009


@dataclass(frozen=True, slots=True, kw_only=True)
class CoalitionsNearRow:
    """Cells and business models are uniformly chosen."""

    rounds: int = 10
    seconds: float = 2.0
    agents: int = 100_000
    coalitions: int = 5000

    async def measure(self, scene: Scene) -> list[Outcome]:
        """One case."""
        async with open_city(scene, self.agents, self.coalitions, DIMENSION) as city:
            ours, adr = CoalitionsNear(scene.place, city), AdrCoalitionsNear(city)
            samples = await Slices(self.rounds, self.seconds, scene.say).take([ours, adr])
        case = f"{self.agents:,} agents, {self.coalitions:,} coalitions"
        return [Outcome(case, "queries/s", samples, [at_least(10.0, ours.name, adr.name, reached=REACHED)])]


class CoalitionsNear:
    """efficient_coalition_query, one call after another."""

    name = "efficient_coalition_query"

    def __init__(self, place: Place, city: City) -> None:
        self._place, self._city = place, city

    async def run(self, seconds: float) -> Sample:
        """Queries per second."""
        async with Persistence.open(self._place.settings, relay="off") as store:

            async def find() -> int:
                await store.queries.efficient_coalition_query(self._city.somewhere(), self._city.some_model())
                return 1

            return await again_and_again(seconds, find)


class AdrCoalitionsNear:
    """The query as the decision writes it."""

    name = "ADR's query"

    def __init__(self, city: City) -> None:
        self._city = city

    async def run(self, seconds: float) -> Sample:
        """Queries per second."""

        async def find() -> int:
            await self._city.adr.coalitions_near(self._city.somewhere(), self._city.some_model())
            return 1

        return await again_and_again(seconds, find)


ENTRY = Entry(
    "coalitions-near",
    "efficient_coalition_query",
    CoalitionsNearRow(),
    CoalitionsNearRow(rounds=2, seconds=0.4, agents=20_000, coalitions=1000),
)
