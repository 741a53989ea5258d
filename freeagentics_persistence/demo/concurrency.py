"""Running many small calls, some at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


async def together(at_once: int, calls: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """The results of all calls in their order, ``at_once`` of them under way at a time.

    Where one raises, the others are cancelled and that error is raised as it is, in no group.
    """
    slots = asyncio.Semaphore(at_once)

    async def run(call: Callable[[], Awaitable[T]]) -> T:
        async with slots:
            return await call()

    tasks = [asyncio.ensure_future(run(call)) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
