"""Reads through the cache and from PostgreSQL, and how long a committed update takes to its subscriber."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np

from benchmarks.plan import Plan
from benchmarks.server import Server, Stopwatch
from benchmarks.swarm import Swarm
from freeagentics_persistence import ALL, DEFAULT_TENANT_ID, Persistence, Settings

LEVELS: Sequence[tuple[str, Literal["session", "strong"]]] = (("cached", "session"), ("strong", "strong"))
PERCENTILES = (50, 95, 99)


@dataclass(frozen=True, slots=True)
class Read:
    """``agents_per_second`` read by one caller, and the median milliseconds of a call."""

    name: str
    agents_per_second: float
    milliseconds: float


async def measure_reads(settings: Settings, server: Server, swarm: Swarm, plan: Plan) -> list[Read]:
    """Single and whole-swarm reads at both levels; every agent is in the cache, written by this very store."""
    await server.level(DEFAULT_TENANT_ID)
    found = []
    async with Persistence.open(settings, relay="off") as store:
        agents, step = store.agents, swarm.steps[0]
        (await agents.update_beliefs_many(swarm.ids, step, free_energy=swarm.free_energy)).raise_for_conflicts()
        for title, level in LEVELS:
            rows = iter(range(10**9))

            async def one(level: Literal["session", "strong"] = level) -> int:
                row = next(rows) % len(swarm.ids)  # noqa: B023 - runs before the next turn
                beliefs = await agents.get_beliefs(swarm.ids[row], consistency=level)
                if beliefs is None or not np.array_equal(beliefs.factors[0].values, step[row]):
                    raise RuntimeError(f"agent {swarm.ids[row]} does not hold what was written")
                return 1

            async def many(level: Literal["session", "strong"] = level) -> int:
                batch = await agents.get_beliefs_many(swarm.ids, consistency=level)
                if not np.array_equal(batch.factors[0], step):
                    raise RuntimeError("the swarm does not hold what was written")
                return len(batch)

            found.append(await _timed(f"get_beliefs, {title}", one, plan.read_seconds))
            found.append(await _timed(f"get_beliefs_many({len(swarm.ids):,}), {title}", many, plan.read_seconds))
    return found


async def measure_latency(settings: Settings, server: Server, swarm: Swarm, plan: Plan) -> dict[str, float]:
    """Milliseconds from an update's ``timestamp``, which PostgreSQL takes before it commits, to its subscriber."""
    await server.level(DEFAULT_TENANT_ID)
    waits: list[float] = []
    async with Persistence.open(settings, relay="auto") as store, store.updates.subscribe_to_agent_updates(ALL) as seen:

        async def listen() -> None:
            async for update in seen:
                waits.append((datetime.now(UTC) - update.timestamp).total_seconds() * 1000)
                if len(waits) == plan.latency_updates:
                    return

        listener = asyncio.create_task(listen())
        began = time.perf_counter()
        for number in range(plan.latency_updates):
            row = number % len(swarm.ids)
            await asyncio.sleep(max(0.0, began + number / plan.latency_rate - time.perf_counter()))
            await store.agents.update_beliefs(swarm.ids[row], swarm.steps[1][row])
        async with asyncio.timeout(30):
            await listener
    waits = waits[len(waits) // 10 :]  # the first tenth warms up
    return {f"p{share}": float(np.percentile(waits, share)) for share in PERCENTILES}


async def _timed(name: str, call: Callable[[], Awaitable[int]], seconds: float) -> Read:
    for _ in range(3):
        await call()
    times = []
    watch = Stopwatch(seconds)
    while not watch.over:
        began = time.perf_counter()
        watch.done += await call()
        times.append(time.perf_counter() - began)
    return Read(name, watch.rate(), float(np.median(times)) * 1000)
