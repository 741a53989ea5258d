"""Single reads that wait at the same time travel together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from itertools import chain
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
        self._waiting: deque[tuple[K, asyncio.Future[V]]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._flights: set[asyncio.Task[None]] = set()
        self._closed = False

    async def get(self, key: K) -> V:
        """One value. Raises Overloaded, StoreClosed, and what the read raises."""
        if self._closed:
            raise StoreClosed
        if len(self._waiting) >= self._limit:
            raise Overloaded(
                f"{self._limit:,} single reads are waiting already. Slow down, read many agents in one call, or raise "
                "DATABASE_READ_QUEUE."
            )
        if len(self._flights) < FLIGHTS:
            self._loop = asyncio.get_running_loop()
            task = self._loop.create_task(self._fly(), name="freeagentics shared reads")
            self._flights.add(task)
            task.add_done_callback(self._flights.discard)  # for one that is cancelled before it begins
        answer: asyncio.Future[V] = asyncio.Future(loop=self._loop)  # of the loop that all flights are on
        self._waiting.append((key, answer))
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
                    _fail(chain.from_iterable(taken.values()), error)
                except asyncio.CancelledError:
                    _fail(chain.from_iterable(taken.values()), StoreClosed())
                    self._refuse_waiting()
                    raise
                else:
                    _answer(taken, found)
        finally:
            # at once: whoever comes now must not count on a flight that has looked for the last time
            self._flights.discard(cast(asyncio.Task[None], asyncio.current_task()))

    def _take(self) -> dict[K, list[asyncio.Future[V]]]:
        """The keys that have waited longest, of those that someone still waits for."""
        taken: dict[K, list[asyncio.Future[V]]] = {}
        waiting = self._waiting
        while waiting and len(taken) < MAX_KEYS:
            key, answer = waiting.popleft()
            if not answer.done():
                taken.setdefault(key, []).append(answer)
        return taken

    def _refuse_waiting(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        for _, answer in waiting:
            _fail([answer], StoreClosed())


def _answer(taken: dict[K, list[asyncio.Future[V]]], found: Sequence[V | PersistenceError]) -> None:
    for answers, value in zip(taken.values(), found, strict=True):
        if isinstance(value, PersistenceError):
            _fail(answers, value)
            continue
        for answer in answers:
            if not answer.done():
                answer.set_result(value)


def _fail(answers: Iterable[asyncio.Future[Any]], error: Exception) -> None:
    for answer in answers:
        if not answer.done():
            answer.set_exception(copy_of(error))
