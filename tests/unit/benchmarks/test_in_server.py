"""The yardstick counts what all of its connections wrote."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from benchmarks.place import Place
from benchmarks.timing import Stopwatch
from benchmarks.yardsticks.in_server import InServer

ROWS = 10


class Connection:
    """Writes after others had their turn."""

    def __init__(self) -> None:
        self.written = 0

    async def fetchval(self, *_: object) -> int:
        await asyncio.sleep(0.001)
        self.written += ROWS
        return ROWS


@pytest.mark.parametrize("count", [1, 2])
async def test_what_each_connection_wrote_is_counted_once(count: int) -> None:
    contender = InServer(cast(Place, None), 1000, rows=ROWS, connections=count)
    watch, connections = Stopwatch(0.05), [Connection() for _ in range(count)]
    await asyncio.gather(*(contender._write(i, cast(Any, each), watch) for i, each in enumerate(connections)))
    assert watch.done == sum(each.written for each in connections) > ROWS
