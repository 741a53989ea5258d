"""The relay: for each sink, one process at a time reads the feed and delivers it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import asyncpg

from freeagentics_persistence.database.driver_errors import is_driver_error
from freeagentics_persistence.database.engine import Database
from freeagentics_persistence.database.wakeups import CHANNEL
from freeagentics_persistence.errors import NewEpoch, PersistenceError
from freeagentics_persistence.ports.sinks import Sink
from freeagentics_persistence.relay.feed_reader import FeedReader, register
from freeagentics_persistence.relay.trimming import trim

STANDBY_SECONDS = 1.0
MAX_BACKOFF = 5.0
TRIM_SECONDS = 1.0
IDLE_TRIM_SECONDS = 5.0
GRACE_SECONDS = 60.0
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


class Relay:
    """Serves sinks until it is closed. Any number of relays may run: the others stand by for each sink."""

    def __init__(
        self,
        database: Database,
        sinks: Sequence[Sink],
        epoch: UUID,
        options: RelayOptions,
        on_new_epoch: Callable[[], None],
    ) -> None:
        self._database = database
        self._on_new_epoch = on_new_epoch
        self._sinks = sinks
        self._epoch = epoch
        self._options = options
        self._tasks: list[asyncio.Task[None]] = []
        self._started = 0.0
        self.states = {sink.name: SinkState(sink.name) for sink in sinks}

    def start(self) -> None:
        """Serve in the background."""
        self._started = asyncio.get_running_loop().time()
        self._tasks = [
            asyncio.get_running_loop().create_task(self._serve(sink), name=f"freeagentics relay {sink.name}")
            for sink in self._sinks
        ]

    async def close(self) -> None:
        """Stop after the batch under way is undone or kept; another relay goes on from there."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def run_forever(self) -> None:
        """Serve until cancelled."""
        self.start()
        try:
            await asyncio.gather(*self._tasks)
        finally:
            await self.close()

    async def _serve(self, sink: Sink) -> None:
        state, failures = self.states[sink.name], 0
        while True:
            try:
                await self._serve_while_leader(sink, state)
                failures = 0
                await asyncio.sleep(STANDBY_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
            except NewEpoch as error:
                # what this process serves is of a life of the database that has ended; others serve the new one
                state.trouble = str(error)
                _log.error("relay %s: %s", sink.name, error)
                self._on_new_epoch()
                return
            except Exception as error:  # noqa: BLE001 - a supervisor: whatever ended the sink, it is told and tried again
                failures += 1
                pause = min(MAX_BACKOFF, 0.1 * 2 ** min(failures, 10)) * random.uniform(0.5, 1.0)  # noqa: S311
                state.trouble = self._explain(error)
                _log.warning(
                    "relay %s: %s Trying again in %.1f s.",
                    sink.name,
                    state.trouble,
                    pause,
                    exc_info=None if _is_expected(error) else error,
                )
                await asyncio.sleep(pause)
            finally:
                state.active = False

    async def _require_epoch(self, connection: asyncpg.Connection) -> None:
        if await connection.fetchval("SELECT current_epoch()") != self._epoch:
            raise NewEpoch

    def _explain(self, error: Exception) -> str:
        try:
            with self._database.translated():
                raise error
        except PersistenceError as translated:
            return str(translated)
        except Exception as unforeseen:  # noqa: BLE001 - told, with its traceback, by the caller
            return f"{type(unforeseen).__name__}: {unforeseen}"

    async def _serve_while_leader(self, sink: Sink, state: SinkState) -> None:
        connection = await self._database.connect()
        try:
            if not await connection.fetchval(_LOCK, sink.name):
                return
            await self._require_epoch(connection)
            # all sinks before any is served: what one has received is kept for those that come a moment later
            await register(connection, [each.name for each in self._sinks], self._epoch)
            reader = FeedReader(connection, sink.name, self._epoch, self._options.batch_events)
            await reader.load()
            if reader.missed is None:
                await sink.resume(reader.place.last)
            else:
                await sink.resume_after_loss(reader.missed)
                await reader.told()
            state.active, state.trouble = True, None
            woken = asyncio.Event()
            await connection.add_listener(CHANNEL, lambda *_: woken.set())
            await self._deliver_all(connection, reader, sink, state, woken)
        finally:
            # terminate: a connection that another task's cancellation left mid-query cannot be closed politely
            connection.terminate()

    async def _deliver_all(
        self, connection: asyncpg.Connection, reader: FeedReader, sink: Sink, state: SinkState, woken: asyncio.Event
    ) -> None:
        loop = asyncio.get_running_loop()
        trim_at = told_at = loop.time()
        while True:
            woken.clear()
            batch = await reader.next_batch()
            if batch is not None:
                await sink.deliver(batch.events)
                await reader.commit(batch)
                state.delivered = reader.place.delivered
            if reader.watermark is not None and (batch is None or loop.time() >= told_at):
                state.watermark = reader.watermark
                await sink.caught_up(reader.watermark)
                told_at = loop.time() + self._options.poll_interval
            if loop.time() >= trim_at:
                trim_at = loop.time() + await self._tidy(connection, reader)
            if batch is None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._options.poll_interval):
                        await woken.wait()

    async def _tidy(self, connection: asyncpg.Connection, reader: FeedReader) -> float:
        """Keep the place and remove what every sink has; the seconds until the next time."""
        await self._require_epoch(connection)
        await reader.store()
        # sinks that were away with this relay get a moment to catch up before anything is given up
        settled = asyncio.get_running_loop().time() - self._started > GRACE_SECONDS
        removed = await trim(connection, self._epoch, self._options.max_backlog_hours if settled else None)
        return TRIM_SECONDS if removed else IDLE_TRIM_SECONDS


def _is_expected(error: Exception) -> bool:
    return isinstance(error, PersistenceError) or is_driver_error(error)
