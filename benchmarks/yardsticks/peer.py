"""The peer that a user might pick instead: langgraph-checkpoint-postgres, used as its documentation shows."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count, cycle
from typing import Any

from benchmarks.place import Place
from benchmarks.row import CannotRunError
from benchmarks.swarm import Swarm

DATABASE = "peer"
POOL_SIZE = 10
CHANNEL = "beliefs"
Call = Callable[[int], Awaitable[object]]


@asynccontextmanager
async def open_peer(place: Place, swarm: Swarm) -> AsyncIterator[tuple[Call, Call]]:
    """Its put and its get of agent number n, one thread an agent, over a pool as large as the store's own.

    The bytes are those of the agent's numbers, as they are: it seals nothing. Raises CannotRunError.
    """
    try:
        saver_module = importlib.import_module("langgraph.checkpoint.postgres.aio")
        base = importlib.import_module("langgraph.checkpoint.base")
        pools, rows = importlib.import_module("psycopg_pool"), importlib.import_module("psycopg.rows")
    except ImportError as error:
        raise CannotRunError(f"{error}: install requirements/bench.txt, as `make bench` does.") from None
    await place.server.make_database(DATABASE)
    options = {"autocommit": True, "prepare_threshold": 0, "row_factory": rows.dict_row}
    url = place.admin_url_of(DATABASE)
    pool = pools.AsyncConnectionPool(
        url, min_size=POOL_SIZE, max_size=POOL_SIZE, kwargs=options, open=False, timeout=600
    )
    async with pool:
        saver = saver_module.AsyncPostgresSaver(pool)
        await saver.setup()
        steps, numbers = cycle(swarm.steps), count(1)

        def config(row: int) -> dict[str, Any]:
            return {"configurable": {"thread_id": str(swarm.ids[row]), "checkpoint_ns": ""}}

        async def put(row: int) -> None:
            version = f"{next(numbers):032}.0"
            checkpoint = base.empty_checkpoint()
            checkpoint["channel_values"] = {CHANNEL: next(steps)[row].tobytes()}
            checkpoint["channel_versions"] = {CHANNEL: version}
            await saver.aput(config(row), checkpoint, {"source": "loop", "step": 1}, {CHANNEL: version})

        async def get(row: int) -> None:
            found = await saver.aget_tuple(config(row))
            if found is None or len(found.checkpoint["channel_values"][CHANNEL]) != swarm.dimension * 8:
                raise RuntimeError(f"thread {swarm.ids[row]} is not whole")

        for row in range(len(swarm.ids)):
            await put(row)
        yield put, get
