"""The subscriber: receives every update of the swarm and holds each against what the agent believed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from freeagentics_persistence.demo.record import Differences, Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from freeagentics_persistence.cache.updates.real_time_updates import AgentUpdate

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
RECENT = 20
UNOPENED = 20_000
OPENED_AT_ONCE = 16


class Listener:
    """Takes updates as they come.

    ``seen`` (N,): each agent's newest version received. ``recorded`` (W, N): when PostgreSQL recorded each version,
    in microseconds since 1970, 0 until it is received. ``delay`` (W, N): seconds from then to its arrival here, NaN
    until it is received.
    """

    def __init__(self, record: Record, writes: int) -> None:
        self._record = record
        shape = (writes, len(record.ids))
        self.seen: NDArray[np.int64] = np.zeros(len(record.ids), dtype=np.int64)
        self.recorded: NDArray[np.int64] = np.zeros(shape, dtype=np.int64)
        self.delay = np.full(shape, np.nan)
        self.received = 0
        self.repeated = 0
        self.compared = 0
        self.order = Differences()
        self.beliefs = Differences()
        self._unopened: asyncio.Queue[tuple[int, AgentUpdate]] = asyncio.Queue(UNOPENED)

    async def listen(self, updates: AsyncIterator[AgentUpdate]) -> None:
        """Take updates until the subscription ends."""
        async for update in updates:
            number = self._take(update, time.time())
            if number is not None:
                await self._unopened.put((number, update))

    async def open_beliefs(self) -> None:
        """Open what was taken, beside the taking so that updates do not wait for one another, until cancelled."""
        while True:
            for _ in range(OPENED_AT_ONCE):
                await self._compare(*await self._unopened.get())
                self._unopened.task_done()
            await asyncio.sleep(0)

    async def wait_until_opened(self) -> None:
        """Return once all that was taken has been opened and compared."""
        await self._unopened.join()

    def has_all(self) -> bool:
        """Whether the newest version of every agent has arrived."""
        return bool((self.seen == len(self._record)).all())

    def recent_delays(self) -> NDArray[np.float64]:
        """Delays of the last writes that arrived, in seconds."""
        last = int(self.seen.max())
        return self._arrived(self.delay[max(0, last - RECENT) : last])

    def all_delays(self) -> NDArray[np.float64]:
        """Delays of all writes, in seconds."""
        return self._arrived(self.delay)

    def _arrived(self, delay: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(delay[~np.isnan(delay)] + self._clock_offset())

    def _clock_offset(self) -> float:
        """Seconds by which PostgreSQL's clock is surely ahead of this machine's; negative where it is behind.

        A write was recorded after it was sent and before it was acknowledged. Where that holds by both clocks they
        count as the same.
        """
        done = len(self._record.acknowledged)
        recorded = self.recorded[:done]
        complete = (recorded > 0).all(axis=1)
        if not complete.any():
            return 0.0
        ahead_of_sending = recorded[complete].min(axis=1) / 1e6 - np.array(self._record.sent[:done])[complete]
        ahead_of_end = recorded[complete].max(axis=1) / 1e6 - np.array(self._record.acknowledged)[complete]
        return float(np.clip(0.0, ahead_of_end.max(), ahead_of_sending.min()))

    def moment(self, version: int) -> datetime:
        """When the last agent came to this version, by PostgreSQL's clock."""
        return EPOCH + int(self.recorded[version - 1].max()) * MICROSECOND

    def _take(self, update: AgentUpdate, arrived: float) -> int | None:
        """Note an update; the number of its agent, None where there is nothing new in it to compare."""
        number = self._record.number.get(update.agent_id)
        if number is None:
            self.order.add(f"an update came of agent {update.agent_id}, which is not of this run")
            return None
        self.received += 1
        last = int(self.seen[number])
        if update.version <= last:
            self.repeated += 1
            return None
        if update.version != last + 1:
            self.order.add(f"agent {update.agent_id}: version {update.version} came after version {last}")
        if update.version > len(self._record):
            self.order.add(f"agent {update.agent_id}: version {update.version} came and was never written")
            return None
        self.seen[number] = update.version
        moment = (update.timestamp - EPOCH) // MICROSECOND
        self.recorded[update.version - 1, number] = moment
        self.delay[update.version - 1, number] = arrived - moment / 1e6
        return number

    async def _compare(self, number: int, update: AgentUpdate) -> None:
        expected = self._record.beliefs_of_version(update.version)
        if expected is None:
            return
        self.compared += 1
        if await update.beliefs() != expected[number]:
            self.beliefs.add(f"agent {update.agent_id}: version {update.version} came with other beliefs")
