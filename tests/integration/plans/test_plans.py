"""Plans at 100,000 agents of every statement that the repositories send: no hot table is read from end to end.

Each call is made eight times with other arguments on one connection, as PostgreSQL may settle on one generic plan from
the sixth time on; every plan of all eight is looked at.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any
from uuid import UUID

import asyncpg
import h3
import pytest

from freeagentics_persistence import DEFAULT_TENANT_ID, Agent, Beliefs, Coalition, Persistence, Settings
from freeagentics_persistence.domain.cursors import Pages, Position
from tests.integration.plans.conftest import CELL
from tests.support.plans import Plans, indexes, partitions, reads, sequential

TIMES = 8
HERE = h3.int_to_str(CELL)
NOW = datetime.now(UTC)
NEAR = h3.grid_disk(HERE, 6)
fresh = count(1_000_000)

PKEY, TYPE, PLACE = {"agents_pkey"}, {"idx_agents_tenant_type"}, {"idx_agents_active_location"}
RESTING, MODEL = {"idx_agents_resting"}, {"idx_coalitions_model"}
MEMBERS, COALITION = {"coalition_members_pkey", "idx_coalition_members_performance"}, {"coalitions_pkey"}
LEAVING = {"idx_coalition_members_agent", "idx_coalition_members_of_agent"}


def agent_id(n: int) -> UUID:
    """One without beliefs, so that it can be read without their key."""
    return UUID(hashlib.md5(f"a{n * 100}".encode(), usedforsecurity=False).hexdigest())


def coalition_id(n: int) -> UUID:
    return UUID(hashlib.md5(f"c{n}".encode(), usedforsecurity=False).hexdigest())


def an_agent(n: int) -> Agent:
    return Agent(id=UUID(int=next(fresh)), name=f"n{n}", agent_type="t", location=HERE, beliefs=Beliefs.uniform(2))


async def history(store: Persistence, n: int) -> None:
    async for _ in store.agents.get_belief_history(agent_id(n), start=NOW - timedelta(days=1)):
        pass


async def second_page(store: Persistence, **wanted: object) -> None:
    first = await store.agents.list_agents(**wanted, limit=5)  # type: ignore[arg-type]
    await store.agents.list_agents(**wanted, limit=5, after=first.next)  # type: ignore[arg-type]


async def save_again(store: Persistence, n: int) -> None:
    agent = await store.agents.get_agent(agent_id(n))
    assert agent is not None
    await store.agents.save_agent(dataclasses.replace(agent, energy=n))


async def save_coalition_again(store: Persistence, n: int) -> None:
    coalition = await store.coalitions.get_coalition(coalition_id(n))
    assert coalition is not None
    await store.coalitions.save_coalition(coalition)


async def contribute(store: Persistence, n: int) -> None:
    await store.coalitions.add_members(coalition_id(1), [agent_id(n)])
    await store.coalitions.update_contributions(coalition_id(1), {agent_id(n): n})


Call = Callable[[Persistence, int], Awaitable[object]]
# what is called, all indexes of hot tables that it may use, and one at least that it must use
CALLS: dict[str, tuple[Call, set[str], str]] = {
    "get_agents": (lambda s, n: s.agents.get_agents([agent_id(n), agent_id(n + 50)]), PKEY, "agents_pkey"),
    "list_agents": (lambda s, n: second_page(s), PKEY, "agents_pkey"),
    "list_agents(type)": (lambda s, n: second_page(s, agent_type=f"type {n}"), TYPE, "idx_agents_tenant_type"),
    "list_agents(active)": (lambda s, n: second_page(s, status="active"), PKEY, "agents_pkey"),
    "list_agents(inactive)": (lambda s, n: second_page(s, status="inactive"), RESTING, "idx_agents_resting"),
    "list_agents(since)": (
        lambda s, n: s.agents.list_agents(active_since=NOW - timedelta(seconds=30 + n)),
        {"idx_agents_last_active"},
        "idx_agents_last_active",
    ),
    "list_agents(active, since)": (
        lambda s, n: s.agents.list_agents(status="active", active_since=NOW - timedelta(seconds=30 + n)),
        {"idx_agents_composite", "idx_agents_last_active"},  # as good as one another while most are active
        "",
    ),
    "list_agents(place)": (
        lambda s, n: s.agents.list_agents(location=NEAR[n], radius=2),
        {"idx_agents_location"},
        "idx_agents_location",
    ),
    "list_agents(active, place)": (
        lambda s, n: s.agents.list_agents(status="active", location=NEAR[n], radius=2),
        {"idx_agents_location", *PLACE},
        "idx_agents_active_location",
    ),
    "get_agents_by_location": (
        lambda s, n: s.agents.get_agents_by_location(NEAR[n], 10, limit=100 + n, with_beliefs=False),
        {*PLACE, *PKEY},
        "idx_agents_active_location",
    ),
    "get_places_by_location": (
        lambda s, n: s.agents.get_places_by_location(NEAR[n], 10),
        PLACE,
        "idx_agents_active_location",
    ),
    "get_nearest_agents": (
        lambda s, n: s.agents.get_nearest_agents(NEAR[n], 5, with_beliefs=False),
        {*PLACE, *PKEY},
        "idx_agents_active_location",
    ),
    "save_agent, new": (lambda s, n: s.agents.save_agent(an_agent(n)), {*PKEY, "deleted_agents_pkey"}, "agents_pkey"),
    "save_agent, again": (save_again, {*PKEY, "deleted_agents_pkey"}, "agents_pkey"),
    "bulk_load_agents": (
        lambda s, n: s.queries.bulk_load_agents([an_agent(n), an_agent(n)]),
        {"deleted_agents_pkey"},
        "deleted_agents_pkey",
    ),
    "bulk_load_agents, again": (
        lambda s, n: s.queries.bulk_load_agents([Agent(id=agent_id(n), name="a", agent_type="t")]),
        {*PKEY, "deleted_agents_pkey", "agent_history_pkey"},
        "agent_history_pkey",
    ),
    "delete_agent": (
        lambda s, n: s.agents.delete_agent(agent_id(900 + n)),
        {*PKEY, *COALITION, *MEMBERS, *LEAVING},
        "agents_pkey",
    ),
    "update_beliefs": (lambda s, n: s.agents.update_beliefs(agent_id(300), [0.5, 0.5]), PKEY, "agents_pkey"),
    "update_beliefs_many": (
        lambda s, n: s.agents.update_beliefs_many([agent_id(400 + i) for i in range(50)], [[[0.5, 0.5]] * 50]),
        PKEY,
        "agents_pkey",
    ),
    "get_beliefs_many": (
        lambda s, n: s.agents.get_beliefs_many([agent_id(n)], consistency="strong"),
        PKEY,
        "agents_pkey",
    ),
    "get_beliefs_at": (
        lambda s, n: s.agents.get_beliefs_at([agent_id(n)], at=NOW),
        {*PKEY, "agent_history_pkey"},
        "agent_history_pkey",
    ),
    "get_belief_history": (history, {"agent_history_pkey"}, "agent_history_pkey"),
    "query_agent_performance_history": (
        lambda s, n: s.metrics.query_agent_performance_history(agent_id(n)),
        {"agent_history_pkey"},
        "agent_history_pkey",
    ),
    "query_coalition_performance_history": (
        lambda s, n: s.metrics.query_coalition_performance_history(coalition_id(n)),
        {"idx_coalition_performance_time"},
        "idx_coalition_performance_time",
    ),
    "save_coalition, new": (
        lambda s, n: s.coalitions.save_coalition(Coalition(name="c", business_model="new")),
        COALITION,
        "coalitions_pkey",
    ),
    "save_coalition, again": (save_coalition_again, {*COALITION, *MEMBERS}, "coalitions_pkey"),
    "list_coalitions": (lambda s, n: s.coalitions.list_coalitions(limit=10 + n), COALITION, "coalitions_pkey"),
    "list_coalitions(model)": (
        lambda s, n: s.coalitions.list_coalitions(business_model=f"model {n}"),
        MODEL,
        "idx_coalitions_model",
    ),
    "add_members": (
        lambda s, n: s.coalitions.add_members(coalition_id(n), [agent_id(n)]),
        {*COALITION, *PKEY, *MEMBERS},
        "coalitions_pkey",
    ),
    "remove_members": (
        lambda s, n: s.coalitions.remove_members(coalition_id(n), [agent_id(n)]),
        {*COALITION, *MEMBERS, *LEAVING},
        "coalitions_pkey",
    ),
    "get_members": (
        lambda s, n: s.coalitions.get_members(coalition_id(n)),
        MEMBERS,
        "",
    ),
    "record_revenue": (
        lambda s, n: s.coalitions.record_revenue(coalition_id(n), 1),
        {*COALITION, *MEMBERS},
        "coalitions_pkey",
    ),
    "activate_coalition": (
        lambda s, n: s.coalitions.activate_coalition(coalition_id(4500 + n)),
        {*COALITION, *MEMBERS},
        "coalitions_pkey",
    ),
    "update_contributions": (
        contribute,
        {*COALITION, *MEMBERS, *PKEY, *LEAVING},
        "",
    ),
    "dissolve_coalition": (
        lambda s, n: s.coalitions.dissolve_coalition(coalition_id(4000 + n)),
        {*COALITION, *MEMBERS},
        "coalitions_pkey",
    ),
    "is_coalition_member": (
        lambda s, n: s.cache.is_coalition_member(coalition_id(100 + n), agent_id(n)),
        {*COALITION, *MEMBERS},
        "coalitions_pkey",
    ),
    "efficient_coalition_query": (
        lambda s, n: s.queries.efficient_coalition_query(NEAR[n], f"model {n}"),
        {*PLACE, *LEAVING, *COALITION, *MODEL},
        "idx_agents_active_location",
    ),
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_reads_by_its_indexes(big_store: Persistence, plans: Plans, name: str) -> None:
    call, may, must = CALLS[name]
    for n in range(1, TIMES + 1):
        await call(big_store, n)
        found = await plans.taken()
        assert found, "the server reported no plan"
        assert sequential(found) == [], found
        small = ("tenants", "epochs", "keyring", "history_policies", "pg_")
        used = {index for index in indexes(found) if not index.startswith(small)}
        assert used <= may, used
        assert not must or must in used, (used, found)


async def test_members_beliefs_are_read_by_keys(big_store: Persistence, plans: Plans) -> None:
    saved = await big_store.coalitions.save_coalition(Coalition(name="c", business_model="m"))
    await big_store.coalitions.add_members(saved.id, [agent_id(n) for n in range(500, 520)])
    await plans.taken()
    for _ in range(TIMES):
        await big_store.coalitions.get_coalition_beliefs(saved.id)
        found = await plans.taken()
        assert sequential(found) == []
        assert "agents_pkey" in indexes(found)
        assert [len(batch) async for batch in big_store.coalitions.iterate_coalition_beliefs(saved.id, size=8)] == [
            8,
            8,
            4,
        ]
        found = await plans.taken()
        assert sequential(found) == []
        assert "agents_pkey" in indexes(found)


BIG = """
INSERT INTO coalition_members (tenant_id, coalition_id, agent_id, contribution_score, rank_key)
SELECT $1, $2, md5('a' || n)::uuid, score * 0.01, -score
FROM generate_series(1, 100000) AS n, LATERAL (SELECT CASE WHEN n % 2 = 0 THEN 0 ELSE n % 1000 END AS score) AS s
"""


@pytest.fixture
async def big_coalition(big_store: Persistence, filled: Settings) -> AsyncIterator[UUID]:
    """A coalition of all agents, half of which have no score."""
    saved = await big_store.coalitions.save_coalition(Coalition(name="c", business_model="m"))
    assert filled.database.admin_url is not None
    admin = await asyncpg.connect(
        filled.database.admin_url.get_secret_value(),
        # the rows are sure to be of agents that are there, and looking each up takes three quarters of the time
        server_settings={"session_replication_role": "replica", "auto_explain.log_min_duration": "-1"},
    )
    await admin.execute(BIG, DEFAULT_TENANT_ID, saved.id)
    await admin.execute("ANALYZE coalition_members")
    yield saved.id
    await admin.execute("DELETE FROM coalition_members WHERE coalition_id = $1", saved.id)
    await admin.close()


async def test_a_page_of_a_ranking_reads_no_more_than_the_page(
    big_store: Persistence, plans: Plans, big_coalition: UUID
) -> None:
    def read(found: list[dict[str, Any]]) -> int:
        rows = (
            (node["Actual Rows"], node.get("Rows Removed by Filter", 0), node["Actual Loops"]) for node in reads(found)
        )
        return sum((kept + removed) * loops for kept, removed, loops in rows)

    rank, pages = big_store.coalitions.rank_members, Pages("ranking", DEFAULT_TENANT_ID, big_coalition)
    for _ in range(TIMES):
        page = await rank(big_coalition, limit=200)
        assert page.items[0].contribution_score == Decimal("9.99")
    await plans.taken()
    amid = Position(UUID(int=1 << 127), 0)  # those without a score
    before = Position(UUID(int=(1 << 128) - 1), 1)
    for cursor in [page.next, pages.cursor(amid), pages.cursor(before)] * TIMES:
        assert len(await rank(big_coalition, limit=200, after=cursor)) == 200
        found = await plans.taken()
        assert sequential(found) == []
        assert "idx_coalition_members_performance" in indexes(found)
        assert read(found) <= 201


async def test_an_as_of_read_looks_at_the_month_that_answers_alone(big_store: Persistence, plans: Plans) -> None:
    month = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    last = month - timedelta(days=1)
    read = big_store.agents.get_beliefs_at
    changed = next(iter((await big_store.agents.get_agents([agent_id(600)])).values())).updated_at
    assert changed is not None
    for n in range(1, TIMES + 1):
        ids = [agent_id(600 + n + i) for i in range(n * n)]
        await plans.taken()
        # the agents' own rows answer from their last change on, before it one of fifteen months and more
        for at, version, months in (
            (datetime.now(UTC), 2, set()),
            (changed - timedelta(microseconds=1), 2, {f"{month:%Y_%m}"}),
            (last, 1, {f"{last:%Y_%m}"}),
        ):
            batch = await read(ids, at=at)
            assert batch.versions is not None
            assert batch.versions.tolist() == [version] * len(ids)
            assert partitions(await plans.taken()) == months


async def test_history_and_metrics_of_a_day_look_at_its_month(big_store: Persistence, plans: Plans) -> None:
    start = datetime.now(UTC) - timedelta(hours=1)
    months = {f"{moment:%Y_%m}" for moment in (start, datetime.now(UTC))}
    for n in range(1, TIMES + 1):
        changes = big_store.agents.get_belief_history(agent_id(600 + n), start=start, stop=datetime.now(UTC))
        assert [change.version async for change in changes] == [2]
        assert partitions(await plans.taken()) <= months
        await big_store.metrics.query_agent_performance_history(agent_id(600 + n), hours=1)
        assert partitions(await plans.taken()) <= months


async def test_a_sequential_scan_would_be_seen(big_store: Persistence, plans: Plans) -> None:
    async with big_store._parts.database.read(DEFAULT_TENANT_ID) as connection:
        await connection.exec_driver_sql("SELECT count(*) FROM agents WHERE energy_level = 3")
    found = await plans.taken()
    assert sequential(found) == ["agents"]
