"""Reads the outbox once for all sinks of a process that are at the same place.

A reading is a step of a chain: it begins where the one before it ended, and whoever has taken a step finds the next
one at it, or makes it. A sink that has been left behind, or comes from elsewhere, makes steps of its own; as it opens
its rounds at the newest snapshot that is known here, it ends where the others are, and shares their steps from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from weakref import WeakValueDictionary

import asyncpg

from freeagentics_persistence.relay.outbox_reader import OutboxReader, Reading, Start

WINDOW = 2  # how many batches a sink may be ahead of another that shares with it
PATIENCE = 0.5  # seconds for which it then waits, before it leaves the other behind


@dataclass(slots=True, eq=False, weakref_slot=True)
class _Step:
    """A reading, made or under way. ``before`` is the weight of the chain before it, ``looks`` how many there were."""

    read: asyncio.Task[Reading]
    looks: int
    chain: int
    before: float
    next: _Step | None = None

    @property
    def failed(self) -> bool:
        return self.read.done() and (self.read.cancelled() or self.read.exception() is not None)


class SharedReader:
    """Reads over one connection of its own, for any number of followers."""

    def __init__(self, connect: Callable[[], Awaitable[asyncpg.Connection]], batch_events: int) -> None:
        self._outbox = OutboxReader(connect, batch_events)
        self._steps: WeakValueDictionary[Start, _Step] = WeakValueDictionary()
        self._tasks: set[asyncio.Task[Reading]] = set()
        self._followers: set[Follower] = set()
        self._moved = asyncio.Event()
        self._chains = count()

    def follow(self) -> Follower:
        """Someone who goes from step to step; to be closed."""
        follower = Follower(self)
        self._followers.add(follower)
        return follower

    async def close(self) -> None:
        """Read no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._outbox.close()

    def leave(self, follower: Follower) -> None:
        """Wait for that one no longer."""
        self._followers.discard(follower)
        self._moved.set()

    def begin(self, start: Start, since: int, after: _Step | None) -> _Step:
        """The step from there, made where there is none."""
        known = self._steps.get(start)
        if known is None or not self._serves(known, since):
            task = asyncio.get_running_loop().create_task(self._outbox.read(start, since), name="freeagentics reading")
            self._tasks.add(task)
            task.add_done_callback(self._ended)
            chain, before = (next(self._chains), 0.0) if after is None else (after.chain, _weight_up_to(after))
            known = self._steps[start] = _Step(task, self.looks, chain, before)
        if after is not None:
            after.next = known
        return known

    def is_known(self, start: Start, since: int) -> bool:
        """Whether someone has made the step from there, and it is remembered."""
        known = self._steps.get(start)
        return known is not None and self._serves(known, since)

    @property
    def looks(self) -> int:
        """How many looks were begun."""
        return self._outbox.looks

    def mark(self) -> int:
        """See OutboxReader.mark."""
        return self._outbox.mark()

    @staticmethod
    def _serves(step: _Step, since: int) -> bool:
        return not step.failed and step.looks >= since

    def moved(self) -> None:
        """Someone has gone on."""
        self._moved.set()

    def those_behind(self, follower: Follower) -> list[_Step]:
        """Where those are who share with this one and are far behind."""
        return [step for other in self._followers if (step := other.step) and _is_behind(step, follower.step)]

    async def wait_for_others(self, follower: Follower) -> None:
        """Where someone is far behind, wait for a moment, then leave them behind."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE
        while True:
            self._moved.clear()
            behind = self.those_behind(follower)
            if not behind:
                return
            try:
                async with asyncio.timeout_at(deadline):
                    await self._moved.wait()
            except TimeoutError:
                for step in behind:
                    step.next = None
                return

    def _ended(self, task: asyncio.Task[Reading]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # told to whoever asks for the step, which may be nobody


class Follower:
    """Goes from step to step, one at a time."""

    def __init__(self, shared: SharedReader) -> None:
        self._shared = shared
        self.step: _Step | None = None

    async def next(self, start: Start, since: int) -> Reading:
        """What begins there. ``since`` is the number of a look that was taken no earlier than ``start.done``.

        Raises what reading raises, whoever of those who share it began it.
        """
        if not self._shared.is_known(start, since):
            await self._shared.wait_for_others(self)
        self.step = self._shared.begin(start, since, self.step)
        self._shared.moved()
        return await asyncio.shield(self.step.read)

    def look_ahead(self, start: Start, since: int) -> None:
        """Begin to read from there already, within the round."""
        if not self._shared.those_behind(self):
            self._shared.begin(start, since, self.step)

    def close(self) -> None:
        """Go no further."""
        self.step = None
        self._shared.leave(self)


def _weight_up_to(step: _Step) -> float:
    return step.before + (step.read.result().weight if step.read.done() and not step.failed else 0.0)


def _is_behind(step: _Step, ahead: _Step | None) -> bool:
    return (
        ahead is not None
        and step.next is not None
        and step.chain == ahead.chain
        and (_weight_up_to(ahead) - _weight_up_to(step) >= WINDOW)
    )
