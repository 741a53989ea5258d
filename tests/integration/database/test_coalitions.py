"""Coalitions: saved, joined, earning, dissolved; membership through the cache."""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import aclosing
from decimal import Decimal
from uuid import UUID, uuid4

import asyncpg
import numpy as np
import pytest

from freeagentics_persistence import (
    DEFAULT_TENANT_ID,
    Agent,
    Beliefs,
    Coalition,
    CoalitionStatus,
    Persistence,
    Settings,
)
from freeagentics_persistence.errors import (
    CoalitionDissolved,
    ConcurrentUpdate,
    InvalidInput,
    UnknownAgent,
    UnknownCoalition,
    WriteRefused,
)


async def make_agents(store: Persistence, count: int) -> list[UUID]:
    agents = [Agent(name=f"a{i}", agent_type="t", beliefs=Beliefs.uniform(3)) for i in range(count)]
    (await store.agents.save_agents(agents)).raise_for_conflicts()
    return [agent.id for agent in agents]


async def test_a_coalition_comes_back_as_it_was_saved(quiet_store: Persistence) -> None:
    coalition = Coalition(
        name="north",
        business_model="delivery",
        formation_criteria={"radius": 2, "kinds": ["a"]},
        business_config={"fee": 0.25},
        initial_capital=Decimal("100.50"),
    )
    saved = await quiet_store.coalitions.save_coalition(coalition)
    assert (saved.version, saved.status, saved.current_capital) == (1, CoalitionStatus.FORMING, Decimal("100.50"))
    assert await quiet_store.coalitions.get_coalition(coalition.id) == saved
    changed = await quiet_store.coalitions.save_coalition(dataclasses.replace(saved, name="south"))
    assert (changed.version, changed.name, changed.formation_criteria) == (2, "south", {"radius": 2, "kinds": ["a"]})
    for expected, actual in ((0, 2), (1, 2)):
        with pytest.raises(ConcurrentUpdate) as caught:
            await quiet_store.coalitions.save_coalition(saved, expected_version=expected)
        assert caught.value.actual == actual


async def test_members_join_change_and_leave(quiet_store: Persistence) -> None:
    coalitions = quiet_store.coalitions
    ids = await make_agents(quiet_store, 4)
    coalition = await coalitions.save_coalition(Coalition(name="c", business_model="m"))
    assert list(await coalitions.get_members(coalition.id)) == []
    assert await coalitions.add_members(coalition.id, ids[:2], role="founder") == 2
    assert await coalitions.add_members(coalition.id, ids[1:3]) == 1
    roles = {member.agent_id: member.role for member in await coalitions.get_members(coalition.id)}
    assert roles == {ids[0]: "founder", ids[1]: "member", ids[2]: "member"}
    assert await coalitions.remove_members(coalition.id, [ids[0], ids[3]]) == 1
    assert await quiet_store.cache.is_coalition_member(coalition.id, ids[1]) is True
    assert await quiet_store.cache.is_coalition_member(coalition.id, ids[0]) is False
    await coalitions.add_members(coalition.id, [ids[0]])
    assert await quiet_store.cache.is_coalition_member(coalition.id, ids[0]) is True
    await quiet_store.agents.delete_agent(ids[0])
    assert await quiet_store.cache.is_coalition_member(coalition.id, ids[0]) is False
    with pytest.raises(UnknownAgent, match=str(unknown := uuid4())):
        await coalitions.add_members(coalition.id, [ids[3], unknown])
    assert {member.agent_id for member in await coalitions.get_members(coalition.id)} == set(ids[1:3])


async def test_revenue_is_exact(quiet_store: Persistence) -> None:
    coalitions = quiet_store.coalitions
    coalition = await coalitions.save_coalition(
        Coalition(name="c", business_model="m", initial_capital=Decimal("0.10"))
    )
    await coalitions.add_members(coalition.id, await make_agents(quiet_store, 2))
    amounts = [Decimal("0.10")] * 30 + [Decimal("-0.01")]
    await asyncio.gather(*(coalitions.record_revenue(coalition.id, amount, efficiency=0.5) for amount in amounts))
    stored = await coalitions.get_coalition(coalition.id)
    assert stored is not None
    assert (stored.total_revenue, stored.current_capital, stored.version) == (Decimal("2.99"), Decimal("3.09"), 33)
    points = await quiet_store.metrics.query_coalition_performance_history(
        coalition.id, fields=["revenue", "efficiency"]
    )
    assert {point.field: point.value for point in points} == {
        "revenue": pytest.approx(2.99 / 31),
        "efficiency": 0.5,
    }


async def test_a_dissolved_coalition_takes_no_changes(quiet_store: Persistence) -> None:
    coalitions = quiet_store.coalitions
    (agent_id,) = await make_agents(quiet_store, 1)
    coalition = await coalitions.save_coalition(Coalition(name="c", business_model="m"))
    await coalitions.add_members(coalition.id, [agent_id])
    ended = await coalitions.dissolve_coalition(coalition.id)
    assert ended.status is CoalitionStatus.DISSOLVED
    assert ended.dissolved_at is not None
    for change in (
        coalitions.save_coalition(coalition),
        coalitions.add_members(coalition.id, [agent_id]),
        coalitions.remove_members(coalition.id, [agent_id]),
        coalitions.record_revenue(coalition.id, 1),
        coalitions.dissolve_coalition(coalition.id),
    ):
        with pytest.raises(CoalitionDissolved):
            await change
    assert len(await coalitions.get_members(coalition.id)) == 1


async def test_beliefs_of_all_members_are_of_one_moment(quiet_store: Persistence) -> None:
    ids = await make_agents(quiet_store, 20)
    coalition = await quiet_store.coalitions.save_coalition(Coalition(name="c", business_model="m"))
    await quiet_store.coalitions.add_members(coalition.id, ids)
    done = asyncio.Event()

    async def step() -> None:
        for i in range(30):
            q = np.zeros((20, 3))
            q[:, i % 3] = 1
            (await quiet_store.agents.update_beliefs_many(ids, q, atomic=True)).raise_for_conflicts()
        done.set()

    writer = asyncio.create_task(step())
    seen = 0
    while not done.is_set():
        batch = await quiet_store.coalitions.get_coalition_beliefs(coalition.id)
        assert (batch.factors[0] == batch.factors[0][0]).all()
        seen += 1
    await writer
    assert seen > 3


async def test_batches_of_beliefs_are_of_one_moment_whatever_happens_meanwhile(quiet_store: Persistence) -> None:
    ids = sorted(await make_agents(quiet_store, 7))
    coalitions = quiet_store.coalitions
    coalition = await coalitions.save_coalition(Coalition(name="c", business_model="m"))
    await coalitions.add_members(coalition.id, ids[:6])
    batches = coalitions.iterate_coalition_beliefs(coalition.id, size=4)
    first = await anext(batches)
    q = np.tile([1.0, 0, 0], (7, 1))
    (await quiet_store.agents.update_beliefs_many(ids, q, atomic=True)).raise_for_conflicts()
    await coalitions.remove_members(coalition.id, [ids[4]])
    await coalitions.add_members(coalition.id, [ids[6]])
    (second,) = [batch async for batch in batches]
    assert (list(first.ids or ()), list(second.ids or ())) == (ids[:4], ids[4:6])
    for batch in (first, second):
        assert np.array_equal(batch.factors[0], np.full((len(batch), 3), 1 / 3))
    later = [batch async for batch in coalitions.iterate_coalition_beliefs(coalition.id)]
    assert [list(batch.ids or ()) for batch in later] == [[*ids[:4], *ids[5:]]]
    assert np.array_equal(later[0].factors[0], q[:6])
    with pytest.raises(InvalidInput, match="size"):
        coalitions.iterate_coalition_beliefs(coalition.id, size=0)


async def test_what_is_not_read_to_its_end_gives_its_connection_back(settings: Settings) -> None:
    async with Persistence.open(settings_of_one_connection(settings), relay="off") as store:
        ids = await make_agents(store, 3)
        coalition = await store.coalitions.save_coalition(Coalition(name="c", business_model="m"))
        await store.coalitions.add_members(coalition.id, ids)
        async with aclosing(store.coalitions.iterate_coalition_beliefs(coalition.id, size=1)) as batches:
            async for batch in batches:
                assert len(batch) == 1
                break
        assert len(await store.coalitions.get_members(coalition.id)) == 3
        empty = await store.coalitions.save_coalition(Coalition(name="c", business_model="m"))
        assert [batch async for batch in store.coalitions.iterate_coalition_beliefs(empty.id)] == []


def settings_of_one_connection(settings: Settings) -> Settings:
    database = settings.database.model_copy(update={"pool_size": 1, "pool_timeout": 1.0})
    return settings.model_copy(update={"database": database})


async def test_coalitions_are_listed_in_pages(quiet_store: Persistence) -> None:
    made = [
        await quiet_store.coalitions.save_coalition(Coalition(name=f"c{i}", business_model="ab"[i % 2]))
        for i in range(7)
    ]
    first = await quiet_store.coalitions.list_coalitions(limit=4)
    second = await quiet_store.coalitions.list_coalitions(limit=4, after=first.next)
    assert [c.id for c in (*first, *second)] == sorted(c.id for c in made)
    assert second.next is None
    for other in ({"business_model": "b"}, {"status": "forming"}):
        with pytest.raises(InvalidInput, match="another query"):
            await quiet_store.coalitions.list_coalitions(**other, after=first.next)
    forming = await quiet_store.coalitions.list_coalitions(status="forming", limit=4)
    again = await quiet_store.coalitions.list_coalitions(status=CoalitionStatus.FORMING, after=forming.next)
    assert list(again) == list(second)
    assert len(await quiet_store.coalitions.list_coalitions(business_model="b")) == 3
    assert len(await quiet_store.coalitions.list_coalitions(status="active")) == 0


async def test_a_cursor_fits_its_own_list_alone(quiet_store: Persistence) -> None:
    coalitions, ids = quiet_store.coalitions, await make_agents(quiet_store, 2)
    made = [await coalitions.save_coalition(Coalition(name=f"c{i}", business_model="m")) for i in range(2)]
    for coalition in made:
        await coalitions.add_members(coalition.id, ids)
    guest = await quiet_store.create_tenant("guest")
    listed = (await coalitions.list_coalitions(limit=1)).next
    members = (await coalitions.get_members(made[0].id, limit=1)).next
    for call in (
        coalitions.list_coalitions(business_model="m", after=listed),
        coalitions.list_coalitions(status="forming", after=listed),
        guest.coalitions.list_coalitions(after=listed),
        coalitions.get_members(made[1].id, after=members),
        coalitions.get_members(made[0].id, after=listed),
    ):
        with pytest.raises(InvalidInput, match="after: belongs to another query"):
            await call


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda c, i: c.get_members(uuid4()), UnknownCoalition),
        (lambda c, i: c.add_members(uuid4(), [i]), UnknownCoalition),
        (lambda c, i: c.record_revenue(uuid4(), 1), UnknownCoalition),
        (lambda c, i: c.dissolve_coalition(uuid4()), UnknownCoalition),
        (lambda c, i: c.get_coalition_beliefs(uuid4()), UnknownCoalition),
        (lambda c, i: anext(c.iterate_coalition_beliefs(uuid4())), UnknownCoalition),
        (lambda c, i: c.add_members(i, []), InvalidInput),
        (lambda c, i: c.add_members(i, i), InvalidInput),
        (lambda c, i: c.remove_members(i, iter([i])), InvalidInput),
        (lambda c, i: c.add_members(i, None), InvalidInput),
        (lambda c, i: c.add_members(i, iter([i])), InvalidInput),
        (lambda c, i: c.remove_members(i, str(i)), InvalidInput),
        (lambda c, i: c.remove_members(i, {i: 1}), InvalidInput),
        (lambda c, i: c.update_contributions(i, {i: 1, str(i): 2}), InvalidInput),
        (lambda c, i: c.record_revenue(i, 0.1), InvalidInput),
        (lambda c, i: c.record_revenue(i, Decimal("0.001")), InvalidInput),
        (lambda c, i: c.record_revenue(i, Decimal("NaN")), InvalidInput),
        (lambda c, i: c.record_revenue(i, 1, efficiency=float("inf")), InvalidInput),
        (lambda c, i: c.list_coalitions(status="gone"), InvalidInput),
        (lambda c, i: c.list_coalitions(limit=0), InvalidInput),
        (lambda c, i: c.get_members(i, limit=10_001), InvalidInput),
        (lambda c, i: c.get_members(i, after="x"), InvalidInput),
        (lambda c, i: c.get_members(i, after=str(i)), InvalidInput),
        (lambda c, i: c.list_coalitions(after=str(i)), InvalidInput),
        (lambda c, i: c.save_coalition("c"), InvalidInput),
    ],
)
async def test_bad_input(quiet_store: Persistence, call: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        await call(quiet_store.coalitions, uuid4())  # type: ignore[operator]


async def test_a_deleted_agent_is_no_member_however_it_races_with_joining(quiet_store: Persistence) -> None:
    coalition = await quiet_store.coalitions.save_coalition(Coalition(name="c", business_model="m"))
    for agent_id in await make_agents(quiet_store, 30):
        joining = quiet_store.coalitions.add_members(coalition.id, [agent_id])
        asking = quiet_store.cache.is_coalition_member(coalition.id, agent_id)
        deleting = quiet_store.agents.delete_agent(agent_id)
        await asyncio.gather(joining, asking, deleting, return_exceptions=True)
        await quiet_store.agents.delete_agent(agent_id)
        assert await quiet_store.cache.is_coalition_member(coalition.id, agent_id) is False
    assert list(await quiet_store.coalitions.get_members(coalition.id)) == []


async def test_many_members_join_at_once(quiet_store: Persistence) -> None:
    ids = await make_agents(quiet_store, 9000)
    coalition = await quiet_store.coalitions.save_coalition(Coalition(name="c", business_model="m"))
    assert await quiet_store.coalitions.add_members(coalition.id, ids) == 9000
    first = await quiet_store.coalitions.get_members(coalition.id, limit=5000)
    second = await quiet_store.coalitions.get_members(coalition.id, limit=5000, after=first.next)
    assert (len(first), len(second), second.next) == (5000, 4000, None)
    assert [member.agent_id for member in (*first, *second)] == sorted(ids)
    assert len(await quiet_store.coalitions.get_members(coalition.id)) == 1000
    batch = await quiet_store.coalitions.get_coalition_beliefs(coalition.id)
    assert list(batch.ids or ()) == sorted(ids)


FILL = """
WITH made AS (
    INSERT INTO agents (tenant_id, id, name, agent_type, revision, newest_revision)
    SELECT $1, gen_random_uuid(), 'a', 't', gen_random_uuid(), gen_random_uuid() FROM generate_series(1, 99998)
    RETURNING id
)
INSERT INTO coalition_members (tenant_id, coalition_id, agent_id) SELECT $1, $2, id FROM made
"""


async def test_a_coalition_has_a_greatest_size(quiet_store: Persistence, admin: asyncpg.Connection) -> None:
    coalitions, ids = quiet_store.coalitions, await make_agents(quiet_store, 4)
    coalition = await coalitions.save_coalition(Coalition(name="c", business_model="m"))
    await admin.execute(FILL, DEFAULT_TENANT_ID, coalition.id)
    with pytest.raises(WriteRefused, match="would have 100,001 members"):
        await coalitions.add_members(coalition.id, ids[:3])
    added = await asyncio.gather(
        *(coalitions.add_members(coalition.id, [agent_id]) for agent_id in ids), return_exceptions=True
    )
    assert sorted(isinstance(outcome, WriteRefused) for outcome in added) == [False, False, True, True]
    assert await admin.fetchval("SELECT count(*) FROM coalition_members") == 100_000
    stored = await coalitions.get_coalition(coalition.id)
    assert stored is not None
    assert stored.version == 3
    members = ids[: next(i for i, outcome in enumerate(added) if outcome == 1) + 1][-1:]
    assert await coalitions.add_members(coalition.id, members, role="founder") == 0
    assert await coalitions.remove_members(coalition.id, members) == 1
