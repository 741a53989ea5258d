"""Agents in the cells of a city and coalitions among them, in the store and in the baseline's database."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

import asyncpg
import h3
import numpy as np

from benchmarks.adr_queries import AdrQueries
from benchmarks.adr_way import DATABASE, adr_way
from benchmarks.scene import Scene
from benchmarks.swarm import Swarm, agent_ids
from freeagentics_persistence import DEFAULT_TENANT_ID, Agent, BeliefBatch, Persistence

CENTRE = h3.latlng_to_cell(52.37, 4.90, 9)
MODELS = 10  # business models, equally frequent
MEMBERS = 20
AGENTS_PER_CELL = 10
# {0}: what only the store's own tables have
COALITIONS = """
INSERT INTO coalitions (id, name, business_model, tenant_id, status{0})
SELECT md5('coalition' || n)::uuid, 'coalition', 'model ' || n % {models}, '{tenant}', 'active'{1}
FROM generate_series(1, {coalitions}) AS n
"""
# agents of consecutive numbers are neighbours
MEMBERSHIPS = """
INSERT INTO coalition_members (coalition_id, agent_id{0})
SELECT md5('coalition' || n)::uuid, md5(((n * {members} + m) % {agents} + 1)::text)::uuid{1}
FROM generate_series(1, {coalitions}) AS n, generate_series(0, {members} - 1) AS m
"""
ADR_COLUMNS = (
    *("id", "name", "agent_type", "tenant_id", "location_h3", "personality_traits", "energy_level", "status"),
    "belief_state",
)
OLD_REVISION = "00000000-0000-7000-8000-000000000000"


@dataclass(frozen=True, slots=True)
class City:
    """Agents in cells. ``adr`` has the same ones."""

    ids: Sequence[UUID]
    cells: Sequence[str]
    adr: AdrQueries

    def somewhere(self) -> str:
        """A uniformly chosen cell."""
        return random.choice(self.cells)

    def neighbours(self, count: int) -> Sequence[UUID]:
        """So many agents around a uniformly chosen one."""
        first = random.randrange(len(self.ids) - count)
        return self.ids[first : first + count]

    @staticmethod
    def some_model() -> str:
        """A uniformly chosen business model."""
        return f"model {random.randrange(MODELS)}"


def cells_of_city(agents: int) -> list[str]:
    """The cells around the centre, with room for so many agents."""
    radius = 0
    while 3 * radius * (radius + 1) + 1 < agents / AGENTS_PER_CELL:
        radius += 1
    return sorted(h3.grid_disk(CENTRE, radius))


@asynccontextmanager
async def open_city(scene: Scene, agents: int, coalitions: int, dimension: int) -> AsyncIterator[City]:
    """Make the city. The tables are of no use to a swarm afterwards."""
    scene.say(f"making a city of {agents:,} agents, d={dimension}, and {coalitions:,} coalitions")
    rng = np.random.default_rng(1)
    ids, cells = agent_ids(agents), cells_of_city(agents)
    homes = np.arange(agents) * len(cells) // agents
    beliefs = rng.dirichlet(np.ones(dimension), agents)
    place = scene.place
    scene.forget_swarm()
    async with Persistence.open(place.settings, relay="off") as store:
        await place.server.forget_swarm()
        await place.forget_cached()
        made = (
            Agent(id=ids[i], name=f"agent {i}", agent_type="benchmark", location=cells[homes[i]]) for i in range(agents)
        )
        (await store.queries.bulk_load_agents(made, beliefs=BeliefBatch(beliefs))).raise_for_conflicts()
    await place.server.forget_events()
    sizes = {"agents": agents, "coalitions": coalitions}
    own = (", revision", f", '{OLD_REVISION}'"), (", tenant_id", f", '{DEFAULT_TENANT_ID}'")
    await _form_coalitions(place.server.connection, sizes, *own)
    nobody = Swarm(dimension, (), [beliefs[:0]], beliefs[:0, 0])
    app = await adr_way(scene, nobody)
    connection = await asyncpg.connect(place.admin_url_of(DATABASE))
    try:
        rows = (
            (
                *(ids[i], f"agent {i}", "benchmark", DEFAULT_TENANT_ID, cells[homes[i]], "{}", 100, "active"),
                app.cipher.encrypt(json.dumps(beliefs[i].tolist()).encode()),
            )
            for i in range(agents)
        )
        columns = (
            "id",
            "name",
            "agent_type",
            "tenant_id",
            "location_h3",
            "personality_traits",
            "energy_level",
            "status",
        )
        await connection.copy_records_to_table("agents", records=rows, columns=(*columns, "belief_state"))
        await _form_coalitions(connection, sizes, ("", ""), ("", ""))
    finally:
        await connection.close()
    yield City(ids, cells, AdrQueries(app))
    await place.server.connection.execute("TRUNCATE coalitions CASCADE")
    await place.server.forget_swarm()


async def _form_coalitions(
    connection: asyncpg.Connection, sizes: dict[str, int], of_coalitions: tuple[str, str], of_members: tuple[str, str]
) -> None:
    values = {**sizes, "models": MODELS, "members": MEMBERS, "tenant": DEFAULT_TENANT_ID}
    await connection.execute("TRUNCATE coalitions CASCADE")
    await connection.execute(COALITIONS.format(*of_coalitions, **values))
    await connection.execute(MEMBERSHIPS.format(*of_members, **values))
    await connection.execute("VACUUM ANALYZE")
