"""What members contribute, and their ranking."""

from __future__ import annotations

import random
from decimal import Decimal
from uuid import UUID, uuid4

import asyncpg
import pytest

from freeagentics_persistence import Agent, Coalition, Member, Persistence
from freeagentics_persistence.errors import (
    CoalitionDissolved,
    InvalidInput,
    PersistenceError,
    UnknownCoalition,
    UnknownMember,
)


async def joined(store: Persistence, count: int) -> tuple[UUID, list[UUID]]:
    """A coalition with so many members."""
    agents = [Agent(name="a", agent_type="t") for _ in range(count)]
    (await store.agents.save_agents(agents)).raise_for_conflicts()
    coalition = await store.coalitions.save_coalition(Coalition(name="c", business_model="m"))
    await store.coalitions.add_members(coalition.id, [agent.id for agent in agents])
    return coalition.id, [agent.id for agent in agents]


async def ranking(store: Persistence, coalition_id: UUID, limit: int) -> list[Member]:
    """All pages."""
    page = await store.coalitions.rank_members(coalition_id, limit=limit)
    members = list(page)
    while page.next is not None:
        page = await store.coalitions.rank_members(coalition_id, limit=limit, after=page.next)
        assert len(page) > 0
        members += page
        assert len({member.agent_id for member in members}) == len(members)
    return members


@pytest.mark.parametrize("limit", [1, 7, 100, 10_000])
async def test_members_are_ranked_by_score_then_id(quiet_store: Persistence, limit: int) -> None:
    rng = random.Random(limit)
    own, ids = await joined(quiet_store, 60)
    expected = dict.fromkeys(ids, Decimal(0))
    for _ in range(2):
        some = {agent: Decimal(rng.choice(["0", "0.01", "999.99", "3", "3.10"])) for agent in rng.sample(ids, 25)}
        await quiet_store.coalitions.update_contributions(own, some)
        expected |= some
    found = await ranking(quiet_store, own, limit)
    assert [(member.agent_id, member.contribution_score) for member in found] == sorted(
        expected.items(), key=lambda item: (-item[1], item[0])
    )
    assert {member.agent_id: member for member in found} == {
        member.agent_id: member for member in await quiet_store.coalitions.get_members(own)
    }


async def test_a_score_goes_with_its_membership_and_changes_no_other(
    quiet_store: Persistence, admin: asyncpg.Connection
) -> None:
    coalitions, (own, ids) = quiet_store.coalitions, await joined(quiet_store, 3)
    assert await quiet_store.cache.is_coalition_member(own, ids[0]) is True
    await coalitions.update_contributions(own, {ids[0]: 5, str(ids[1]): 7})  # type: ignore[dict-item]
    await admin.execute("ALTER TABLE coalition_members RENAME TO hidden")  # so that only the cache can answer
    assert await quiet_store.cache.is_coalition_member(own, ids[0]) is True
    await admin.execute("ALTER TABLE hidden RENAME TO coalition_members")
    await coalitions.add_members(own, [ids[0]], role="founder")
    assert [(member.agent_id, member.contribution_score) for member in await coalitions.rank_members(own)] == [
        (ids[1], Decimal("7.00")),
        (ids[0], Decimal("5.00")),
        (ids[2], Decimal("0.00")),
    ]
    await coalitions.remove_members(own, [ids[1]])
    await coalitions.add_members(own, [ids[1]])
    assert {member.contribution_score for member in await coalitions.rank_members(own)} == {0, 5}


async def test_nothing_is_scored_where_one_is_no_member(quiet_store: Persistence) -> None:
    coalitions, (own, ids) = quiet_store.coalitions, await joined(quiet_store, 2)
    stranger = await quiet_store.agents.save_agent(Agent(name="b", agent_type="t"))
    with pytest.raises(UnknownMember, match=f"agent {stranger.id} is not a member of coalition {own}"):
        await coalitions.update_contributions(own, {ids[0]: 1, stranger.id: 2})
    assert {member.contribution_score for member in await coalitions.rank_members(own)} == {0}
    stored = await coalitions.get_coalition(own)
    assert stored is not None
    assert stored.version == 2
    await coalitions.dissolve_coalition(own)
    with pytest.raises(CoalitionDissolved):
        await coalitions.update_contributions(own, {ids[0]: 1})
    assert len(await coalitions.rank_members(own)) == 2


async def test_another_tenant_ranks_and_moves_nothing(quiet_store: Persistence) -> None:
    own, ids = await joined(quiet_store, 2)
    theirs = (await quiet_store.create_tenant("other")).coalitions
    for call in (
        theirs.rank_members(own),
        theirs.update_contributions(own, {ids[0]: 1}),
        theirs.activate_coalition(own),
        theirs.record_revenue(own, 1),
        theirs.dissolve_coalition(own),
    ):
        with pytest.raises(UnknownCoalition):
            await call
    page = await quiet_store.coalitions.rank_members(own, limit=1)
    with pytest.raises(InvalidInput, match="another query"):
        await theirs.rank_members(own, after=page.next)
    stored = await quiet_store.coalitions.get_coalition(own)
    assert stored is not None
    assert (stored.status, stored.version) == ("forming", 2)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda c, i: c.update_contributions(i, {}), "scores"),
        (lambda c, i: c.update_contributions(i, [(i, 1)]), "scores"),
        (lambda c, i: c.update_contributions(i, {"x": 1}), "scores"),
        (lambda c, i: c.update_contributions(i, {i: 0.5}), "scores["),
        (lambda c, i: c.update_contributions(i, {i: -1}), "scores["),
        (lambda c, i: c.update_contributions(i, {i: 1000}), "scores["),
        (lambda c, i: c.update_contributions(i, {i: Decimal("0.001")}), "scores["),
        (lambda c, i: c.update_contributions(i, {i: Decimal("NaN")}), "scores["),
        (lambda c, i: c.update_contributions(i, {i: True}), "scores["),
        (lambda c, i: c.rank_members(i, limit=0), "limit"),
        (lambda c, i: c.rank_members(i, after=str(i)), "after"),
        (lambda c, i: c.rank_members("x"), "coalition_id"),
        (lambda c, i: c.activate_coalition("x"), "coalition_id"),
    ],
)
async def test_bad_input_names_the_field(quiet_store: Persistence, call: object, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await call(quiet_store.coalitions, uuid4())  # type: ignore[operator]
    assert caught.value.field.startswith(field)


async def test_unknown_coalitions(quiet_store: Persistence) -> None:
    coalitions, own = quiet_store.coalitions, uuid4()
    for call in (
        coalitions.rank_members(own),
        coalitions.update_contributions(own, {own: 1}),
        coalitions.activate_coalition(own),
    ):
        with pytest.raises(UnknownCoalition) as caught:
            await call
        assert isinstance(caught.value, PersistenceError)
