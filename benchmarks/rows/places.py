"""Agents around a cell: their ids and cells, and a page of them with beliefs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from benchmarks.city import City, open_city
from benchmarks.outcome import Outcome, at_least, at_most, beside
from benchmarks.place import Place
from benchmarks.row import Contender, Entry, Slices
from benchmarks.scene import Scene
from benchmarks.timing import Sample, again_and_again
from freeagentics_persistence import DEFAULT_TENANT_ID, Persistence
from freeagentics_persistence.database.bootstrap import APP

RADIUS = 10
PAGE = 1000
BY_ID = "SELECT * FROM agents WHERE tenant_id = $1 AND id = ANY ($2)"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacesRow:
    """Cells are uniformly chosen; ADR's query loads entities, and opens no beliefs."""

    rounds: int = 10
    seconds: float = 2.0
    agents: int = 100_000
    coalitions: int = 5000
    dimensions: Sequence[int] = (16, 256)

    async def measure(self, scene: Scene) -> list[Outcome]:
        """Ids and cells, then beliefs, of each dimension."""
        found = []
        for dimension in self.dimensions:
            async with open_city(scene, self.agents, self.coalitions, dimension) as city:
                found += [await self._places(scene, city, dimension), await self._beliefs(scene, city, dimension)]
        return found

    async def _places(self, scene: Scene, city: City, dimension: int) -> Outcome:
        ours, adr, opened = Places(scene.place, city), AdrPlaces(city), AdrPlaces(city, opened=True)
        slices = Slices(self.rounds, self.seconds, scene.say, None, f"d={dimension}")
        samples = await slices.take([ours, adr, opened])
        checks = [at_least(15.0, ours.name, adr.name), beside(ours.name, opened.name)]
        return Outcome(f"radius {RADIUS}, ids and cells, d={dimension}", "agents/s", samples, checks)

    async def _beliefs(self, scene: Scene, city: City, dimension: int) -> Outcome:
        contenders: list[Contender] = [PageOfAgents(scene.place, city), RowsById(scene.place, city)]
        samples = await Slices(self.rounds, self.seconds, scene.say, None, f"d={dimension}").take(contenders)
        ours, plain = (contender.name for contender in contenders)
        case = f"a page of {PAGE:,} with beliefs, d={dimension}"
        return Outcome(case, "agents/s", samples, [at_most(3.0, ours, plain, figure="p50_ms")])


class Places:
    """get_places_by_location around uniformly chosen cells, page after page."""

    name = "get_places_by_location"

    def __init__(self, place: Place, city: City) -> None:
        self._place, self._city = place, city

    async def run(self, seconds: float) -> Sample:
        """Agents per second."""
        async with Persistence.open(self._place.settings, relay="off") as store:

            async def find() -> int:
                cell, count, after = self._city.somewhere(), 0, None
                while True:
                    page = await store.agents.get_places_by_location(cell, RADIUS, after=after)
                    count, after = count + len(page), page.next
                    if after is None:
                        return count

            return await again_and_again(seconds, find)


class AdrPlaces:
    """The decision's query around uniformly chosen cells; ``opened``: with the beliefs that its repository decrypts."""

    def __init__(self, city: City, *, opened: bool = False) -> None:
        self.name = "ADR's repository" if opened else "ADR's query"
        self._city = city
        self._find = city.adr.opened_agents_near if opened else city.adr.agents_near

    async def run(self, seconds: float) -> Sample:
        """Agents per second."""

        async def find() -> int:
            return len(await self._find(self._city.somewhere(), RADIUS))

        return await again_and_again(seconds, find)


class PageOfAgents:
    """get_agents_by_location, one page of whole agents with their beliefs."""

    name = "get_agents_by_location"

    def __init__(self, place: Place, city: City) -> None:
        self._place, self._city = place, city

    async def run(self, seconds: float) -> Sample:
        """Agents per second, and the percentiles of a page."""
        async with Persistence.open(self._place.settings, relay="off") as store:

            async def find() -> int:
                return len(await store.agents.get_agents_by_location(self._city.somewhere(), RADIUS, limit=PAGE))

            return await again_and_again(seconds, find)


class RowsById:
    """A plain SELECT of as many rows by their ids on one connection, which opens nothing."""

    name = "SELECT by id"

    def __init__(self, place: Place, city: City) -> None:
        self._place, self._city = place, city

    async def run(self, seconds: float) -> Sample:
        """Agents per second, and the percentiles of a SELECT."""
        settings = {"role": APP, "app.tenant_id": str(DEFAULT_TENANT_ID)}
        connection = await asyncpg.connect(self._place.urls.app_url, server_settings=settings)
        try:

            async def fetch() -> int:
                return len(await connection.fetch(BY_ID, DEFAULT_TENANT_ID, self._city.neighbours(PAGE)))

            return await again_and_again(seconds, fetch)
        finally:
            await connection.close()


ENTRY = Entry(
    "places",
    "agents by location",
    PlacesRow(),
    PlacesRow(rounds=2, seconds=0.4, agents=20_000, coalitions=1000, dimensions=(16,)),
)
