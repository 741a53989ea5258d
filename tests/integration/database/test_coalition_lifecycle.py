"""The life of coalitions: which status follows which, what each change records, and what the database refuses."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any
from uuid import UUID

import asyncpg
import orjson
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    rule,
    run_state_machine_as_test,
)

from freeagentics_persistence import DEFAULT_TENANT_ID, Agent, Coalition, Persistence, Settings, new_revision
from freeagentics_persistence.database.engine import Database
from freeagentics_persistence.errors import (
    CoalitionDissolved,
    InvalidInput,
    InvalidTransition,
    PersistenceError,
    UnknownAgent,
)

PERFORMANCE = """
SELECT version, status, member_count, revenue, booked, total_revenue, current_capital, efficiency, revenue_per_member
FROM coalition_performance WHERE coalition_id = $1 ORDER BY recorded_at
"""
EVENTS = "SELECT version, type, data FROM events WHERE subject_id = $1 ORDER BY id"
WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"


async def formed(store: Persistence, members: int = 2, **fields: Any) -> tuple[UUID, list[UUID]]:
    """A forming coalition and its members."""
    agents = [Agent(name="a", agent_type="t") for _ in range(members)]
    coalition = await store.coalitions.save_coalition(Coalition(**{"name": "c", "business_model": "m", **fields}))
    if agents:
        (await store.agents.save_agents(agents)).raise_for_conflicts()
        await store.coalitions.add_members(coalition.id, [agent.id for agent in agents])
    return coalition.id, [agent.id for agent in agents]


async def until_waiting(admin: asyncpg.Connection, count: int) -> None:
    """Wait until so many wait for locks."""
    async with asyncio.timeout(20):
        while await admin.fetchval(WAITING) < count:
            await asyncio.sleep(0.005)


async def test_a_coalition_lives_from_forming_to_dissolved(quiet_store: Persistence) -> None:
    coalitions = quiet_store.coalitions
    own, _ = await formed(quiet_store, 1, initial_capital=Decimal("10.00"))
    with pytest.raises(InvalidTransition, match="has 1 of the 2 members that this takes"):
        await coalitions.activate_coalition(own)
    more = await quiet_store.agents.save_agent(Agent(name="b", agent_type="t"))
    await coalitions.add_members(own, [more.id])
    assert (await coalitions.record_revenue(own, 4)).status == "forming"
    active = await coalitions.activate_coalition(own)
    assert (active.status, active.version) == ("active", 5)
    assert await coalitions.activate_coalition(own) == active
    assert (await coalitions.record_revenue(own, 6)).status == "active"  # just what it began with
    assert (await coalitions.record_revenue(own, Decimal("0.01"))).status == "profitable"
    assert (await coalitions.activate_coalition(own)).version == 7
    assert (await coalitions.record_revenue(own, Decimal("-0.01"))).status == "active"
    await coalitions.remove_members(own, [more.id])
    earned = await coalitions.record_revenue(own, 1)
    assert earned.status == "profitable"
    raised = await coalitions.save_coalition(dataclasses.replace(earned, initial_capital=Decimal(500)))
    assert raised.status == "active"
    assert (await coalitions.dissolve_coalition(own)).status == "dissolved"
    with pytest.raises(CoalitionDissolved, match="final"):
        await coalitions.activate_coalition(own)


async def test_what_was_earned_while_forming_counts_when_it_becomes_active(quiet_store: Persistence) -> None:
    own, _ = await formed(quiet_store)
    assert (await quiet_store.coalitions.record_revenue(own, 5)).status == "forming"
    assert (await quiet_store.coalitions.activate_coalition(own)).status == "profitable"


async def test_a_save_moves_the_status_by_the_same_rules(quiet_store: Persistence, admin: asyncpg.Connection) -> None:
    save, copy = quiet_store.coalitions.save_coalition, dataclasses.replace
    for status in ("active", "profitable"):
        with pytest.raises(InvalidTransition, match="is new and cannot become") as caught:
            await save(Coalition(name="c", business_model="m", status=status))
        assert caught.value.allowed == ("forming",)
    assert await admin.fetchval("SELECT count(*) FROM coalitions") == 0
    own, _ = await formed(quiet_store)
    forming = await quiet_store.coalitions.get_coalition(own)
    assert forming is not None
    with pytest.raises(InvalidTransition, match="is forming and cannot become profitable"):
        await save(copy(forming, status="profitable"))
    active = await save(copy(forming, status="active"))
    assert active.status == "active"
    with pytest.raises(InvalidTransition, match="is active and cannot become forming") as caught:
        await save(forming)
    assert caught.value.allowed == ("profitable", "dissolved")
    assert (await save(copy(active, status="profitable"))).status == "active"  # the money decides
    await quiet_store.coalitions.record_revenue(own, 1)
    assert (await save(active)).status == "profitable"
    assert await admin.fetchval("SELECT max(version) FROM events WHERE subject_id = $1", own) == 6


async def test_every_change_is_booked_with_its_performance(quiet_store: Persistence, admin: asyncpg.Connection) -> None:
    coalitions = quiet_store.coalitions
    own, ids = await formed(quiet_store, 3, initial_capital=1)
    await coalitions.activate_coalition(own)
    await coalitions.record_revenue(own, Decimal("7.50"), efficiency=0.25)
    await coalitions.update_contributions(own, {ids[0]: 2})
    await coalitions.remove_members(own, ids[:1])
    await quiet_store.agents.delete_agent(ids[1])
    saved = await coalitions.get_coalition(own)
    assert saved is not None
    await coalitions.save_coalition(dataclasses.replace(saved, current_capital=Decimal("3.25")))
    await coalitions.dissolve_coalition(own)
    await quiet_store.agents.delete_agent(ids[2])
    one, more = (Decimal("0.00"), Decimal("1.00")), (Decimal("7.50"), Decimal("8.50"))
    less = (Decimal("7.50"), Decimal("3.25"))
    expected = [
        (1, "forming", 0, None, None, *one, None, None),
        (2, "forming", 3, None, None, *one, None, None),
        (3, "active", 3, None, None, *one, None, None),
        (4, "profitable", 3, 7.5, Decimal("7.50"), *more, 0.25, 2.5),
        (5, "profitable", 3, None, None, *more, None, None),
        (6, "profitable", 2, None, None, *more, None, None),
        (7, "profitable", 1, None, None, *more, None, None),
        (8, "profitable", 1, None, None, *less, None, None),
        (9, "dissolved", 1, None, None, *less, None, None),
        (10, "dissolved", 0, None, None, *less, None, None),
    ]
    assert [tuple(row) for row in await admin.fetch(PERFORMANCE, own)] == expected
    await admin.set_type_codec("jsonb", encoder=str, decoder=orjson.loads, schema="pg_catalog")
    events = await admin.fetch(EVENTS, own)
    assert [event["type"].removeprefix("coalition.") for event in events] == [
        *("saved", "members", "saved", "revenue", "measured", "members", "members", "saved", "dissolved", "members")
    ]
    names = ("member_count", "revenue", "total_revenue", "current_capital", "efficiency", "revenue_per_member")
    carried = [(event["version"], *(event["data"][name] for name in names)) for event in events]
    assert carried == [(row[0], row[2], row[3], float(row[5]), float(row[6]), row[7], row[8]) for row in expected]
    points = await quiet_store.metrics.query_coalition_performance_history(own, every="1d")
    means = {point.field: point.value for point in points}
    assert (means["revenue"], means["efficiency"], means["total_revenue"]) == (7.5, 0.25, 5.25)
    await quiet_store.metrics.record_coalition_performance(own, member_count=3, revenue=1.0)
    assert (await admin.fetch(PERFORMANCE, own))[-1]["version"] is None


async def test_a_sum_that_does_not_fit_is_refused(quiet_store: Persistence) -> None:
    coalitions, most = quiet_store.coalitions, Decimal("9999999999999.99")
    own, _ = await formed(quiet_store, initial_capital=Decimal("0.01"))
    with pytest.raises(InvalidInput, match="13 digits"):
        await coalitions.record_revenue(own, most)  # revenue would fit, capital not
    assert (await coalitions.record_revenue(own, most - Decimal("0.01"))).current_capital == most
    with pytest.raises(InvalidInput, match="13 digits"):
        await coalitions.record_revenue(own, Decimal("0.01"))
    assert (await coalitions.record_revenue(own, -most)).total_revenue == Decimal("-0.01")


async def test_money_and_scores_are_exact_whatever_the_callers_context(quiet_store: Persistence) -> None:
    own, ids = await formed(quiet_store, initial_capital=Decimal("1234567890123.45"))
    with localcontext(prec=3):
        booked = await quiet_store.coalitions.record_revenue(own, Decimal("7654321.09"))
        await quiet_store.coalitions.update_contributions(own, {ids[0]: Decimal("123.45"), ids[1]: Decimal("123.46")})
        first = await quiet_store.coalitions.rank_members(own, limit=1)
        second = await quiet_store.coalitions.rank_members(own, limit=1, after=first.next)
    assert booked.current_capital == Decimal("1234575544444.54")
    assert [member.contribution_score for member in (*first, *second)] == [Decimal("123.46"), Decimal("123.45")]


async def test_bookings_at_once_are_all_booked_and_one_tips_the_balance(
    quiet_store: Persistence, admin: asyncpg.Connection
) -> None:
    own, _ = await formed(quiet_store, initial_capital=5)
    await quiet_store.coalitions.activate_coalition(own)
    revision = new_revision()
    async with admin.transaction():
        await admin.execute("SELECT FROM coalitions FOR UPDATE")
        bookings = [
            asyncio.create_task(quiet_store.coalitions.record_revenue(own, Decimal("2.01"), revision=given))
            for given in (None, None, None, revision, revision)
        ]
        await until_waiting(admin, len(bookings))
    results = await asyncio.gather(*bookings)
    stored = await quiet_store.coalitions.get_coalition(own)
    assert stored is not None
    assert (stored.total_revenue, stored.current_capital, stored.version) == (Decimal("8.04"), Decimal("13.04"), 7)
    by_version = {result.version: str(result.status) for result in results}
    assert by_version == {4: "active", 5: "active", 6: "profitable", 7: "profitable"}
    assert await admin.fetchval("SELECT count(*) FROM coalition_performance WHERE booked > 0") == 4


# What the database itself refuses, whoever writes.

CHANGES = (
    "UPDATE coalitions SET status = 'active', dissolved_at = NULL WHERE id = $1",
    "UPDATE coalitions SET total_revenue = total_revenue + 1 WHERE id = $1",
    "UPDATE coalitions SET current_capital = 7 WHERE id = $1",
    "INSERT INTO coalition_members (tenant_id, coalition_id, agent_id) "
    "SELECT tenant_id, $1, id FROM agents WHERE name = 'late'",
)


@pytest.mark.parametrize("change", CHANGES)
async def test_the_database_keeps_what_is_dissolved(
    quiet_store: Persistence, app_database: Database, change: str
) -> None:
    own, ids = await formed(quiet_store)
    await quiet_store.agents.save_agent(Agent(name="late", agent_type="t"))
    ended = await quiet_store.coalitions.dissolve_coalition(own)
    with pytest.raises(CoalitionDissolved, match=f"coalition {own} is dissolved, which is final"):
        async with app_database.write(DEFAULT_TENANT_ID) as connection:
            await connection.exec_driver_sql(change, (own,))
    assert await quiet_store.coalitions.get_coalition(own) == ended
    assert {member.agent_id for member in await quiet_store.coalitions.get_members(own)} == set(ids)


async def test_joining_waits_for_a_dissolution_that_is_under_way(
    quiet_store: Persistence, app_database: Database, admin: asyncpg.Connection
) -> None:
    own, _ = await formed(quiet_store)
    await quiet_store.agents.save_agent(Agent(name="late", agent_type="t"))

    async def join() -> None:
        async with app_database.write(DEFAULT_TENANT_ID) as connection:
            await connection.exec_driver_sql(CHANGES[-1], (own,))

    async with admin.transaction():
        await admin.execute("UPDATE coalitions SET status = 'dissolved', dissolved_at = now()")
        joining = asyncio.create_task(join())
        await until_waiting(admin, 1)
    with pytest.raises(CoalitionDissolved):
        await joining


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE coalition_members SET contribution_score = -1, rank_key = 100",
        "UPDATE coalition_members SET contribution_score = 1",
        "UPDATE coalition_members SET contribution_score = 'NaN'",
        "UPDATE coalitions SET current_capital = 'NaN'",
    ],
)
async def test_the_database_refuses_what_is_no_score_and_no_money(
    quiet_store: Persistence, app_database: Database, change: str
) -> None:
    await formed(quiet_store)
    with pytest.raises(InvalidInput):
        async with app_database.write(DEFAULT_TENANT_ID) as connection:
            await connection.exec_driver_sql(change)


async def test_what_version_0_1_0_writes_is_still_accepted(quiet_store: Persistence, app_database: Database) -> None:
    """Its statements: a status that it did not look at, a performance without the new columns, a version of the end."""
    own, _ = await formed(quiet_store)
    statements = (
        "UPDATE coalitions SET status = 'profitable', version = version + 1, updated_at = now() WHERE id = $1",
        "UPDATE coalitions SET status = 'forming', version = version + 1, updated_at = now() WHERE id = $1",
        "INSERT INTO coalition_performance (tenant_id, coalition_id, recorded_at, revision, member_count, revenue, "
        "revenue_per_member, booked) SELECT tenant_id, id, updated_at, revision, 2, 1.0, 0.5, 1 FROM coalitions "
        "WHERE id = $1 ON CONFLICT DO NOTHING",
        "UPDATE coalitions SET status = 'dissolved', dissolved_at = now(), version = version + 1 WHERE id = $1",
        "UPDATE coalitions SET version = version + 1, updated_at = now() WHERE id = $1",
    )
    for statement in statements:
        async with app_database.write(DEFAULT_TENANT_ID) as connection:
            await connection.exec_driver_sql(statement, (own,))
    ended = await quiet_store.coalitions.get_coalition(own)
    assert ended is not None
    assert (ended.status, ended.version) == ("dissolved", 6)


# Whatever is done in whatever order, a coalition is what a few lines of Python say it is.

MONEY = st.decimals(min_value=-20, max_value=20, places=2)
CAPITAL = st.decimals(min_value=0, max_value=10, places=2)


@dataclasses.dataclass
class Expected:
    """What is known of a coalition."""

    id: UUID
    initial: Decimal
    capital: Decimal
    revenue: Decimal = Decimal(0)
    status: str = "forming"
    version: int = 1
    members: set[UUID] = dataclasses.field(default_factory=set)

    def settle(self) -> None:
        if self.status in ("active", "profitable"):
            self.status = "profitable" if self.revenue > self.initial else "active"


class Life(RuleBasedStateMachine):
    """Calls in any order; ``store`` is set by the test."""

    store: Any = None
    coalitions = Bundle("coalitions")
    agents = Bundle("agents")

    def __init__(self) -> None:
        super().__init__()
        self.known: list[Expected] = []
        self.alive: set[UUID] = set()

    def attempt(
        self, expected: Expected, call: Callable[[], object], error: type[PersistenceError] | None = None
    ) -> bool:
        """Make the call; whether it was one that counts."""
        wanted = CoalitionDissolved if expected.status == "dissolved" else error
        with contextlib.nullcontext() if wanted is None else pytest.raises(wanted):
            call()
        expected.version += wanted is None
        return wanted is None

    @rule(target=agents)
    def save_agent(self) -> UUID:
        agent = self.store.agents.save_agent(Agent(name="a", agent_type="t"))
        self.alive.add(agent.id)
        return UUID(int=agent.id.int)

    @rule(agent=consumes(agents))
    def delete_agent(self, agent: UUID) -> None:
        self.store.agents.delete_agent(agent)
        self.alive.remove(agent)
        for expected in self.known:
            if agent in expected.members:
                expected.members.remove(agent)
                expected.version += 1

    @rule(target=coalitions, capital=CAPITAL)
    def form(self, capital: Decimal) -> Expected:
        saved = self.store.coalitions.save_coalition(Coalition(name="c", business_model="m", initial_capital=capital))
        self.known.append(Expected(saved.id, capital, capital))
        return self.known[-1]

    @rule(expected=coalitions, agent=agents)
    def join(self, expected: Expected, agent: UUID) -> None:
        error = None if agent in self.alive else UnknownAgent
        if self.attempt(expected, lambda: self.store.coalitions.add_members(expected.id, [agent]), error):
            expected.members.add(agent)

    @rule(expected=coalitions, agent=agents)
    def leave(self, expected: Expected, agent: UUID) -> None:
        if self.attempt(expected, lambda: self.store.coalitions.remove_members(expected.id, [agent])):
            expected.members.discard(agent)

    @rule(expected=coalitions)
    def activate(self, expected: Expected) -> None:
        if expected.status in ("active", "profitable"):
            assert self.store.coalitions.activate_coalition(expected.id).version == expected.version
            return
        few = InvalidTransition if len(expected.members) < 2 else None
        if self.attempt(expected, lambda: self.store.coalitions.activate_coalition(expected.id), few):
            expected.status = "active"
            expected.settle()

    @rule(expected=coalitions, amount=MONEY)
    def earn(self, expected: Expected, amount: Decimal) -> None:
        if self.attempt(expected, lambda: self.store.coalitions.record_revenue(expected.id, amount)):
            expected.revenue += amount
            expected.capital += amount
            expected.settle()

    @rule(expected=coalitions, status=st.sampled_from(["forming", "active", "profitable"]), capital=CAPITAL)
    def save(self, expected: Expected, status: str, capital: Decimal) -> None:
        given = Coalition(
            id=expected.id, name="d", business_model="m", initial_capital=capital, current_capital=0, status=status
        )
        if expected.status == "forming":
            enough = len(expected.members) >= 2
            refused = status == "profitable" or (status == "active" and not enough)
        else:
            refused = status == "forming"
        error = InvalidTransition if refused else None
        if self.attempt(expected, lambda: self.store.coalitions.save_coalition(given), error):
            expected.initial, expected.capital, expected.status = capital, Decimal(0), status
            expected.settle()

    @rule(expected=coalitions)
    def dissolve(self, expected: Expected) -> None:
        if self.attempt(expected, lambda: self.store.coalitions.dissolve_coalition(expected.id)):
            expected.status = "dissolved"

    def teardown(self) -> None:
        for expected in self.known:
            stored = self.store.coalitions.get_coalition(expected.id)
            assert (stored.status, stored.version) == (expected.status, expected.version)
            assert (stored.initial_capital, stored.current_capital, stored.total_revenue) == (
                *(expected.initial, expected.capital, expected.revenue),
            )
            members = {member.agent_id for member in self.store.coalitions.rank_members(expected.id)}
            assert members == expected.members


def test_any_order_of_calls(settings: Settings) -> None:
    with Persistence.open_sync(settings, relay="off") as store:
        run_state_machine_as_test(type("Run", (Life,), {"store": store}), settings=STEPS)


STEPS = settings(
    max_examples=10, stateful_step_count=25, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
