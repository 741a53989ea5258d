"""Pages of agents: joined, they are the filtered agents in order, whatever happens to other agents meanwhile."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import h3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freeagentics_persistence import Agent, Beliefs, Page, Persistence, TenantStore
from freeagentics_persistence.errors import InvalidInput

CELL = h3.latlng_to_cell(52.37, 4.90, 9)
CELLS = h3.grid_disk(CELL, 3)
NOW = datetime.now(UTC).replace(microsecond=0)
ACTIVE = "UPDATE agents SET last_active_at = $3 WHERE tenant_id = $1 AND id = ANY ($2)"
SLOW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

Turn = Callable[[str | None], Awaitable[Page[Agent]]]

agents_made = st.builds(
    Agent,
    name=st.just("a"),
    agent_type=st.sampled_from("xy"),
    status=st.sampled_from(["active", "active", "inactive", "suspended"]),
    location=st.none() | st.sampled_from(CELLS),
    id=st.uuids(version=4),
)
filters = st.fixed_dictionaries(
    {},
    optional={
        "agent_type": st.sampled_from("xy"),
        "status": st.sampled_from(["active", "inactive"]),
        "active_since": st.integers(0, 5).map(lambda hours: NOW - timedelta(hours=hours)),
        "location": st.sampled_from(CELLS[:4]),
    },
)


def fits(agent: Agent, wanted: dict[str, object], radius: int) -> bool:
    """What list_agents() promises."""
    if any(name in wanted and getattr(agent, name) != wanted[name] for name in ("agent_type", "status")):
        return False
    if "active_since" in wanted and agent.last_active_at < wanted["active_since"]:
        return False
    place = wanted.get("location")
    return place is None or (agent.location is not None and h3.grid_distance(place, agent.location) <= radius)


async def make(tenant: TenantStore, admin: asyncpg.Connection, agents: list[Agent], hours: list[int]) -> list[Agent]:
    """Save agents, last active so many hours ago."""
    (await tenant.agents.save_agents(agents)).raise_for_conflicts()
    made = []
    for agent, ago in zip(agents, hours, strict=True):
        moment = NOW - timedelta(hours=ago, minutes=30)
        await admin.execute(ACTIVE, tenant.tenant_id, [agent.id], moment)
        made.append(dataclasses.replace(agent, last_active_at=moment))
    return made


async def turned(page: Turn, between: Callable[[], Awaitable[None]]) -> list[Agent]:
    """All pages, with changes between them."""
    found: list[Agent] = []
    after: str | None = None
    while True:
        got = await page(after)
        found += got
        assert len(found) < 100, "pages without end"
        after = got.next
        if after is None:
            return found
        await between()


@SLOW
@given(data=st.data())
async def test_pages_are_the_filtered_agents_whatever_others_do(
    quiet_store: Persistence, admin: asyncpg.Connection, data: st.DataObject
) -> None:
    tenant = await quiet_store.create_tenant(uuid4().hex)
    given_agents = data.draw(st.lists(agents_made, min_size=1, max_size=14, unique_by=lambda agent: agent.id))
    hours = data.draw(st.lists(st.integers(0, 6), min_size=len(given_agents), max_size=len(given_agents)))
    made = await make(tenant, admin, given_agents, hours)
    split = data.draw(st.integers(0, len(made)))
    steady, others = made[:split], list(made[split:])
    wanted, radius = data.draw(filters), data.draw(st.integers(0, 3))
    around = {"radius": radius} if "location" in wanted else {}
    nearest = data.draw(st.booleans())
    limit = data.draw(st.integers(1, 5))

    async def change_others() -> None:
        match data.draw(st.sampled_from(["insert", "delete", "change", "wake"])):
            case "insert":
                fresh = data.draw(agents_made)
                if fresh.id not in {agent.id for agent in made}:
                    others.append(await tenant.agents.save_agent(fresh))
            case "delete" if others:
                await tenant.agents.delete_agent(others.pop().id)
            case "change" if others:
                changed = dataclasses.replace(data.draw(agents_made), id=others[-1].id)
                await tenant.agents.save_agent(changed)
            case "wake":  # those that fit go on to fit
                fitting = [agent.id for agent in steady if fits(agent, wanted, radius)]
                await admin.execute(ACTIVE, tenant.tenant_id, fitting, datetime.now(UTC))

    async def page(after: str | None) -> Page[Agent]:
        if nearest:
            return await tenant.agents.get_agents_by_location(CELL, 3, limit=limit, after=after, with_beliefs=False)
        return await tenant.agents.list_agents(**wanted, **around, limit=limit, after=after)  # type: ignore[arg-type]

    found = await turned(page, change_others)
    ids = [agent.id for agent in found]
    assert len(set(ids)) == len(ids)
    if nearest:
        place = {agent.id: (h3.grid_distance(CELL, agent.location), agent.id) for agent in found}  # type: ignore[arg-type]
        expected = [agent for agent in steady if agent.status == "active" and agent.location is not None]
        expected.sort(key=lambda agent: (h3.grid_distance(CELL, agent.location), agent.id))  # type: ignore[arg-type]
        assert sorted(ids, key=place.__getitem__) == ids
    else:
        expected = sorted((agent for agent in steady if fits(agent, wanted, radius)), key=lambda agent: agent.id)
        assert sorted(ids) == ids
    own = {agent.id for agent in steady}
    assert [agent_id for agent_id in ids if agent_id in own] == [agent.id for agent in expected]


@SLOW
@given(agents=st.lists(agents_made, min_size=1, max_size=20, unique_by=lambda agent: agent.id), k=st.integers(1, 8))
async def test_the_nearest_are_those_with_the_least_distance(
    quiet_store: Persistence, agents: list[Agent], k: int
) -> None:
    tenant = await quiet_store.create_tenant(uuid4().hex)
    (await tenant.agents.save_agents(agents)).raise_for_conflicts()
    placed = [agent for agent in agents if agent.status == "active" and agent.location is not None]
    placed.sort(key=lambda agent: (h3.grid_distance(CELL, agent.location), agent.id))  # type: ignore[arg-type]
    wanted = [agent.id for agent in placed]
    found = await tenant.agents.get_nearest_agents(CELL, k, max_radius=20)
    assert [agent.id for agent in found] == wanted[:k]
    places = await tenant.agents.get_places_by_location(CELL, 3)
    assert list(places.ids) == wanted
    assert list(places.cells) == [agent.location for agent in placed]
    assert places.distances.tolist() == [h3.grid_distance(CELL, cell) for cell in places.cells]
    first = await tenant.agents.get_places_by_location(CELL, 3, limit=k)
    rest = await tenant.agents.get_places_by_location(CELL, 3, after=first.next) if first.next else None
    assert [*first.ids, *(rest.ids if rest else [])] == wanted
    assert all(type(agent_id) is UUID for agent_id in places.ids)


async def test_agents_of_a_page_are_those_that_were_saved(quiet_store: Persistence) -> None:
    agent = Agent(
        name="scout",
        agent_type="t",
        location=CELL,
        energy=3,
        status="suspended",
        personality={"a": [1, None, {"b": "ü"}]},
        beliefs=Beliefs.uniform(3),
    )
    saved = await quiet_store.agents.save_agent(agent)
    assert list(await quiet_store.agents.list_agents(with_beliefs=True)) == [saved]
    assert list(await quiet_store.agents.list_agents()) == [dataclasses.replace(saved, beliefs=None)]
    awake = await quiet_store.agents.save_agent(dataclasses.replace(saved, status="active"))
    assert list(await quiet_store.agents.get_agents_by_location(CELL, 0)) == [awake]
    assert await quiet_store.agents.get_nearest_agents(CELL) == [awake]


async def test_agents_around_a_pentagon_are_found(quiet_store: Persistence) -> None:
    pentagon = h3.get_pentagons(7)[3]
    agents = [Agent(name="a", agent_type="t", location=cell) for cell in h3.grid_disk(pentagon, 2)]
    (await quiet_store.agents.save_agents(agents)).raise_for_conflicts()
    found = await quiet_store.agents.get_places_by_location(pentagon, 2)
    assert (len(found), found.distances.tolist()) == (16, [0] + 5 * [1] + 10 * [2])


async def test_a_search_at_a_resolution_without_agents_says_so(quiet_store: Persistence) -> None:
    agents, coarse = quiet_store.agents, h3.cell_to_parent(CELL, 8)
    far = h3.latlng_to_cell(-30, 100, 8)
    for search in (agents.get_agents_by_location, agents.get_places_by_location):
        assert len(await search(coarse)) == 0  # nobody is anywhere
    await agents.save_agents([Agent(name="a", agent_type="t", location=CELL), Agent(name="b", agent_type="t")])
    for call in (
        agents.get_agents_by_location(coarse),
        agents.get_places_by_location(coarse),
        agents.get_nearest_agents(coarse),
        agents.list_agents(location=coarse, radius=1),
        quiet_store.queries.efficient_coalition_query(coarse, "m"),
    ):
        with pytest.raises(InvalidInput, match=f"location: {coarse} has resolution 8, .* cells of 9 alone"):
            await call
    await agents.save_agent(Agent(name="c", agent_type="t", location=far))
    assert len(await agents.get_agents_by_location(coarse)) == 0  # some are at that resolution, elsewhere
    assert [agent.name for agent in await agents.get_nearest_agents(far)] == ["c"]


async def test_a_tenant_sees_its_own_agents_alone(quiet_store: Persistence) -> None:
    guest = await quiet_store.create_tenant("guest")
    await guest.agents.save_agent(Agent(name="a", agent_type="t", location=CELL))
    agents = quiet_store.agents
    assert len(await agents.list_agents()) == len(await agents.get_agents_by_location(CELL)) == 0
    assert len(await agents.get_places_by_location(CELL)) == len(await agents.get_nearest_agents(CELL)) == 0
    assert len(await guest.agents.get_places_by_location(CELL)) == len(await guest.agents.list_agents()) == 1


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda a, c: a.list_agents(agent_type=""), "agent_type"),
        (lambda a, c: a.list_agents(status="gone"), "status"),
        (lambda a, c: a.list_agents(active_since=datetime(2026, 1, 1)), "active_since"),  # noqa: DTZ001
        (lambda a, c: a.list_agents(location="x"), "location"),
        (lambda a, c: a.list_agents(radius=2), "radius"),
        (lambda a, c: a.list_agents(location=CELL, radius=[]), "radius"),
        (lambda a, c: a.list_agents(location=CELL, radius=51), "radius"),
        (lambda a, c: a.list_agents(limit=10_001), "limit"),
        (lambda a, c: a.list_agents(after=str(uuid4())), "after"),
        (lambda a, c: a.list_agents(after=c, status="active"), "after"),
        (lambda a, c: a.get_agents_by_location(CELL, after=c), "after"),
        (lambda a, c: a.get_places_by_location(CELL, limit=0), "limit"),
        (lambda a, c: a.get_places_by_location(CELL, after=c), "after"),
        (lambda a, c: a.get_places_by_location("x"), "location"),
        (lambda a, c: a.get_nearest_agents(CELL, 0), "k"),
        (lambda a, c: a.get_nearest_agents(CELL, max_radius=51), "max_radius"),
        (lambda a, c: a.get_nearest_agents("8"), "location"),
    ],
)
async def test_bad_input_names_the_field(quiet_store: Persistence, call: object, field: str) -> None:
    await quiet_store.agents.save_agents([Agent(name="a", agent_type="t", location=CELL) for _ in range(2)])
    cursor = (await quiet_store.agents.list_agents(limit=1)).next
    with pytest.raises(InvalidInput) as caught:
        await call(quiet_store.agents, cursor)  # type: ignore[operator]
    assert caught.value.field == field
