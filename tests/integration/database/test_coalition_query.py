"""Coalitions by the places of their members, beside the same counted by hand."""

from __future__ import annotations

import random
from collections import Counter
from uuid import uuid4

import h3
import pytest

from freeagentics_persistence import Agent, Coalition, Persistence
from freeagentics_persistence.errors import InvalidInput

CELL = h3.latlng_to_cell(52.37, 4.90, 9)
CELLS = h3.grid_disk(CELL, 4)


async def test_it_finds_what_counting_finds(quiet_store: Persistence) -> None:
    rng = random.Random(5)
    agents = [
        Agent(
            name="a",
            agent_type="t",
            location=rng.choice([None, *CELLS]),
            status=rng.choice(["active", "active", "suspended"]),
        )
        for _ in range(300)
    ]
    (await quiet_store.agents.save_agents(agents)).raise_for_conflicts()
    coalitions = {}
    for i in range(40):
        given = Coalition(name=f"c{i}", business_model="ab"[i % 2])
        saved = await quiet_store.coalitions.save_coalition(given)
        members = rng.sample(agents, rng.randint(2, 25))
        await quiet_store.coalitions.add_members(saved.id, [agent.id for agent in members])
        if i % 3:
            await quiet_store.coalitions.activate_coalition(saved.id)
        if i % 3 == 2:
            await quiet_store.coalitions.record_revenue(saved.id, 1)
        if i in (8, 16):
            await quiet_store.coalitions.dissolve_coalition(saved.id)
        stored = await quiet_store.coalitions.get_coalition(saved.id)
        assert stored is not None
        coalitions[saved.id] = (stored, members)
    query = quiet_store.queries.efficient_coalition_query
    sizes: Counter[int] = Counter()
    for radius in (0, 1, 2, 4):
        for model in "abc":
            for minimum in (1, 2, 6):
                for status in (None, "forming", "dissolved"):
                    wanted = ("active", "profitable") if status is None else (status,)
                    expected = []
                    for stored, members in coalitions.values():
                        near = sum(
                            agent.status == "active"
                            and agent.location is not None
                            and h3.grid_distance(CELL, agent.location) <= radius
                            for agent in members
                        )
                        if stored.business_model == model and stored.status in wanted and near >= minimum:
                            expected.append(stored)
                    expected.sort(key=lambda coalition: coalition.id)
                    found = await query(CELL, model, radius=radius, min_members=minimum, status=status)
                    assert list(found) == expected
                    sizes[len(expected)] += 1
    assert len(sizes) > 5


async def test_its_pages_go_on_where_the_last_one_ended(quiet_store: Persistence) -> None:
    agents = [Agent(name="a", agent_type="t", location=CELL) for _ in range(2)]
    await quiet_store.agents.save_agents(agents)
    made = []
    for _ in range(7):
        saved = await quiet_store.coalitions.save_coalition(Coalition(name="c", business_model="m"))
        await quiet_store.coalitions.add_members(saved.id, [agent.id for agent in agents])
        await quiet_store.coalitions.activate_coalition(saved.id)
        made.append(saved.id)
    query = quiet_store.queries.efficient_coalition_query
    first = await query(CELL, "m", limit=4)
    await quiet_store.coalitions.dissolve_coalition(first.items[0].id)
    second = await query(CELL, "m", limit=4, after=first.next)
    assert [coalition.id for coalition in (*first, *second)] == sorted(made)
    assert second.next is None
    with pytest.raises(InvalidInput, match="another query"):
        await query(CELL, "m", radius=1, after=first.next)


async def test_a_tenant_finds_its_own_alone(quiet_store: Persistence) -> None:
    guest = await quiet_store.create_tenant("guest")
    agents = [Agent(name="a", agent_type="t", location=CELL) for _ in range(2)]
    await guest.agents.save_agents(agents)
    saved = await guest.coalitions.save_coalition(Coalition(name="c", business_model="m"))
    await guest.coalitions.add_members(saved.id, [agent.id for agent in agents])
    await guest.coalitions.activate_coalition(saved.id)
    assert len(await quiet_store.queries.efficient_coalition_query(CELL, "m")) == 0
    assert len(await guest.queries.efficient_coalition_query(CELL, "m")) == 1


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"location": "x"}, "location"),
        ({"business_model": ""}, "business_model"),
        ({"radius": 51}, "radius"),
        ({"min_members": 0}, "min_members"),
        ({"status": "gone"}, "status"),
        ({"limit": 0}, "limit"),
        ({"after": str(uuid4())}, "after"),
    ],
)
async def test_bad_input_names_the_field(quiet_store: Persistence, changes: dict[str, object], field: str) -> None:
    given = {"location": CELL, "business_model": "m", **changes}
    with pytest.raises(InvalidInput) as caught:
        await quiet_store.queries.efficient_coalition_query(**given)  # type: ignore[arg-type]
    assert caught.value.field == field
