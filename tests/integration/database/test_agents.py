"""Whole agents: saved, read, found by place, deleted."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import UTC, datetime
from uuid import UUID, uuid4

import asyncpg
import h3
import numpy as np
import pytest

from freeagentics_persistence import Agent, AgentStatus, Beliefs, Persistence, Personality, RowStatus
from freeagentics_persistence.errors import AlreadyExists, ConcurrentUpdate, InvalidInput

CELL = h3.latlng_to_cell(52.37, 4.90, 9)


def an_agent(**changes: object) -> Agent:
    values: dict[str, object] = {"name": "scout", "agent_type": "explorer", "beliefs": Beliefs.uniform(4), **changes}
    return Agent(**values)  # type: ignore[arg-type]


async def test_an_agent_comes_back_as_it_was_saved(quiet_store: Persistence) -> None:
    agent = an_agent(
        location=CELL,
        energy=0,
        status=AgentStatus.SUSPENDED,
        personality=Personality({"openness": 0.25, "tags": ["a", None], "note": "ü\U0001f600"}),
        beliefs=Beliefs([np.array([0.1, 0.9], dtype=np.float32), np.array([1.0])]),
    )
    saved = await quiet_store.agents.save_agent(agent)
    assert (saved.version, saved.tenant_id) == (1, quiet_store.tenant(saved.tenant_id).tenant_id)
    assert saved.created_at == saved.updated_at == saved.last_active_at
    assert saved.created_at is not None
    assert saved.created_at.utcoffset() is not None
    assert await quiet_store.agents.get_agent(agent.id) == saved


async def test_a_read_agent_has_plain_ids_and_the_times_that_are_stored(
    quiet_store: Persistence, admin: asyncpg.Connection
) -> None:
    agent = await quiet_store.agents.save_agent(an_agent())
    long_ago = datetime(1969, 7, 20, 20, 17, 40, 123457, tzinfo=UTC)  # before the year that PostgreSQL counts from
    far_away = datetime(9999, 12, 31, 23, 59, 59, 1, tzinfo=UTC)
    set_times = "UPDATE agents SET created_at = $2, last_active_at = $3 WHERE id = $1"
    await admin.execute(set_times, agent.id, long_ago, far_away)
    stored = dataclasses.replace(agent, created_at=long_ago, last_active_at=far_away)
    by_type = await quiet_store.agents.list_agents(agent_type="explorer", with_beliefs=True)
    for read in (await quiet_store.agents.get_agent(agent.id), *by_type):
        assert read == stored
        assert (type(read), type(read.id), type(read.revision)) == (Agent, UUID, UUID)
        assert read.updated_at is not None
        assert read.updated_at.tzinfo is UTC
        with pytest.raises(dataclasses.FrozenInstanceError):
            read.energy = 1  # type: ignore[misc]


async def test_saving_again_updates_and_counts_versions(quiet_store: Persistence) -> None:
    first = await quiet_store.agents.save_agent(an_agent())
    second = await quiet_store.agents.save_agent(dataclasses.replace(first, name="renamed", beliefs=None))
    assert (second.version, second.created_at) == (2, first.created_at)
    assert second.updated_at > first.updated_at
    read = await quiet_store.agents.get_agent(first.id)
    assert read is not None
    assert (read.name, read.beliefs, read.version) == ("renamed", None, 2)
    assert await quiet_store.agents.get_beliefs(first.id) is None


@pytest.mark.parametrize(("expected", "actual"), [(0, 1), (2, 1), (7, 1)])
async def test_a_stale_save_fails(quiet_store: Persistence, expected: int, actual: int) -> None:
    agent = await quiet_store.agents.save_agent(an_agent())
    with pytest.raises(ConcurrentUpdate) as caught:
        await quiet_store.agents.save_agent(dataclasses.replace(agent, energy=5), expected_version=expected)
    assert (caught.value.expected, caught.value.actual) == (expected, actual)
    assert await quiet_store.agents.get_agent(agent.id) == agent


async def test_expecting_a_version_of_an_agent_that_is_not_there_fails(quiet_store: Persistence) -> None:
    agent = an_agent()
    with pytest.raises(LookupError, match=str(agent.id)):
        await quiet_store.agents.save_agent(agent, expected_version=3)
    assert await quiet_store.agents.get_agent(agent.id) is None


async def test_of_many_saves_of_one_version_one_wins(quiet_store: Persistence) -> None:
    agent = await quiet_store.agents.save_agent(an_agent())
    attempts = [
        quiet_store.agents.save_agent(dataclasses.replace(agent, energy=i), expected_version=1) for i in range(20)
    ]
    results = await asyncio.gather(*attempts, return_exceptions=True)
    assert sum(isinstance(result, Agent) for result in results) == 1
    assert sum(isinstance(result, ConcurrentUpdate) for result in results) == 19
    read = await quiet_store.agents.get_agent(agent.id)
    assert read is not None
    assert read.version == 2


async def test_concurrent_first_saves_of_one_agent_all_land(quiet_store: Persistence) -> None:
    agent = an_agent()
    saves = [quiet_store.agents.save_agent(dataclasses.replace(agent, energy=i)) for i in range(16)]
    versions = sorted(saved.version for saved in await asyncio.gather(*saves))
    assert versions == list(range(1, 17))


async def test_save_agents_tells_row_by_row(quiet_store: Persistence) -> None:
    old = await quiet_store.agents.save_agent(an_agent())
    new = [an_agent(name=f"n{i}") for i in range(3)]
    result = await quiet_store.agents.save_agents([new[0], old, new[1]])
    assert result.status.tolist() == [RowStatus.WRITTEN, RowStatus.EXISTS, RowStatus.WRITTEN]
    assert result.written == 2
    with pytest.raises(AlreadyExists, match=str(old.id)):
        result.raise_for_conflicts()
    assert (await quiet_store.agents.save_agents([old, new[2]], on_conflict="skip")).ok
    changed = dataclasses.replace(old, energy=1)
    assert (await quiet_store.agents.save_agents([changed], on_conflict="update")).versions.tolist() == [2]
    assert len(await quiet_store.agents.get_agents([old.id, *(agent.id for agent in new), uuid4()])) == 4


async def test_save_agents_refuses_a_repeated_agent(quiet_store: Persistence) -> None:
    agent = an_agent()
    with pytest.raises(InvalidInput, match="twice"):
        await quiet_store.agents.save_agents([agent, agent])
    assert await quiet_store.agents.get_agent(agent.id) is None


async def test_agents_are_found_by_place_in_pages(quiet_store: Persistence) -> None:
    near = [an_agent(location=cell) for cell in h3.grid_disk(CELL, 2)]
    far = an_agent(location=h3.latlng_to_cell(52.5, 4.9, 9))
    asleep = an_agent(location=CELL, status="inactive")
    coarse = an_agent(location=h3.cell_to_parent(CELL, 8))
    (await quiet_store.agents.save_agents([*near, far, asleep, coarse, an_agent()])).raise_for_conflicts()
    inner = await quiet_store.agents.get_agents_by_location(CELL, 1)
    assert {agent.id for agent in inner} == {a.id for a in near if h3.grid_distance(CELL, a.location) <= 1}
    seen, after = [], None
    while True:
        page = await quiet_store.agents.get_agents_by_location(CELL, 2, limit=4, after=after, with_beliefs=False)
        assert all(agent.beliefs is None for agent in page)
        seen += [agent.id for agent in page]
        after = page.next
        if after is None:
            break
    assert seen == [a.id for a in sorted(near, key=lambda a: (h3.grid_distance(CELL, a.location), a.id))]


async def test_a_deleted_agent_is_gone_and_its_versions_go_on(quiet_store: Persistence) -> None:
    agent = await quiet_store.agents.save_agent(an_agent())
    assert await quiet_store.agents.delete_agent(agent.id) is True
    assert await quiet_store.agents.delete_agent(agent.id) is False
    assert await quiet_store.agents.get_agent(agent.id) is None
    assert await quiet_store.agents.get_beliefs(agent.id) is None
    again = await quiet_store.agents.save_agent(an_agent(id=agent.id))
    assert again.version == 3
    assert await quiet_store.agents.get_beliefs(agent.id) == agent.beliefs


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda s: s.agents.save_agent("scout"), "agent"),
        (lambda s: s.agents.save_agent(an_agent(), expected_version=-1), "expected_version"),
        (lambda s: s.agents.save_agents([an_agent()], on_conflict="replace"), "on_conflict"),
        (lambda s: s.agents.get_agent("no id"), "agent_id"),
        (lambda s: s.agents.get_agent(uuid4(), consistency="eventual"), "consistency"),
        (lambda s: s.agents.get_agent(uuid4(), consistency="bounded"), "max_staleness"),
        (lambda s: s.agents.get_agents_by_location("nowhere"), "location"),
        (lambda s: s.agents.get_agents_by_location(CELL, -1), "radius"),
        (lambda s: s.agents.get_agents_by_location(CELL, 51), "radius"),
        (lambda s: s.agents.get_agents_by_location(CELL, limit=0), "limit"),
        (lambda s: s.agents.get_agents_by_location(CELL, after="x"), "after"),
    ],
)
async def test_bad_input_names_the_field(quiet_store: Persistence, call: object, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await call(quiet_store)  # type: ignore[operator]
    assert caught.value.field == field


async def test_versions_never_go_backwards_where_saves_and_deletions_race(quiet_store: Persistence) -> None:
    agents = [an_agent() for _ in range(8)]
    done = False

    async def saver(agent: Agent) -> None:
        last = 0
        for _ in range(25):
            version = (await quiet_store.agents.save_agent(agent)).version
            assert version > last
            last = version

    async def deleter(agent: Agent) -> None:
        while not done:
            await quiet_store.agents.delete_agent(agent.id)

    deleting = [asyncio.create_task(deleter(agent)) for agent in agents]
    try:
        await asyncio.gather(*(saver(agent) for agent in agents))
    finally:
        done = True
        await asyncio.gather(*deleting)
    for agent in agents:
        await quiet_store.agents.save_agent(agent)
    for consistency in ("strong", "session"):
        batch = await quiet_store.agents.get_beliefs_many([agent.id for agent in agents], consistency=consistency)
        assert batch.present.all()
