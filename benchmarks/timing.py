"""What a measurement gives, and the loops that take it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import cycle

import numpy as np
import numpy.typing as npt

VALUE = "value"
PERCENTILES = (50, 95, 99)
CHOICES = 1 << 16


@dataclass(frozen=True, slots=True)
class Sample:
    """One slice of one contender: its figure in the unit of its row, and others by name, such as ``p95_ms``."""

    value: float
    more: Mapping[str, float] = field(default_factory=dict)

    def figure(self, name: str) -> float:
        """A figure by name; ``VALUE`` is the main one."""
        return self.value if name == VALUE else self.more[name]


class Stopwatch:
    """Counts what is done until the time is over."""

    def __init__(self, seconds: float) -> None:
        self._began = time.perf_counter()
        self._end = self._began + seconds
        self.done = 0

    @property
    def over(self) -> bool:
        """Whether the time is over."""
        return time.perf_counter() >= self._end

    def rate(self) -> float:
        """What was done per second, up to now."""
        return self.done / (time.perf_counter() - self._began)


def percentiles(seconds: npt.ArrayLike) -> dict[str, float]:
    """p50_ms, p95_ms and p99_ms of waits in seconds."""
    values = np.percentile(np.asarray(seconds) * 1000, PERCENTILES)
    return {f"p{share}_ms": float(value) for share, value in zip(PERCENTILES, values, strict=True)}


def chosen_rows(agents: int) -> Iterator[int]:
    """Numbers below ``agents``, uniformly chosen, without end."""
    return cycle(np.random.default_rng().integers(agents, size=CHOICES).tolist())


async def by_callers(callers: int, seconds: float, agents: int, call: Callable[[int], Awaitable[object]]) -> Sample:
    """Calls per second of so many callers, each of which waits for its answer before it calls again.

    ``call`` gets the number of a uniformly chosen agent. A quarter of the time before it warms up.
    """
    rows = chosen_rows(agents)

    async def caller(watch: Stopwatch, waits: list[float]) -> None:
        while not watch.over:
            began = time.perf_counter()
            await call(next(rows))
            waits.append(time.perf_counter() - began)
            watch.done += 1

    async def all_call(seconds: float) -> Sample:
        watch, waits = Stopwatch(seconds), list[float]()
        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(caller(watch, waits))
        return Sample(watch.rate(), percentiles(waits))

    await all_call(seconds / 4)
    return await all_call(seconds)


async def again_and_again(seconds: float, call: Callable[[], Awaitable[int]]) -> Sample:
    """What one caller's calls did per second, call after call; the first one warms up."""
    await call()
    watch, waits = Stopwatch(seconds), list[float]()
    while not watch.over:
        began = time.perf_counter()
        watch.done += await call()
        waits.append(time.perf_counter() - began)
    return Sample(watch.rate(), percentiles(waits))
