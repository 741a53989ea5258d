"""What all rows share: the servers, the swarm, and the limits that were found for it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, cast

from benchmarks.place import Place, open_place
from benchmarks.row import CannotRunError
from benchmarks.swarm import Swarm, make_swarm
from tests.support.influx import InfluxServer, find_influxd, running_influxd

T = TypeVar("T")


@dataclass(slots=True)
class Scene:
    """One run of the suite. ``say`` takes a line of progress."""

    root: Path
    place: Place
    say: Callable[[str], None]
    stack: AsyncExitStack
    best_in_server: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    _swarm: Swarm | None = None
    _influx: InfluxServer | None = None
    _kept: dict[str, tuple[object, object, AsyncExitStack]] = field(default_factory=dict)

    async def swarm(self, agents: int, dimension: int) -> Swarm:
        """The swarm of that size, made where another one is there."""
        found = self._swarm
        if found is None or (len(found.ids), found.dimension) != (agents, dimension):
            self.say(f"making {agents:,} agents, d={dimension}")
            self._swarm = found = await make_swarm(self.place, agents, dimension)
        return found

    async def keep(self, name: str, subject: object, opened: AbstractAsyncContextManager[T]) -> T:
        """What stays open from row to row while it is about the same subject: ``opened``, or the one that is open."""
        if name in self._kept:
            known, value, stack = self._kept[name]
            if known is subject:
                return cast("T", value)
            await stack.aclose()
        stack = await self.stack.enter_async_context(AsyncExitStack())
        made = await stack.enter_async_context(opened)
        self._kept[name] = subject, made, stack
        return made

    def forget_swarm(self) -> None:
        """The tables were changed: the next one who asks for a swarm gets a new one."""
        self._swarm = None

    @asynccontextmanager
    async def another_place(self, name: str) -> AsyncIterator[Place]:
        """Servers of one row's own, in a folder beside, which goes with them."""
        async with open_place(self.root / name, self.say) as place:
            yield place
        await asyncio.to_thread(shutil.rmtree, self.root / name, ignore_errors=True)

    def require_disk(self, gigabytes: float, what: str) -> None:
        """Raise CannotRunError where there is less room than that."""
        free = shutil.disk_usage(self.root).free / 1e9
        if free < gigabytes:
            raise CannotRunError(
                f"{what} take up to {gigabytes:.0f} GB of disk and {free:.0f} GB are free: name a larger --data-folder."
            )

    def influx(self) -> InfluxServer:
        """A running InfluxDB, started when it is first asked for. Raises CannotRunError where there is none."""
        if self._influx is None:
            program = find_influxd()
            if program is None:
                raise CannotRunError("influxd was not found: run `make servers`, which builds it.")
            self.say(f"starting {program}")
            self._influx = self.stack.enter_context(running_influxd(program))
        return self._influx

    def influx_if_any(self) -> InfluxServer | None:
        """As ``influx``; None where there is none."""
        try:
            return self.influx()
        except CannotRunError:
            return None
