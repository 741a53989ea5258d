"""Single reads that wait at the same time travel together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from itertools import islice
from typing import Any, Generic, TypeVar, cast

from freeagentics_persistence.database.shared_errors import copy_of
from freeagentics_persistence.errors import Overloaded, PersistenceError, StoreClosed

# small enough that some callers are answered while other flights are under way, instead of all at once, and that what
# was read is still in the processor's cache when it is opened
MAX_KEYS = 64
FLIGHTS = 3
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SharedReads(Generic[K, V]):
    """Leaves at once when idle; what is asked for meanwhile shares the next flight, each key once. Bounded.

    ``read(keys)`` gives one value for each key, or the error that those who asked for this key alone are to get; what
    it raises, all of that flight get. A call is answered by a flight that left after it was made. A caller that is
    cancelled leaves the others undisturbed.
    """

    def __init__(self, read: Callable[[Sequence[K]], Awaitable[Sequence[V | PersistenceError]]], *, limit: int) -> None:
        self._read = read
        self._limit = limit
        self._waiting: dict[K, list[asyncio.Future[V]]] = {}
        self._count = 0
        self._flights: set[asyncio.Task[None]] = set()
        self._closed = False

    async def get(self, key: K) -> V:
        """One value. Raises Overloaded, StoreClosed, and what the read raises."""
        if self._closed:
            raise StoreClosed
        if self._count >= self._limit:
            raise Overloaded(
                f"{self._limit:,} single reads are waiting already. Slow down, read many agents in one call, or raise "
                "DATABASE_READ_QUEUE."
            )
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[V] = loop.create_future()
        self._waiting.setdefault(key, []).append(answer)
        self._count += 1
        if len(self._flights) < FLIGHTS:
            task = loop.create_task(self._fly(), name="freeagentics shared reads")
            self._flights.add(task)
            task.add_done_callback(self._flights.discard)  # for one that is cancelled before it begins
        return await answer

    async def close(self) -> None:
        """End those who wait with StoreClosed, and take no more: a server that hangs must not hold up closing."""
        self._closed = True
        flights = list(self._flights)
        for flight in flights:
            flight.cancel()
        self._refuse_waiting()
        if flights:
            await asyncio.wait(flights)

    async def _fly(self) -> None:
        try:
            await asyncio.sleep(0)  # lets callers of the same turn of the loop join
            while taken := self._take():
                try:
                    found = await self._read(list(taken))
                except Exception as error:  # noqa: BLE001 - every caller is told, and the next flight leaves
                    _fail(taken, error)
                except asyncio.CancelledError:
                    _fail(taken, StoreClosed())
                    self._refuse_waiting()
                    raise
                else:
                    _answer(taken, found)
        finally:
            # at once: whoever comes now must not count on a flight that has looked for the last time
            self._flights.discard(cast(asyncio.Task[None], asyncio.current_task()))

    def _take(self) -> dict[K, list[asyncio.Future[V]]]:
        """The keys that have waited longest, of those that someone still waits for."""
        while self._waiting:
            taken, self._waiting = self._waiting, {}
            if len(taken) > MAX_KEYS:
                self._waiting = dict(islice(taken.items(), MAX_KEYS, None))
                taken = dict(islice(taken.items(), MAX_KEYS))
            self._count -= sum(map(len, taken.values()))
            wanted = {key: answers for key, answers in taken.items() if not all(map(_is_done, answers))}
            if wanted:
                return wanted
        return {}

    def _refuse_waiting(self) -> None:
        waiting, self._waiting, self._count = self._waiting, {}, 0
        _fail(waiting, StoreClosed())


def _is_done(answer: asyncio.Future[Any]) -> bool:
    return answer.done()


def _answer(taken: dict[K, list[asyncio.Future[V]]], found: Sequence[V | PersistenceError]) -> None:
    for (key, answers), value in zip(taken.items(), found, strict=True):
        if isinstance(value, PersistenceError):
            _fail({key: answers}, value)
            continue
        for answer in answers:
            if not answer.done():
                answer.set_result(value)


def _fail(taken: dict[K, list[asyncio.Future[V]]], error: Exception) -> None:
    for answers in taken.values():
        for answer in answers:
            if not answer.done():
                answer.set_exception(copy_of(error))
