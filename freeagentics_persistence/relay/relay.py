"""The relay: for each sink, one process at a time reads the feed and delivers it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import asyncpg

from freeagentics_persistence.database.driver_errors import is_driver_error
from freeagentics_persistence.database.engine import Database
from freeagentics_persistence.database.partitions import PartitionRules, keep_partitions
from freeagentics_persistence.database.wakeups import CHANNEL
from freeagentics_persistence.domain.epochs import Epoch
from freeagentics_persistence.errors import NewEpoch, PersistenceError
from freeagentics_persistence.ports.sinks import Sink
from freeagentics_persistence.relay.feed_reader import FeedReader
from freeagentics_persistence.relay.places import register
from freeagentics_persistence.relay.shared_reader import SharedReader
from freeagentics_persistence.relay.trimming import trim

STANDBY_SECONDS = 1.0
START_SECONDS = 1.0
MAX_BACKOFF = 5.0
TRIM_SECONDS = 1.0
IDLE_TRIM_SECONDS = 5.0
GRACE_SECONDS = 60.0
PLACE_SECONDS = 5.0
KEEP_SECONDS = 3600.0
KEEP_AGAIN_SECONDS = 60.0  # after what went wrong
TIDYING = "tidying"
_LOCK = "SELECT pg_try_advisory_lock(hashtext('freeagentics relay'), hashtext($1))"
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class SinkState:
    """What a relay knows of one sink: whether it serves it here, and the last trouble."""

    sink: str
    active: bool = False
    delivered: int = 0
    watermark: datetime | None = None
    trouble: str | None = field(default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayOptions:
    """Bounds: events read at once, seconds between looks, hours after which a lagging sink is given up."""

    batch_events: int = 2000
    poll_interval: float = 0.25
    max_backlog_hours: float = 24.0
    partitions: PartitionRules | None = None  # None: others keep them


class Relay:
    """Serves sinks until it is closed. Any number of relays may run: the others stand by for each sink."""

    def __init__(self, database: Database, sinks: Sequence[Sink], epoch: Epoch, options: RelayOptions) -> None:
        self._database = database
        self._sinks = sinks
        self._epoch = epoch
        self._options = options
        self._tasks: list[asyncio.Task[None]] = []
        self._shared = SharedReader(database.connect, options.batch_events)
        self._keep_at = 0.0
        self._starting = {sink.name for sink in sinks}
        self._started = asyncio.Event()
        self.states = {sink.name: SinkState(sink.name) for sink in sinks}

    def start(self) -> None:
        """Serve in the background, until the epoch ends."""
        serving = [self._serve(sink) for sink in self._sinks]
        serving.append(self._supervise(SinkState(TIDYING), self._tidy))
        self._tasks = [asyncio.get_running_loop().create_task(each, name="freeagentics relay") for each in serving]

    async def close(self) -> None:
        """Stop after the batch under way is undone or kept; another relay goes on from there."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await self._shared.close()

    async def run_forever(self) -> None:
        """Serve until cancelled. Raises NewEpoch where the epoch ends."""
        self.start()
        try:
            await asyncio.gather(*self._tasks)
            self._epoch.require()
        finally:
            await self.close()

    async def _serve(self, sink: Sink) -> None:
        state = self.states[sink.name]

        async def deliver(connection: asyncpg.Connection) -> None:
            reader = FeedReader(connection, sink.name, self._epoch.id, self._shared)
            try:
                await self._deliver_from(connection, reader, sink, state)
            finally:
                reader.close()

        await self._supervise(state, deliver)

    async def _supervise(self, state: SinkState, work: Callable[[asyncpg.Connection], Awaitable[None]]) -> None:
        """Do one kind of work whenever this process is the one to do it, and again after whatever ended it."""
        failures = 0
        while True:
            try:
                await self._work_while_leader(state.sink, work)
                failures = 0
                self._has_started(state.sink)  # served elsewhere
                await asyncio.sleep(STANDBY_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
            except NewEpoch as error:
                # what this process serves is of a life of the database that has ended; others serve the new one
                state.trouble = str(error)
                _log.error("relay %s: %s", state.sink, error)
                self._epoch.end()
                return
            except Exception as error:  # noqa: BLE001 - a supervisor: whatever ended the work, it is told and tried again
                failures += 1
                self._has_started(state.sink)
                pause = min(MAX_BACKOFF, 0.1 * 2 ** min(failures, 10)) * random.uniform(0.5, 1.0)  # noqa: S311
                state.trouble = self._explain(error)
                _log.warning(
                    "relay %s: %s Trying again in %.1f s.",
                    state.sink,
                    state.trouble,
                    pause,
                    exc_info=None if _is_expected(error) else error,
                )
                await asyncio.sleep(pause)
            finally:
                state.active = False

    async def _work_while_leader(self, name: str, work: Callable[[asyncpg.Connection], Awaitable[None]]) -> None:
        connection = await self._database.connect()
        try:
            await self._require_epoch(connection)
            if await connection.fetchval(_LOCK, name):
                # all sinks before any is served: what one has received is kept for those that come a moment later
                await register(connection, [each.name for each in self._sinks], self._epoch.id)
                await work(connection)
        finally:
            # terminate: a connection that another task's cancellation left mid-query cannot be closed politely
            connection.terminate()

    async def _require_epoch(self, connection: asyncpg.Connection) -> None:
        self._epoch.require()
        if await connection.fetchval("SELECT current_epoch()") != self._epoch.id:
            raise NewEpoch

    def _explain(self, error: Exception) -> str:
        try:
            with self._database.translated():
                raise error
        except PersistenceError as translated:
            return str(translated)
        except Exception as unforeseen:  # noqa: BLE001 - told, with its traceback, by the caller
            return f"{type(unforeseen).__name__}: {unforeseen}"

    async def _deliver_from(
        self, connection: asyncpg.Connection, reader: FeedReader, sink: Sink, state: SinkState
    ) -> None:
        await reader.load()
        await self._start_together(sink.name)
        if reader.missed is None:
            await sink.resume(reader.place.last)
        else:
            await sink.resume_after_loss(reader.missed)
            await reader.told()
        state.active, state.trouble = True, None
        woken = asyncio.Event()
        await connection.add_listener(CHANNEL, lambda *_: woken.set())
        loop = asyncio.get_running_loop()
        keep_at = told_at = loop.time()
        while True:
            woken.clear()
            batch = await reader.next_batch()
            if batch is not None:
                await reader.commit(batch, await sink.deliver(batch.events))
                state.delivered = reader.place.delivered
            if reader.watermark is not None and (batch is None or loop.time() >= told_at):
                state.watermark = reader.watermark
                await sink.caught_up(reader.watermark)
                told_at = loop.time() + self._options.poll_interval
            if loop.time() >= keep_at:
                keep_at = loop.time() + PLACE_SECONDS
                await self._require_epoch(connection)
                await reader.store()
            self._epoch.require()
            if batch is None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._options.poll_interval):
                        await woken.wait()

    async def _start_together(self, sink: str) -> None:
        """Wait until all sinks have their places: a look that is older than a place does not serve it.

        Whoever read before would open a round that the others cannot share, and never meet them while events come.
        """
        self._has_started(sink)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                await self._started.wait()

    def _has_started(self, sink: str) -> None:
        self._starting.discard(sink)
        if not self._starting:
            self._started.set()

    async def _tidy(self, connection: asyncpg.Connection) -> None:
        loop = asyncio.get_running_loop()
        settled_at = loop.time() + GRACE_SECONDS  # sinks that were away too get a moment to make headway
        while True:
            await self._require_epoch(connection)
            hours = self._options.max_backlog_hours if loop.time() >= settled_at else None
            removed = await trim(connection, self._epoch.id, hours)
            if self._options.partitions is not None and loop.time() >= self._keep_at:
                self._keep_at = loop.time() + KEEP_AGAIN_SECONDS
                await keep_partitions(connection, self._options.partitions)
                self._keep_at = loop.time() + KEEP_SECONDS
            await asyncio.sleep(TRIM_SECONDS if removed else IDLE_TRIM_SECONDS)


def _is_expected(error: Exception) -> bool:
    return isinstance(error, PersistenceError) or is_driver_error(error)
