"""Reads as of a moment over twelve monthly partitions, with much history and with little."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import numpy as np

from benchmarks.outcome import Outcome, at_most
from benchmarks.place import Place
from benchmarks.row import Contender, Entry, Slices
from benchmarks.scene import Scene
from benchmarks.swarm import agent_ids
from benchmarks.timing import Sample, again_and_again
from freeagentics_persistence import DEFAULT_TENANT_ID, Agent, Beliefs, Persistence

MONTHS = 12
DIMENSION = 4
FILLER_AGENTS = 10_000
PARTITIONS = """
SELECT to_char(month, 'YYYY_MM') AS name, month::date AS first, (month + interval '1 month')::date AS next
FROM generate_series($1::timestamp, $2::timestamp, interval '1 month') AS month
"""
# every step of the sealed agents was written just now; it moves to a moment of its own month
MOVE = """
UPDATE agent_history h SET recorded_at = $2::timestamptz + (h.recorded_at - $3::timestamptz)
WHERE h.tenant_id = $1 AND h.recorded_at BETWEEN $3::timestamptz AND $4::timestamptz
"""
FILL = """
INSERT INTO agent_history (
    tenant_id, agent_id, recorded_at, version, revision, belief_state, energy_level,
    free_energy, belief_entropy, max_belief, belief_variance)
SELECT '{tenant}', md5('filler' || (n % {agents}))::uuid,
    '{start}'::timestamptz + (n / {rows}.0) * interval '{days} days',
    n, gen_random_uuid(), '\\x{envelope}', 100, 1.5, 1.2, 0.5, 0.1
FROM generate_series(1, {rows}) AS n
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AsOfRow:
    """``sizes`` are the rows of history; each has servers of its own, so that their slices can take turns."""

    rounds: int = 10
    seconds: float = 2.0
    sizes: Sequence[int] = (100_000, 10_000_000)
    agents: int = 1000
    asked: Sequence[int] = (1, 100)

    async def measure(self, scene: Scene) -> list[Outcome]:
        """One agent a call, and a hundred."""
        async with AsyncExitStack() as stack:
            places: dict[int, tuple[Place, list[datetime]]] = {}
            for size in self.sizes:
                place = await stack.enter_async_context(scene.another_place(f"history-{size}"))
                scene.say(f"seeding {size:,} rows of history")
                places[size] = place, await seed(place, self.agents, size)
            return [await self._case(scene, places, asked) for asked in self.asked]

    async def _case(self, scene: Scene, places: dict[int, tuple[Place, list[datetime]]], asked: int) -> Outcome:
        contenders: list[Contender] = [
            AsOf(place, moments, self.agents, asked, f"{size:,} rows") for size, (place, moments) in places.items()
        ]
        samples = await Slices(self.rounds, self.seconds, scene.say, None, f"{asked} a call").take(contenders)
        small, large = (contender.name for contender in contenders)
        case = f"{asked} agents a call, {MONTHS} partitions"
        return Outcome(case, "agents/s", samples, [at_most(2.0, large, small, figure="p95_ms")])


async def seed(place: Place, agents: int, rows: int) -> list[datetime]:
    """Sealed agents with one row in each of the last months, among filler; the moments of their rows."""
    connection, ids = place.server.connection, agent_ids(agents)
    this_month = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    first = (this_month - timedelta(days=30 * (MONTHS - 1) - 14)).replace(day=1)
    uniform = Beliefs.uniform(DIMENSION)
    steps = np.random.default_rng(1).dirichlet(np.ones(DIMENSION), agents)
    moments: list[datetime] = []
    async with Persistence.open(place.settings, relay="off") as store:
        for month in await connection.fetch(PARTITIONS, first.replace(tzinfo=None), this_month.replace(tzinfo=None)):
            await connection.execute(
                f"CREATE TABLE IF NOT EXISTS agent_history_{month['name']} PARTITION OF agent_history "
                f"FOR VALUES FROM ('{month['first']} 00:00+00') TO ('{month['next']} 00:00+00')"
            )
            moments.append(datetime.combine(month["first"], datetime.min.time(), UTC) + timedelta(days=1))
        moments = moments[:-1]  # this month keeps the agents as they were made
        made = [Agent(id=each, name="agent", agent_type="benchmark", beliefs=uniform) for each in ids]
        (await store.agents.save_agents(made)).raise_for_conflicts()
        for moment in moments:
            before = await connection.fetchval("SELECT clock_timestamp()")
            (await store.agents.update_beliefs_many(ids, steps)).raise_for_conflicts()
            after = await connection.fetchval("SELECT clock_timestamp()")
            await connection.execute(MOVE, DEFAULT_TENANT_ID, moment, before, after)
    values = {"tenant": DEFAULT_TENANT_ID, "agents": FILLER_AGENTS, "start": first.isoformat(), "rows": rows}
    days = (datetime.now(UTC) - first).days
    await connection.execute(FILL.format(**values, days=days, envelope="ab" * 100))
    await connection.execute("VACUUM ANALYZE agent_history")
    await connection.execute("CHECKPOINT")
    return moments


class AsOf:
    """get_beliefs_at of uniformly chosen agents and moments."""

    def __init__(self, place: Place, moments: Sequence[datetime], agents: int, asked: int, name: str) -> None:
        self.name = name
        self._place, self._moments, self._asked = place, moments, asked
        self._ids: Sequence[UUID] = agent_ids(agents)

    async def run(self, seconds: float) -> Sample:
        """Agents per second, and the percentiles of a call."""
        async with Persistence.open(self._place.settings, relay="off") as store:

            async def read() -> int:
                ids = random.sample(self._ids, self._asked)
                at = random.choice(self._moments) + timedelta(days=random.uniform(1, 20))
                batch = await store.agents.get_beliefs_at(ids, at)
                if not all(batch.present):
                    raise RuntimeError(f"agents are missing as of {at}")
                return self._asked

            return await again_and_again(seconds, read)


ENTRY = Entry(
    "as-of",
    "reads as of a moment",
    AsOfRow(),
    AsOfRow(rounds=2, seconds=0.4, sizes=(10_000, 100_000), agents=200),
)
