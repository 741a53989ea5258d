"""The same call among ten thousand, a hundred thousand and a million agents."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from statistics import median

import numpy as np

from benchmarks.outcome import Outcome, at_least
from benchmarks.place import Place
from benchmarks.row import CannotRunError, Contender, Entry, Slices
from benchmarks.scene import Scene
from benchmarks.swarm import agent_ids
from benchmarks.timing import Sample, again_and_again
from freeagentics_persistence import DEFAULT_TENANT_ID, Persistence

DISK_SHARE = 3 * 32e-9  # GB for each number of a belief: a page half full, and what is logged of it
# a thousand different values that do not compress, so that logged pages are as large as real ones
FILLER = """
CREATE TEMPORARY TABLE filler AS
SELECT n AS kind, (SELECT string_agg(uuid_send(gen_random_uuid()), '') FROM generate_series(1, {size} / 16 + n * 0 + 1))
    AS envelope
FROM generate_series(0, 999) AS n
"""
SEED = """
INSERT INTO agents (tenant_id, id, name, agent_type, revision, newest_revision, belief_state)
SELECT '{tenant}', md5(n::text)::uuid, 'agent', 'benchmark', '{revision}', '{revision}', substr(envelope, 1, {size})
FROM generate_series(1, {count}) AS n JOIN filler ON kind = n % 1000
"""
OLD_REVISION = "00000000-0000-7000-8000-000000000000"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentCountsRow:
    """Each number of agents has servers of its own, so that their slices can take turns."""

    rounds: int = 10
    seconds: float = 3.0
    counts: Sequence[int] = (10_000, 100_000, 1_000_000)
    batch: int = 10_000
    dimensions: Sequence[int] = (16, 256)

    async def measure(self, scene: Scene) -> list[Outcome]:
        """Every dimension that the disk has room for."""
        found: list[Outcome] = []
        for dimension in self.dimensions:
            try:
                scene.require_disk(DISK_SHARE * dimension * sum(self.counts), f"{max(self.counts):,} agents")
            except CannotRunError as error:
                if not found:
                    raise
                found[-1].notes = [*found[-1].notes, f"d={dimension} did not run: {error}"]
                continue
            found.append(await self._case(scene, dimension))
        return found

    async def _case(self, scene: Scene, dimension: int) -> Outcome:
        async with AsyncExitStack() as stack:
            contenders: list[Contender] = []
            for count in self.counts:
                place = await stack.enter_async_context(scene.another_place(f"agents-{dimension}-{count}"))
                scene.say(f"seeding {count:,} agents, d={dimension}")
                await seed(place, count, dimension)
                contenders.append(UpdateChosen(place, count, self.batch, dimension))
            slices = Slices(self.rounds, self.seconds, scene.say, None, f"d={dimension}")
            samples = await slices.take(contenders)
        names = sorted(samples, key=lambda name: median(sample.value for sample in samples[name]))
        checks = [at_least(0.6, names[0], names[-1])]
        return Outcome(f"{self.batch:,} chosen a call, d={dimension}", "updates/s", samples, checks)


async def seed(place: Place, count: int, dimension: int) -> None:
    """Fill the table inside the server; the envelopes are of the right size and do not open."""
    async with Persistence.open(place.settings, relay="off"):
        pass  # which makes the tables
    size = dimension * 8 + 100
    connection = place.server.connection
    await connection.execute("DROP TABLE IF EXISTS filler")
    await connection.execute(FILLER.format(size=size))
    await connection.execute(SEED.format(tenant=DEFAULT_TENANT_ID, revision=OLD_REVISION, size=size, count=count))
    await connection.execute("VACUUM ANALYZE agents")
    await connection.execute("CHECKPOINT")


class UpdateChosen:
    """update_beliefs_many of uniformly chosen agents. There is no checkpoint between slices: pages that are written
    for the first time since the last one are logged whole, and the more agents there are, the more such pages.
    """

    def __init__(self, place: Place, count: int, batch: int, dimension: int) -> None:
        self.name = f"{count:,} agents"
        self._place = place
        self._rng, self._ids, self._batch = np.random.default_rng(count), agent_ids(count), min(batch, count)
        self._beliefs = self._rng.dirichlet(np.ones(dimension), self._batch)

    async def run(self, seconds: float) -> Sample:
        """Updates per second."""
        await self._place.server.forget_events()
        async with Persistence.open(self._place.settings, relay="off") as store:

            async def step() -> int:
                chosen = self._rng.choice(len(self._ids), self._batch, replace=False, shuffle=False).tolist()
                result = await store.agents.update_beliefs_many([self._ids[i] for i in chosen], self._beliefs)
                result.raise_for_conflicts()
                return len(result.versions)

            return await again_and_again(seconds, step)


ENTRY = Entry(
    "agent-counts",
    "update_beliefs_many among many agents",
    AgentCountsRow(),
    AgentCountsRow(rounds=2, seconds=0.5, counts=(5000, 50_000), batch=5000, dimensions=(16,)),
)
