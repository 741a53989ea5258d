"""The store itself, through its public API: contenders that several rows share."""

from __future__ import annotations

from itertools import cycle
from typing import Literal

from benchmarks.swarm import Swarm
from benchmarks.timing import Sample, again_and_again, by_callers
from freeagentics_persistence import Persistence, Settings

RelayMode = Literal["auto", "off"]


class UpdateMany:
    """update_beliefs_many for the whole swarm, call after call."""

    def __init__(
        self, settings: Settings, swarm: Swarm, relay: RelayMode = "off", name: str = "update_beliefs_many"
    ) -> None:
        self.name = name
        self._settings, self._swarm, self._relay = settings, swarm, relay

    async def run(self, seconds: float) -> Sample:
        """Updates per second of an open store that is warm, and the percentiles of a call."""
        swarm, steps = self._swarm, cycle(self._swarm.steps)
        async with Persistence.open(self._settings, relay=self._relay) as store:

            async def step() -> int:
                result = await store.agents.update_beliefs_many(swarm.ids, next(steps), free_energy=swarm.free_energy)
                result.raise_for_conflicts()
                return len(swarm.ids)

            return await again_and_again(seconds, step)


class UpdateOne:
    """update_beliefs of uniformly chosen agents by many callers at once."""

    def __init__(
        self, settings: Settings, swarm: Swarm, callers: int, relay: RelayMode = "off", name: str = "update_beliefs"
    ) -> None:
        self.name = name
        self._settings, self._swarm, self._relay, self._callers = settings, swarm, relay, callers

    async def run(self, seconds: float) -> Sample:
        """Updates per second of an open store that is warm, and the percentiles of a call."""
        swarm, steps = self._swarm, cycle(self._swarm.steps)
        async with Persistence.open(self._settings, relay=self._relay) as store:

            async def update(row: int) -> None:
                energy = float(swarm.free_energy[row])
                await store.agents.update_beliefs(swarm.ids[row], next(steps)[row], free_energy=energy)

            return await by_callers(self._callers, seconds, len(swarm.ids), update)
