"""Group commit: single updates that wait at the same time travel in one statement."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import cast
from uuid import UUID

import numpy as np

from freeagentics_persistence.database.shared_errors import copy_of
from freeagentics_persistence.database.writes.belief_rows import BeliefWrite
from freeagentics_persistence.database.writes.belief_writer import BeliefWriter
from freeagentics_persistence.domain.beliefs.batch import BeliefBatch
from freeagentics_persistence.domain.beliefs.beliefs import Beliefs
from freeagentics_persistence.domain.beliefs.families import Array
from freeagentics_persistence.domain.results import Revision, RowStatus
from freeagentics_persistence.errors import InvalidInput, OutcomeUnknown, Overloaded, PersistenceError, StoreClosed

# small enough that callers are sealed for and answered while other statements run, instead of all at once
MAX_ROWS = 128
MAX_WAITING_BYTES = 256 * 1024 * 1024
FLUSHERS = 4
_CUT_SHORT = (
    "the write was cut short, so it may or may not be stored. Repeat the call with the same revision "
    "(error.revisions): it is applied once."
)


@dataclass(slots=True, eq=False)
class _Update:
    agent_id: UUID
    beliefs: Beliefs | Array
    free_energy: float | None
    expected: int | None
    revision: UUID
    answer: asyncio.Future[Revision]
    nbytes: int
    taken: bool = False


class GroupCommit:
    """Flushes at once when idle; what arrives meanwhile shares the next statement. Bounded, and says so.

    One agent's updates keep their order: while one is under way, its next waits. A caller that is cancelled
    takes back its update only while it still waits; the statement under way goes on for the others.
    """

    def __init__(self, writer: BeliefWriter, *, queue_limit: int) -> None:
        self._writer = writer
        self._limit = queue_limit
        # by the agent's number, as a UUID is hashed in Python: each one's updates, the one under way first
        self._waiting: dict[int, deque[_Update]] = {}
        self._ready: OrderedDict[int, None] = OrderedDict()  # agents with an update waiting and none under way
        self._count = 0
        self._bytes = 0
        self._flushers: set[asyncio.Task[None]] = set()
        self._closed = False

    async def update(
        self,
        agent_id: UUID,
        beliefs: Beliefs | Array,
        free_energy: float | None,
        expected: int | None,
        revision: UUID,
    ) -> Revision:
        """One update, of a row that nobody else writes to; returns when it is durable.

        Raises Overloaded, and what the write raises.
        """
        if self._closed:
            raise StoreClosed
        if self._count >= self._limit:
            raise Overloaded(
                f"{self._limit:,} updates are waiting to be written already. Slow down, send batches with "
                "update_beliefs_many, or raise DATABASE_WRITE_QUEUE."
            )
        nbytes = beliefs.nbytes
        if self._bytes and self._bytes + nbytes > MAX_WAITING_BYTES:
            raise Overloaded(
                f"updates of {self._bytes:,} bytes are waiting to be written already. Slow down, or send batches with "
                "update_beliefs_many."
            )
        answer: asyncio.Future[Revision] = asyncio.get_running_loop().create_future()
        update = _Update(agent_id, beliefs, free_energy, expected, revision, answer, nbytes)
        number = agent_id.int
        if number in self._waiting:
            self._waiting[number].append(update)
        else:
            self._waiting[number] = deque((update,))
            self._ready[number] = None
        self._count += 1
        self._bytes += nbytes
        if len(self._flushers) < FLUSHERS:
            task = asyncio.get_running_loop().create_task(self._flush(), name="freeagentics group commit")
            self._flushers.add(task)
            task.add_done_callback(self._flushers.discard)  # for one that is cancelled before it begins
        try:
            return await answer
        except asyncio.CancelledError:
            self._forget(update)
            raise

    async def close(self) -> None:
        """Write what was accepted, and accept no more."""
        self._closed = True
        try:
            while self._flushers:
                await asyncio.wait(self._flushers)
        finally:
            self._refuse_waiting()  # where closing was cut short

    async def _flush(self) -> None:
        try:
            await asyncio.sleep(0)  # lets callers of the same turn of the loop join
            while batch := self._take():
                try:
                    await self._write(batch)
                except Exception as error:  # noqa: BLE001 - every caller is told, and the queue goes on
                    for update in batch:
                        _fail(update, error)
                except asyncio.CancelledError:
                    for update in batch:
                        _fail(update, OutcomeUnknown(_CUT_SHORT))
                    self._refuse_waiting()
                    raise
                finally:
                    self._release(batch)
        finally:
            # at once: whoever comes now must not count on a flusher that has looked for the last time
            self._flushers.discard(cast(asyncio.Task[None], asyncio.current_task()))

    def _take(self) -> list[_Update]:
        """The next update of each agent that has none under way, in order of arrival."""
        batch: list[_Update] = []
        while self._ready and len(batch) < MAX_ROWS:
            number, _ = self._ready.popitem(last=False)
            queue = self._waiting[number]
            queue[0].taken = True
            batch.append(queue[0])
        return batch

    def _release(self, batch: list[_Update]) -> None:
        for update in batch:
            number = update.agent_id.int
            queue = self._waiting[number]
            queue.popleft()
            self._count -= 1
            self._bytes -= update.nbytes
            if queue:
                self._ready[number] = None
            else:
                del self._waiting[number]

    def _forget(self, update: _Update) -> None:
        """Take back what its caller no longer waits for, where it is not under way."""
        if update.taken:
            return
        number = update.agent_id.int
        queue = self._waiting[number]
        queue.remove(update)
        self._count -= 1
        self._bytes -= update.nbytes
        if not queue:
            del self._waiting[number]
            del self._ready[number]

    def _refuse_waiting(self) -> None:
        for number, queue in list(self._waiting.items()):
            for update in [update for update in queue if not update.taken]:
                queue.remove(update)
                self._count -= 1
                self._bytes -= update.nbytes
                update.taken = True  # so that nobody takes it back again
                _fail(update, StoreClosed())
            if not queue:
                del self._waiting[number]
        self._ready.clear()

    async def _write(self, batch: list[_Update]) -> None:
        free = [np.nan if update.free_energy is None else update.free_energy for update in batch]
        expected = [-1 if update.expected is None else update.expected for update in batch]
        write = BeliefWrite(
            ids=[update.agent_id for update in batch],
            beliefs=BeliefBatch.from_rows([update.beliefs for update in batch]),
            free_energy=np.array(free, dtype=np.float64),
            expected=np.array(expected, dtype=np.int64) if max(expected) >= 0 else None,
            revisions=[update.revision for update in batch],
        )
        result, recorded, lost = await self._writer.write_each(write)
        failures = dict(result.failures())
        versions, repeated = result.versions.tolist(), (result.status == RowStatus.REPEATED).tolist()
        for row, update in enumerate(batch):
            if update.answer.done():
                continue
            moment = recorded[row]
            if row in lost:
                _fail(update, lost[row])
            elif row in failures or moment is None:
                update.answer.set_exception(_of_one(failures[row], row))
            else:
                update.answer.set_result(
                    Revision(
                        agent_id=update.agent_id,
                        revision=update.revision,
                        version=versions[row],
                        recorded_at=moment,
                        free_energy=update.free_energy,
                        repeated=repeated[row],
                    )
                )


def _of_one(error: PersistenceError, row: int) -> PersistenceError:
    """What is wrong with a row of the batch, as its caller knows it."""
    if not isinstance(error, InvalidInput):
        return error
    field = error.field.replace(f"revisions[{row}]", "revision").replace(f"[{row}]", "", 1)
    return InvalidInput(field, error.problem, error.remedy)


def _fail(update: _Update, error: BaseException) -> None:
    if update.answer.done():
        return
    own = copy_of(error)
    if isinstance(own, OutcomeUnknown):
        own.revisions = (update.revision,)
    update.answer.set_exception(own)
