"""The connection is cut during a commit: what the error says is true, and doing it stores the write once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from uuid import UUID

import asyncpg
import pytest

from freeagentics_persistence import Agent, Coalition, Persistence, new_revision
from freeagentics_persistence.errors import (
    AlreadyExists,
    CoalitionDissolved,
    InvalidInput,
    OutcomeUnknown,
    RevisionExpired,
)
from freeagentics_persistence.operations.servers import ServerUrls
from tests.conftest import settings_of
from tests.support.commit_cutter import CommitCutter

WHEN = pytest.mark.parametrize("committed", [True, False], ids=["after", "before"])
OLD = UUID("01890000-0000-7000-8000-000000000001")


@pytest.fixture
async def cutter(urls: ServerUrls) -> AsyncIterator[CommitCutter]:
    async with CommitCutter(urls.app) as running:
        yield running


@pytest.fixture
async def cut_store(cutter: CommitCutter, urls: ServerUrls) -> AsyncIterator[Persistence]:
    """A store whose connections to PostgreSQL pass the cutter."""
    database = {"url": cutter.url, "migrator_url": urls.migrator, "relay_url": urls.relay}
    async with Persistence.open(settings_of(urls, database=database), relay="off") as opened:
        yield opened


@pytest.fixture
async def coalition(cut_store: Persistence) -> Coalition:
    return await cut_store.coalitions.save_coalition(Coalition(name="c", business_model="m"))


@pytest.fixture
async def agent(cut_store: Persistence) -> Agent:
    return await cut_store.agents.save_agent(Agent(name="a", agent_type="t", beliefs=[0.5, 0.5]))


@WHEN
async def test_revenue_is_booked_once(
    cut_store: Persistence, cutter: CommitCutter, coalition: Coalition, admin: asyncpg.Connection, committed: bool
) -> None:
    cutter.cut_next(committed=committed)
    with pytest.raises(OutcomeUnknown, match=r"Repeat the call with the same revision \(error\.revisions\)") as caught:
        await cut_store.coalitions.record_revenue(coalition.id, Decimal("12.34"))
    assert cutter.cuts == 1
    [revision] = caught.value.revisions
    for _ in range(2):
        booked = await cut_store.coalitions.record_revenue(coalition.id, Decimal("12.34"), revision=revision)
        assert (booked.total_revenue, booked.current_capital, booked.version) == (Decimal("12.34"), Decimal("12.34"), 2)
    assert await admin.fetchval("SELECT count(*) FROM coalition_performance WHERE booked IS NOT NULL") == 1
    assert await admin.fetchval("SELECT count(*) FROM events WHERE type = 'coalition.revenue'") == 1
    await cut_store.coalitions.dissolve_coalition(coalition.id)
    ended = await cut_store.coalitions.record_revenue(coalition.id, Decimal("12.34"), revision=revision)
    assert ended.total_revenue == Decimal("12.34")


@WHEN
async def test_announcements_are_made_once(
    cut_store: Persistence,
    cutter: CommitCutter,
    agent: Agent,
    coalition: Coalition,
    admin: asyncpg.Connection,
    committed: bool,
) -> None:
    store = cut_store

    async def publish(**more: UUID) -> UUID:
        return await store.updates.publish_agent_update(agent.id, "plan.made", {"goal": 1}, **more)

    async def measure(**more: UUID) -> UUID:
        return await store.metrics.record_agent_belief_update(agent.id, [0.2, 0.8], 1.0, **more)

    async def perform(**more: UUID) -> UUID:
        return await store.metrics.record_coalition_performance(coalition.id, member_count=1, revenue=2.0, **more)

    for kind, announce in (("plan.made", publish), ("beliefs.measured", measure), ("coalition.measured", perform)):
        cutter.cut_next(committed=committed)
        with pytest.raises(OutcomeUnknown, match="the same revision") as caught:
            await announce()
        [revision] = caught.value.revisions
        for _ in range(2):
            assert await announce(revision=revision) == revision
        rows = await admin.fetch("SELECT revision FROM events WHERE type = $1", kind)
        assert [row["revision"] for row in rows] == [revision]
        await announce()
        assert await admin.fetchval("SELECT count(*) FROM events WHERE type = $1", kind) == 2
    assert await admin.fetchval("SELECT count(*) FROM agent_history WHERE version IS NULL") == 4
    assert await admin.fetchval("SELECT count(*) FROM coalition_performance WHERE version IS NULL") == 2


@WHEN
async def test_where_no_revision_helps_the_error_says_what_does(
    cut_store: Persistence, cutter: CommitCutter, agent: Agent, coalition: Coalition, committed: bool
) -> None:
    coalitions = cut_store.coalitions
    harmless = "may be repeated: done twice it leaves the same"
    others = [Agent(name="b", agent_type="t"), Agent(name="c", agent_type="t")]
    (await cut_store.agents.save_agents(others)).raise_for_conflicts()
    await coalitions.add_members(coalition.id, [other.id for other in others])
    for call, remedy in (
        (lambda: coalitions.save_coalition(coalition), "as a later version"),
        (lambda: coalitions.add_members(coalition.id, [agent.id]), harmless),
        (lambda: coalitions.remove_members(coalition.id, [agent.id]), harmless),
        (lambda: coalitions.update_contributions(coalition.id, {others[0].id: 3}), harmless),
        (lambda: coalitions.activate_coalition(coalition.id), harmless),
        (lambda: coalitions.dissolve_coalition(coalition.id), "CoalitionDissolved then means that it is done"),
        (lambda: cut_store.agents.delete_agent(agent.id), harmless),
        (lambda: cut_store.create_tenant("other"), "AlreadyExists then means that it was made"),
    ):
        cutter.cut_next(committed=committed)
        with pytest.raises(OutcomeUnknown, match=remedy) as caught:
            await call()
        assert caught.value.revisions == ()
        try:
            await call()
        except (CoalitionDissolved, AlreadyExists):
            assert committed
    assert cutter.cuts == 8


async def test_a_revision_names_one_write(quiet_store: Persistence) -> None:
    store = quiet_store
    agent = await store.agents.save_agent(Agent(name="a", agent_type="t", beliefs=[0.5, 0.5]))
    coalition = await store.coalitions.save_coalition(Coalition(name="c", business_model="m"))
    one = new_revision()
    await store.coalitions.record_revenue(coalition.id, 5, revision=one)
    await store.updates.publish_agent_update(agent.id, "plan.made", {}, revision=one)
    await store.agents.update_beliefs(agent.id, [0.1, 0.9], revision=one)
    for other in (
        store.coalitions.record_revenue(coalition.id, 6, revision=one),
        store.metrics.record_coalition_performance(coalition.id, member_count=0, revenue=5.0, revision=one),
        store.metrics.record_agent_belief_update(agent.id, [0.5, 0.5], revision=one),
        store.updates.publish_agent_update(agent.id, "plan.dropped", {}, revision=one),
        store.coalitions.record_revenue(coalition.id, 5, revision=agent.id),
    ):
        with pytest.raises(InvalidInput, match="revision"):
            await other
    with pytest.raises(RevisionExpired):
        await store.updates.publish_agent_update(agent.id, "plan.made", {}, revision=OLD)
    ahead = UUID(int=(one.int >> 80) + 3_600_000 << 80 | one.int & (1 << 80) - 1)
    with pytest.raises(InvalidInput, match="in the future"):
        await store.metrics.record_agent_belief_update(agent.id, [0.5, 0.5], revision=ahead)
