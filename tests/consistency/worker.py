"""One process of the checker: callers that write, give up, repeat themselves, send nonsense and read, all at random.

    python -m tests.consistency.worker JOURNAL SECONDS CALLERS MODE SEED AGENT...

The settings come from the environment. MODE is that of the relay; "auto,faults" or "off,faults" where servers fail
beside, so that a call may find one unavailable.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import numpy as np

from freeagentics_persistence import BatchResult, BeliefBatch, Persistence, Revision, RowStatus, new_revision
from freeagentics_persistence.errors import ConcurrentUpdate, OutcomeUnknown, PersistenceError, Unavailable
from tests.consistency.journal import Journal, Seen, Write, number_of

UNKNOWN_AGENT = UUID("00000000-0000-4000-8000-000000000000")
STATUS = {RowStatus.WRITTEN: "acknowledged", RowStatus.REPEATED: "repeated"}


def beliefs_of(revision: UUID) -> np.ndarray:
    """A belief that says which write it is of."""
    share = number_of(revision)
    return np.array([share, 1.0 - share])


class Callers:
    """The callers of one process, who share one store, and so one session."""

    def __init__(
        self, store: Persistence, journal: Journal, agents: list[UUID], chance: random.Random, *, faults: bool
    ) -> None:
        self._bearable = (Unavailable, OutcomeUnknown) if faults else ()
        self._store, self._journal, self._agents, self._chance = store, journal, agents, chance
        self._versions: dict[UUID, int] = defaultdict(int)  # the newest that this session has seen
        self._accepted: list[tuple[UUID, UUID, int]] = []
        self._ways = {
            self.write: 30,
            self.write_expecting: 15,
            self.write_batch: 12,
            self.give_up: 12,
            self.repeat: 8,
            self.read: 18,
            self.write_nonsense: 5,
        }

    async def call_until(self, end: float) -> None:
        """One caller."""
        ways, weights = list(self._ways), list(self._ways.values())
        while time.monotonic() < end:
            with suppress(*self._bearable):  # of reads and repetitions; of writes it is noted
                await self._chance.choices(ways, weights)[0]()

    async def write(self) -> None:
        """Blind: the last writer wins."""
        await self._update(self._chance.choice(self._agents), new_revision(), None)

    async def write_expecting(self) -> None:
        """Compare and set."""
        agent = self._chance.choice(self._agents)
        await self._update(agent, new_revision(), self._versions[agent] or 1)

    async def give_up(self) -> None:
        """A caller that is cancelled at any moment."""
        agent, revision = self._chance.choice(self._agents), new_revision()
        task = asyncio.create_task(self._update(agent, revision, None))
        await asyncio.sleep(self._chance.expovariate(1 / 0.003))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def repeat(self) -> None:
        """A write that was acknowledged, once more."""
        if self._accepted:
            agent, revision, version = self._chance.choice(self._accepted)
            found = await self._store.agents.update_beliefs(agent, beliefs_of(revision), revision=revision)
            outcome = "repeated" if found.repeated and found.version == version else "acknowledged"
            self._note(agent, revision, outcome, found.version)

    async def write_batch(self) -> None:
        """Many agents, some of them several times, and one row that cannot be stored."""
        chosen = self._chance.choices(self._agents, k=self._chance.randrange(2, 40))
        revisions = [new_revision() for _ in chosen]
        rows = np.array([beliefs_of(revision) for revision in revisions])
        bad = self._chance.randrange(len(chosen))
        rows[bad] = np.nan
        if self._chance.random() < 0.3:
            chosen[bad] = UNKNOWN_AGENT
        try:
            result = await self._store.agents.update_beliefs_many(chosen, BeliefBatch(rows), revisions=revisions)
        except PersistenceError as error:
            for agent, revision in zip(chosen, revisions, strict=True):
                self._note_failure(agent, revision, None, error)
            return
        self._note_batch(result)

    async def write_nonsense(self) -> None:
        """A write that must be refused."""
        revision = new_revision()
        agent, beliefs = self._chance.choice(self._agents), np.array([0.5, 0.6])
        if self._chance.random() < 0.5:
            agent, beliefs = UNKNOWN_AGENT, beliefs_of(revision)
        try:
            await self._store.agents.update_beliefs(agent, beliefs, revision=revision)
            self._note(agent, revision, "acknowledged", 0)
        except PersistenceError as error:
            self._note_failure(agent, revision, None, error)

    async def read(self) -> None:
        """At any level; a session never goes backwards, so what was seen when the call began is its floor."""
        chosen = self._chance.sample(self._agents, self._chance.choice((1, 1, 3, len(self._agents))))
        floors = {agent: self._versions[agent] for agent in chosen}
        level = self._chance.choice(("session", "session", "strong"))
        batch = await self._store.agents.get_beliefs_many(chosen, consistency=level)
        for row, agent in enumerate(chosen):
            revision, version, values = batch.revisions[row], int(batch.versions[row]), batch[row][0]
            if version > 1 and not np.array_equal(values, beliefs_of(revision)):
                raise AssertionError(f"agent {agent} at version {version} believes what {revision} did not write")
            self._journal.note(Seen(str(agent), version, str(revision), floors[agent], level))
            self._versions[agent] = max(self._versions[agent], version)

    async def _update(self, agent: UUID, revision: UUID, expected: int | None) -> None:
        try:
            found: Revision = await self._store.agents.update_beliefs(
                agent, beliefs_of(revision), expected_version=expected, revision=revision
            )
        except asyncio.CancelledError:
            self._note(agent, revision, "unknown", None, expected, "cancelled")
            raise
        except PersistenceError as error:
            self._note_failure(agent, revision, expected, error)
            return
        self._note(agent, revision, "acknowledged", found.version, expected)

    def _note(
        self,
        agent: UUID,
        revision: UUID,
        outcome: str,
        version: int | None,
        expected: int | None = None,
        error: str | None = None,
    ) -> None:
        self._journal.note(Write(str(agent), str(revision), outcome, version, expected, error))  # type: ignore[arg-type]
        if outcome == "acknowledged" and version:
            self._versions[agent] = max(self._versions[agent], version)
            self._accepted.append((agent, revision, version))
            del self._accepted[:-200]

    def _note_failure(self, agent: UUID, revision: UUID, expected: int | None, error: PersistenceError) -> None:
        outcome = "unknown" if isinstance(error, OutcomeUnknown) else "refused"
        self._note(agent, revision, outcome, None, expected, type(error).__name__)
        if isinstance(error, ConcurrentUpdate):
            self._versions[agent] = max(self._versions[agent], error.actual)

    def _note_batch(self, result: BatchResult) -> None:
        failures = dict(result.failures())
        for row, agent in enumerate(result.ids):
            if row in failures:
                self._note_failure(agent, result.revisions[row], None, failures[row])
            else:
                outcome = STATUS[RowStatus(result.status[row])]
                self._note(agent, result.revisions[row], outcome, int(result.versions[row]))


async def work(journal: Path, seconds: float, callers: int, mode: str, seed: int, agents: list[UUID]) -> None:
    """All callers of this process, until the time is over."""
    notes = Journal(journal)
    try:
        relay, _, faults = mode.partition(",")
        async with Persistence.open(relay=relay) as store:  # type: ignore[arg-type]
            chance = random.Random(seed)
            crowd = Callers(store, notes, agents, chance, faults=bool(faults))
            end = time.monotonic() + seconds
            async with asyncio.TaskGroup() as group:
                for _ in range(callers):
                    group.create_task(crowd.call_until(end))
    finally:
        notes.close()


if __name__ == "__main__":
    given = sys.argv[1:]
    asyncio.run(
        work(
            Path(given[0]), float(given[1]), int(given[2]), given[3], int(given[4]), [UUID(each) for each in given[5:]]
        )
    )
