"""The store itself, through its public API."""

from __future__ import annotations

import asyncio
from itertools import cycle
from typing import Literal

from benchmarks.server import Stopwatch
from benchmarks.swarm import Swarm
from freeagentics_persistence import Persistence, Settings

RelayMode = Literal["auto", "off"]
WITH_RELAY: dict[RelayMode, str] = {"auto": ", relay", "off": ""}


class UpdateMany:
    """update_beliefs_many for the whole swarm, call after call."""

    def __init__(self, settings: Settings, swarm: Swarm, relay: RelayMode) -> None:
        self.name = f"update_beliefs_many{WITH_RELAY[relay]}"
        self._settings, self._swarm, self._relay = settings, swarm, relay

    async def run(self, seconds: float) -> float:
        """Updates per second of an open store that is warm."""
        swarm = self._swarm
        async with Persistence.open(self._settings, relay=self._relay) as store:
            steps = cycle(swarm.steps)

            async def step() -> None:
                result = await store.agents.update_beliefs_many(swarm.ids, next(steps), free_energy=swarm.free_energy)
                result.raise_for_conflicts()

            await step()
            watch = Stopwatch(seconds)
            while not watch.over:
                await step()
                watch.done += len(swarm.ids)
            return watch.rate()


class UpdateOne:
    """update_beliefs by many callers at once; each waits for its update before it makes the next."""

    def __init__(self, settings: Settings, swarm: Swarm, relay: RelayMode, callers: int) -> None:
        self.name = f"update_beliefs x{callers}{WITH_RELAY[relay]}"
        self._settings, self._swarm, self._relay, self._callers = settings, swarm, relay, callers

    async def run(self, seconds: float) -> float:
        """Updates per second of an open store that is warm."""
        swarm, callers = self._swarm, self._callers
        async with Persistence.open(self._settings, relay=self._relay) as store:

            async def call(caller: int, watch: Stopwatch) -> None:
                rows = cycle(range(caller, len(swarm.ids), callers))
                for step in cycle(swarm.steps):
                    row = next(rows)
                    await store.agents.update_beliefs(
                        swarm.ids[row], step[row], free_energy=float(swarm.free_energy[row])
                    )
                    watch.done += 1
                    if watch.over:
                        return

            async def all_call(seconds: float) -> float:
                watch = Stopwatch(seconds)
                await asyncio.gather(*(call(caller, watch) for caller in range(callers)))
                return watch.rate()

            await all_call(seconds / 4)
            return await all_call(seconds)
