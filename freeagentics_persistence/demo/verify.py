"""Reads a run back through every store, and compares with what the agents believe to the last bit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np

from freeagentics_persistence.demo.concurrency import together
from freeagentics_persistence.demo.listener import EPOCH, MICROSECOND
from freeagentics_persistence.demo.record import Differences, compare_batches
from freeagentics_persistence.demo.report import Check

if TYPE_CHECKING:
    from datetime import datetime

    from numpy.typing import NDArray

    from freeagentics_persistence.assembly import TenantStore
    from freeagentics_persistence.demo.ledger import Entry, Ledger
    from freeagentics_persistence.demo.listener import Listener
    from freeagentics_persistence.demo.record import Record
    from freeagentics_persistence.domain.agents import Agent
    from freeagentics_persistence.ports.metrics import MetricPoint

AT_ONCE = 8
MOMENTS = 6
HISTORIES = 20
SERIES = 100
WINDOW = timedelta(seconds=5)
RELATIVE = 1e-9
RETRY_SECONDS = 0.25
NO_TIMES = "not compared: the updates tell when a version was recorded, and some of them did not come"

Series = list[tuple["datetime", str, float]]


class Verifier:
    """Compares the stores with ``record``, ``ledger`` and ``agents`` (as they were last saved)."""

    def __init__(
        self, store: TenantStore, record: Record, listener: Listener, ledger: Ledger, agents: Sequence[Agent]
    ) -> None:
        self._store = store
        self._record = record
        self._listener = listener
        self._entries = list(ledger.entries.values())
        self._agents = agents

    async def check_all(self, deadline: float) -> list[Check]:
        """One check a store. ``deadline``: until when (monotonic seconds) metrics may still be on their way."""
        return [
            await self._check_cache(),  # first: what is read from PostgreSQL is put into the cache
            await self._check_postgresql(),
            await self._check_as_of(),
            await self._check_history(),
            self._check_feed_order(),
            self._check_feed_beliefs(),
            await self._check_agent_metrics(deadline),
            await self._check_coalitions(),
            await self._check_coalition_metrics(deadline),
        ]

    async def _check_postgresql(self) -> Check:
        """Strong reads of beliefs, and of whole agents."""
        ids, version = self._record.ids, len(self._record)
        expected = self._record.beliefs_of_version(version)
        differences = Differences()
        if expected is not None:
            batch = await self._store.agents.get_beliefs_many(ids, consistency="strong")
            _, differences = compare_batches(batch, expected, ids, range(len(ids)), "PostgreSQL")
        found = await self._store.agents.get_agents(ids, consistency="strong")
        for agent in self._agents:
            stored = found.get(agent.id)
            if stored is None or (stored.version, stored.location) != (version, agent.location):
                differences.add(f"PostgreSQL: agent {agent.id} is not at version {version} on {agent.location}")
        return Check("PostgreSQL", "beliefs, version and place of every agent", len(ids), differences.found())

    async def _check_cache(self) -> Check:
        ids, expected = self._record.ids, self._record.beliefs_of_version(len(self._record))
        differences = Differences()
        reads = [partial(self._store.cache.get_cached_beliefs, agent_id) for agent_id in ids]
        for number, beliefs in enumerate(await together(AT_ONCE, reads)):
            if beliefs is None:
                differences.add(f"cache: agent {ids[number]} is missing")
            elif expected is None or beliefs != expected[number]:
                differences.add(f"cache: agent {ids[number]} has other beliefs than it holds")
        return Check("cache", "beliefs of every agent", len(ids), differences.found())

    async def _check_as_of(self) -> Check:
        """Beliefs as of the moments at which the whole swarm had just come to a version."""
        kept = self._record.kept_versions()
        chosen = sorted({kept[round(i)] for i in np.linspace(0, len(kept) - 1, MOMENTS)})
        what = f"beliefs of every agent as of {len(chosen)} moments"
        if not self._listener.has_all():
            return Check("history", what, 0, (NO_TIMES,))
        ids, compared, found = self._record.ids, 0, Differences()
        before = EPOCH + int(self._listener.recorded[0].min() - 1) * MICROSECOND
        if (await self._store.agents.get_beliefs_at(ids, before)).present.any():
            found.add(f"as of {before}: agents have beliefs before they were saved")
        for version in chosen:
            expected, moment = self._record.beliefs_of_version(version), self._listener.moment(version)
            if expected is not None:
                batch = await self._store.agents.get_beliefs_at(ids, moment)
                count, differences = compare_batches(batch, expected, ids, range(len(ids)), f"as of version {version}")
                compared += count
                for difference in differences.found():
                    found.add(difference)
        return Check("history", what, compared, found.found())

    async def _check_history(self) -> Check:
        """Every version of some agents: its number, free energy and beliefs."""
        numbers = self._spread(HISTORIES)
        found = Differences()
        counts = await together(AT_ONCE, [partial(self._compare_history, number, found) for number in numbers])
        return Check("history", f"every version of {len(numbers)} agents", sum(counts), found.found())

    async def _compare_history(self, number: int, found: Differences) -> int:
        agent_id, version = self._record.ids[number], 0
        async for revision in self._store.agents.get_belief_history(agent_id):
            version += 1
            write = self._record.writes[version - 1] if version <= len(self._record) else None
            expected_energy = None if write is None or write.free_energy is None else write.free_energy[number]
            same = (
                write is not None
                and revision.version == version
                and revision.free_energy == expected_energy
                and (write.beliefs is None or revision.beliefs == write.beliefs[number])
            )
            if not same:
                found.add(f"history: agent {agent_id} has another version {version}")
        if version != len(self._record):
            found.add(f"history: agent {agent_id} has {version} versions of {len(self._record)}")
        return version

    def _check_feed_order(self) -> Check:
        found = Differences()
        for text in self._listener.order.found():
            found.add(f"feed: {text}")
        for number in np.flatnonzero(self._listener.seen != len(self._record)).tolist():
            seen = int(self._listener.seen[number])
            found.add(f"feed: agent {self._record.ids[number]} came to version {seen} of {len(self._record)}")
        return Check("feed", "every version of every agent, in order", self._listener.received, found.found())

    def _check_feed_beliefs(self) -> Check:
        found = Differences()
        for text in self._listener.beliefs.found():
            found.add(f"feed: {text}")
        due = len(self._record.kept_versions()) * len(self._record.ids)
        if self._listener.compared != due:
            found.add(f"feed: beliefs of {self._listener.compared:,} updates came of {due:,}")
        return Check("feed", "the beliefs that the updates carried", self._listener.compared, found.found())

    async def _check_agent_metrics(self, deadline: float) -> Check:
        """Means over windows of what was recorded, where the metrics are kept."""
        numbers = self._spread(SERIES)
        what = f"free energy and entropy of {len(numbers)} agents, means of {WINDOW.seconds} s"
        if not self._listener.has_all():
            return Check("metrics", what, 0, (NO_TIMES,))
        return await self._check_series(what, [partial(self._agent_series, number) for number in numbers], deadline)

    async def _agent_series(self, number: int) -> tuple[str, Series, Sequence[MetricPoint]]:
        recorded = self._listener.recorded[: len(self._record), number]
        entropy = np.array([write.entropy[number] for write in self._record.writes])
        energy = np.array([np.nan if w.free_energy is None else w.free_energy[number] for w in self._record.writes])
        start, stop = EPOCH + int(recorded[0]) * MICROSECOND, EPOCH + int(recorded[-1] + 1) * MICROSECOND
        expected = window_means("free_energy", recorded, energy) + window_means("belief_entropy", recorded, entropy)
        found = await self._store.metrics.query_agent_performance_history(
            self._record.ids[number], start=start, stop=stop, every=WINDOW, fields=["free_energy", "belief_entropy"]
        )
        return f"agent {self._record.ids[number]}", expected, found

    async def _check_coalitions(self) -> Check:
        found = Differences()
        await together(AT_ONCE, [partial(self._compare_coalition, entry, found) for entry in self._entries])
        return Check("coalitions", "ranked members, revenue and status of each", len(self._entries), found.found())

    async def _compare_coalition(self, entry: Entry, found: Differences) -> None:
        stored = await self._store.coalitions.get_coalition(entry.id)
        ranking = await self._ranking(entry.id)
        if stored is None or (stored.total_revenue, stored.status) != (entry.coalition.revenue, entry.status):
            found.add(f"coalitions: {entry.id} does not have revenue {entry.coalition.revenue} and is {entry.status}")
        if ranking != entry.ranking:
            found.add(f"coalitions: {entry.id} has other members, or ranks them otherwise")

    async def _ranking(self, coalition_id: UUID) -> list[UUID]:
        page = await self._store.coalitions.rank_members(coalition_id)
        found = [member.agent_id for member in page]
        while page.next is not None:
            page = await self._store.coalitions.rank_members(coalition_id, after=page.next)
            found += [member.agent_id for member in page]
        return found

    async def _check_coalition_metrics(self, deadline: float) -> Check:
        earners = [entry for entry in self._entries if entry.earned][:SERIES]
        what = f"revenue and efficiency of {len(earners)} coalitions"
        return await self._check_series(what, [partial(self._coalition_series, entry) for entry in earners], deadline)

    async def _coalition_series(self, entry: Entry) -> tuple[str, Series, Sequence[MetricPoint]]:
        recorded = np.array([(moment - EPOCH) // MICROSECOND for moment, _, _ in entry.earned])
        revenue, efficiency = (np.array(column) for column in list(zip(*entry.earned, strict=True))[1:])
        start, stop = entry.earned[0][0], entry.earned[-1][0] + MICROSECOND
        expected = window_means("revenue", recorded, revenue) + window_means("efficiency", recorded, efficiency)
        found = await self._store.metrics.query_coalition_performance_history(
            entry.id, start=start, stop=stop, every=WINDOW, fields=["revenue", "efficiency"]
        )
        return f"coalition {entry.id}", expected, found

    async def _check_series(
        self,
        what: str,
        queries: Sequence[Callable[[], Awaitable[tuple[str, Series, Sequence[MetricPoint]]]]],
        deadline: float,
    ) -> Check:
        """Ask until all is as expected or the deadline has passed: metrics follow the commit at their own pace."""
        left, compared, found = list(queries), 0, Differences()
        while left:
            answers = await together(AT_ONCE, left)
            wrong = [i for i, (_, expected, points) in enumerate(answers) if not _same(expected, points)]
            compared += sum(len(expected) for i, (_, expected, _) in enumerate(answers) if i not in wrong)
            if wrong and time.monotonic() >= deadline:
                for i in wrong:
                    found.add(f"metrics: {answers[i][0]} has other means")
                return Check("metrics", what, compared + len(wrong), found.found())
            left = [left[i] for i in wrong]
            await asyncio.sleep(RETRY_SECONDS if left else 0)
        return Check("metrics", what, compared)

    def _spread(self, count: int) -> list[int]:
        """Numbers of some agents, evenly spread."""
        total = len(self._record.ids)
        return sorted({round(i) for i in np.linspace(0, total - 1, min(count, total))})


def window_means(field: str, recorded: NDArray[np.int64], values: NDArray[np.float64]) -> Series:
    """Means over windows aligned to 1970, without windows that have no value; ``recorded`` in microseconds."""
    known = ~np.isnan(values)
    width = WINDOW // MICROSECOND
    windows = recorded[known] // width
    means = []
    for window in np.unique(windows).tolist():
        begin = max(window * width, int(recorded[0]))
        means.append((EPOCH + begin * MICROSECOND, field, float(values[known][windows == window].mean())))
    return means


def _same(expected: Series, points: Sequence[MetricPoint]) -> bool:
    return len(expected) == len(points) and all(
        (moment, field) == (point.time, point.field) and abs(value - point.value) <= RELATIVE * max(1.0, abs(value))
        for (moment, field, value), point in zip(expected, points, strict=True)
    )
