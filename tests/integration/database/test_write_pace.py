"""Writers go at the pace of a relay that is behind, and of none that is gone, stuck or not there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import numpy as np
import pytest

from freeagentics_persistence import Agent, Coalition, Persistence
from freeagentics_persistence.errors import Overloaded
from freeagentics_persistence.operations.servers import ServerUrls
from tests.conftest import settings_of

LIMIT = 20
SINK = "slow"


@pytest.fixture
async def hasty(urls: ServerUrls) -> AsyncIterator[Persistence]:
    """A store without a relay, whose writers wait for at most 0.3 s."""
    relay = {"max_waiting_events": LIMIT, "write_timeout": 0.3}
    async with Persistence.open(settings_of(urls, relay=relay), relay="off") as opened:
        yield opened


@pytest.fixture
async def swarm(hasty: Persistence) -> list[UUID]:
    """More agents than events may wait."""
    agents = [Agent(name=f"a{i}", agent_type="t") for i in range(2 * LIMIT)]
    (await hasty.agents.save_agents(agents)).raise_for_conflicts()
    return [agent.id for agent in agents]


@pytest.fixture
async def served(admin: asyncpg.Connection, hasty: Persistence) -> AsyncIterator[asyncpg.Connection]:
    """The connection of a relay that serves a sink, and has come to the first event."""
    await admin.execute(
        "INSERT INTO relay_positions (sink, epoch, done_snapshot, reached_id, reached_at) "
        "VALUES ($1, $2, '1:1:', 0, clock_timestamp())",
        SINK,
        hasty.epoch,
    )
    await admin.fetchval("SELECT pg_advisory_lock(hashtext('freeagentics relay'), hashtext($1))", SINK)
    yield admin
    await admin.fetchval("SELECT pg_advisory_unlock_all()")


async def step(store: Persistence, ids: list[UUID]) -> None:
    q = np.full((len(ids), 2), 0.5)
    (await store.agents.update_beliefs_many(ids, q)).raise_for_conflicts()


async def events(admin: asyncpg.Connection) -> int:
    return int(await admin.fetchval("SELECT count(*) FROM events"))


async def test_without_a_relay_nobody_waits(hasty: Persistence, swarm: list[UUID], admin: asyncpg.Connection) -> None:
    for _ in range(3):
        await step(hasty, swarm)
    assert await events(admin) == 4 * len(swarm)


async def test_a_write_that_waits_too_long_names_the_sink_and_the_setting(
    hasty: Persistence, swarm: list[UUID], served: asyncpg.Connection
) -> None:
    with pytest.raises(Overloaded, match=r"nothing was written.*relay to slow.*40 events.*RELAY_MAX_WAITING_EVENTS"):
        await step(hasty, swarm)
    assert await events(served) == len(swarm)
    with pytest.raises(Overloaded):
        await hasty.agents.save_agent(Agent(name="late", agent_type="t"))
    with pytest.raises(Overloaded):
        await hasty.updates.publish_agent_update(swarm[0], "moved", {})


async def test_coalitions_and_deletions_wait_too(
    hasty: Persistence, swarm: list[UUID], served: asyncpg.Connection
) -> None:
    await served.execute("UPDATE relay_positions SET reached_at = NULL")  # as if by a relay that makes no headway
    coalition = await hasty.coalitions.save_coalition(Coalition(name="c", business_model="m"))
    await hasty.coalitions.add_members(coalition.id, swarm[:2])
    await served.execute("UPDATE relay_positions SET reached_at = clock_timestamp()")
    own, before = coalition.id, await events(served)
    with pytest.raises(Overloaded):
        await step(hasty, swarm)
    changes = [
        hasty.coalitions.save_coalition(coalition),
        hasty.coalitions.activate_coalition(own),
        hasty.coalitions.add_members(own, swarm[2:]),
        hasty.coalitions.remove_members(own, swarm[:1]),
        hasty.coalitions.update_contributions(own, {swarm[0]: 1}),
        hasty.coalitions.record_revenue(own, 1),
        hasty.coalitions.dissolve_coalition(own),
        hasty.agents.delete_agent(swarm[0]),
    ]
    outcomes = await asyncio.gather(*changes, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Overloaded] * len(changes)
    assert await events(served) == before


async def test_writers_go_on_as_the_sink_does(
    hasty: Persistence, swarm: list[UUID], served: asyncpg.Connection
) -> None:
    waiting = asyncio.create_task(step(hasty, swarm))
    for _ in range(10):  # one event each, until the write that waits has been let through
        await served.execute("UPDATE relay_positions SET reached_id = reached_id + 1, reached_at = clock_timestamp()")
        await asyncio.sleep(0.03)
    await waiting
    assert await events(served) == 2 * len(swarm)
    await served.execute(
        "UPDATE relay_positions SET reached_id = (SELECT last_value FROM events_id_seq), reached_at = clock_timestamp()"
    )
    await step(hasty, swarm)
    assert await events(served) == 3 * len(swarm)


@pytest.mark.parametrize("gone", ["stuck", "retired", "former epoch", "killed"])
async def test_nobody_waits_for_a_sink_that_makes_no_headway(
    hasty: Persistence, swarm: list[UUID], served: asyncpg.Connection, gone: str
) -> None:
    if gone == "killed":
        await served.fetchval("SELECT pg_advisory_unlock_all()")
    else:
        change = {
            "stuck": "reached_at = reached_at - interval '16 seconds'",
            "retired": "retired = true",
            "former epoch": "epoch = gen_random_uuid()",
        }[gone]
        await served.execute(f"UPDATE relay_positions SET {change}")
    await step(hasty, swarm)
    assert await events(served) == 2 * len(swarm)


async def test_a_relay_tells_how_far_it_has_come(store: Persistence, admin: asyncpg.Connection) -> None:
    agents = [Agent(name=f"a{i}", agent_type="t") for i in range(50)]
    (await store.agents.save_agents(agents)).raise_for_conflicts()
    async with asyncio.timeout(20):
        while True:
            places = await admin.fetch(
                "SELECT last_value - reached_id AS waiting FROM relay_positions, events_id_seq "
                "WHERE reached_at IS NOT NULL"
            )
            if [row["waiting"] for row in places] == [0, 0]:
                break
            await asyncio.sleep(0.02)
