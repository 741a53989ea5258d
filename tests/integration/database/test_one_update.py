"""One update by the short way and by the way of batches: the same answer, and the same left in every table."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from freeagentics_persistence import DEFAULT_TENANT_ID, Agent, HistoryPolicy, Persistence, new_revision
from freeagentics_persistence.database.bootstrap import APP
from freeagentics_persistence.database.writes.belief_writer import ONE_ROW, STATEMENT
from freeagentics_persistence.domain.identifiers import uuid_of_int
from freeagentics_persistence.domain.results import RowStatus
from freeagentics_persistence.operations.servers import ServerUrls

MEMORY = timedelta(hours=24)
ENVELOPE = os.urandom(100)
OWN = "CASE WHEN version > 1 THEN belief_state END"  # the first version was sealed for each twin
# what is left behind, without ids, revisions and moments, which differ between twins
LEFT = {
    "agents": f"SELECT version, revision = $2 AS newest, newest_revision = $2 AS is_newest, {OWN}, energy_level, "
    "kept_version, skipped_version, updated_at > created_at AS moved, last_active_at FROM agents WHERE id = $1",
    "agent_history": f"SELECT version, revision = $2 AS is_it, {OWN}, energy_level, free_energy, belief_entropy, "
    "max_belief, belief_variance, type FROM agent_history WHERE agent_id = $1 ORDER BY recorded_at",
    "events": "SELECT type, version, revision = $2 AS is_it, kept, envelope, free_energy, belief_entropy, max_belief, "
    "belief_variance, data IS NULL AS empty FROM events WHERE subject_id = $1 ORDER BY id",
    "accepted_revisions": "SELECT version, revision = $2 AS is_it FROM accepted_revisions WHERE agent_id = $1",
}


@pytest.fixture
async def app(urls: ServerUrls) -> AsyncIterator[asyncpg.Connection]:
    """A connection in the application's role, which no tenant has been entered on."""
    connection = await asyncpg.connect(urls.app, server_settings={"role": APP})
    yield connection
    await connection.close()


def revision_at(seconds: float) -> UUID:
    """A UUIDv7 that was made so many seconds ago; ahead of now where they are negative."""
    made = int((time.time() - seconds) * 1000) << 80
    return uuid_of_int(made | (new_revision().int & (1 << 80) - 1))


async def both_ways(
    app: asyncpg.Connection, twins: list[UUID], expected: int | None, revision: UUID, known: int | None = None
) -> tuple[Any, Any]:
    """The answers of the short way for one twin, and of a batch of one for the other."""
    one, other = twins
    scalars = (ENVELOPE, 1.5, 0.7, 0.5, 0.25, 0.01 if known else None, known)
    short = await app.fetchrow(ONE_ROW, DEFAULT_TENANT_ID, one, expected, revision, *scalars, MEMORY)
    columns = ([other], None if expected is None else [expected], [revision], *([value] for value in scalars))
    batch = await app.fetchrow(STATEMENT, DEFAULT_TENANT_ID, *columns, MEMORY)
    return short, batch


async def left_of(admin: asyncpg.Connection, agent_id: UUID, revision: UUID) -> dict[str, list[tuple[Any, ...]]]:
    found = {}
    for table, query in LEFT.items():
        rows = await admin.fetch(query, agent_id, revision)
        found[table] = [tuple(row.values())[: -1 if table == "agents" else None] for row in rows]
    return found


async def make_twins(store: Persistence, agent_type: str) -> list[UUID]:
    made = [Agent(name="twin", agent_type=agent_type, energy=40, beliefs=[0.5, 0.5]) for _ in range(2)]
    (await store.agents.save_agents(made)).raise_for_conflicts()
    return [agent.id for agent in made]


UPDATES = st.lists(
    st.tuples(
        st.sampled_from(["new", "again", "late", "expired", "ahead"]),  # what revision
        st.sampled_from([None, "right", "wrong"]),  # what version is expected
    ),
    min_size=1,
    max_size=6,
)


@examples(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(updates=UPDATES, policy=st.sampled_from([None, "other", "every", "divergence"]))
async def test_both_ways_answer_and_leave_the_same(
    quiet_store: Persistence,
    app: asyncpg.Connection,
    admin: asyncpg.Connection,
    updates: list[tuple[str, str | None]],
    policy: str | None,
) -> None:
    await admin.execute("TRUNCATE history_policies")
    if policy is not None:
        kind = "someone else's" if policy == "other" else "t"
        rule = HistoryPolicy.divergence(0.5) if policy == "divergence" else HistoryPolicy.every(2)
        await quiet_store.history.set_policy(kind, rule)
    twins = await make_twins(quiet_store, "t")
    used: list[UUID] = []
    for which, version in updates:
        await asyncio.sleep(0.002)  # so that each new revision is newer than the last one
        revision = {
            "new": lambda: revision_at(0),
            "again": lambda: used[-1] if used else revision_at(0),
            "late": lambda: revision_at(60),
            "expired": lambda: revision_at(25 * 3600),
            "ahead": lambda: revision_at(-3600),
        }[which]()
        used.append(revision)
        present = await admin.fetchval("SELECT version FROM agents WHERE id = $1", twins[0])
        expected = None if version is None else present + (version == "wrong")
        short, batch = await both_ways(app, twins, expected, revision, known=1 if policy == "divergence" else None)
        assert (short["statuses"], short["versions"], short["kept"]) == (
            batch["statuses"],
            batch["versions"],
            batch["kept"],
        )
        assert len(short["recorded"]) == len(batch["recorded"]) == 1
        left, right = [await left_of(admin, twin, revision) for twin in twins]
        assert left == right


async def test_an_agent_that_is_not_there_is_unknown_either_way(
    quiet_store: Persistence, app: asyncpg.Connection
) -> None:
    short, batch = await both_ways(app, [uuid4(), uuid4()], None, new_revision())
    assert short["statuses"] == batch["statuses"] == [RowStatus.UNKNOWN_AGENT]
    assert short["versions"] == batch["versions"] == [0]


async def test_nobody_writes_to_another_tenants_agent(quiet_store: Persistence, app: asyncpg.Connection) -> None:
    guest = await quiet_store.create_tenant("guest")
    theirs = await guest.agents.save_agent(Agent(name="a", agent_type="t", beliefs=[0.5, 0.5]))
    short, _ = await both_ways(app, [theirs.id, theirs.id], None, new_revision())
    assert short["statuses"] == [RowStatus.UNKNOWN_AGENT]
    assert (await guest.agents.get_agent(theirs.id)) == theirs


async def test_moments_of_one_agent_follow_one_another_where_updates_wait_for_its_row(
    quiet_store: Persistence, app: asyncpg.Connection, admin: asyncpg.Connection
) -> None:
    (agent_id, _) = await make_twins(quiet_store, "t")
    async with admin.transaction():
        await admin.execute("UPDATE agents SET version = version + 1, updated_at = now() WHERE id = $1", agent_id)
        waiting = asyncio.create_task(
            app.fetchrow(ONE_ROW, DEFAULT_TENANT_ID, agent_id, None, new_revision(), ENVELOPE, *[None] * 6, MEMORY)
        )
        for _ in range(500):
            if await admin.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                break
            await asyncio.sleep(0.01)
        held_until = await admin.fetchval("SELECT clock_timestamp()")
    answer = await waiting
    assert answer["versions"] == [3]
    assert answer["recorded"][0] > held_until  # taken under the row lock, not when the call came
