"""Belief updates stay on their page (HOT): no index needs a new entry, whatever indexes there are."""

from __future__ import annotations

import asyncio
from uuid import UUID

import asyncpg
import h3
import numpy as np
import pytest

from freeagentics_persistence import Agent, Beliefs, Persistence, Settings

CELL = h3.latlng_to_cell(52.37, 4.90, 9)
UPDATES = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'agents'"


async def updates(admin: asyncpg.Connection, at_least: int) -> tuple[int, int]:
    """Updates of agents, and how many of them were HOT, once the server has counted so many."""
    async with asyncio.timeout(20):
        while True:
            row = await admin.fetchrow(UPDATES)
            if row["n_tup_upd"] >= at_least:
                return row["n_tup_upd"], row["n_tup_hot_upd"]
            await asyncio.sleep(0.02)


async def make_swarm(settings: Settings) -> list[UUID]:
    agents = [Agent(name="a", agent_type="t", location=CELL, beliefs=Beliefs.uniform(16)) for _ in range(400)]
    async with Persistence.open(settings, relay="off") as store:
        (await store.queries.bulk_load_agents(agents)).raise_for_conflicts()
    return [agent.id for agent in agents]


async def update_five_times(settings: Settings, ids: list[UUID]) -> None:
    """By connections that end afterwards: those that go on tell the server of their counts after ten seconds."""
    q = np.full((len(ids), 16), 1 / 16)
    async with Persistence.open(settings, relay="off") as store:
        for _ in range(5):
            (await store.agents.update_beliefs_many(ids, q)).raise_for_conflicts()


async def test_belief_updates_are_hot(settings: Settings, admin: asyncpg.Connection) -> None:
    await update_five_times(settings, await make_swarm(settings))
    count, hot = await updates(admin, 2000)
    assert (count, hot / count) == (2000, pytest.approx(1, abs=0.02))


async def test_an_update_moves_last_active_at_once_a_minute_at_most(
    settings: Settings, admin: asyncpg.Connection
) -> None:
    ids = await make_swarm(settings)
    await admin.execute("UPDATE agents SET last_active_at = last_active_at - interval '61 seconds'")
    await admin.execute("SELECT pg_stat_force_next_flush()")
    before, hot_before = await updates(admin, 400)
    await update_five_times(settings, ids)
    count, hot = await updates(admin, before + 2000)
    assert count - before == 2000
    # of five updates of an agent the first one moves it
    assert (hot - hot_before) / 2000 == pytest.approx(0.8, abs=0.05)
