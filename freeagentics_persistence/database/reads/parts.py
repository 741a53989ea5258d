"""Reads of many in parts, so that one part is opened while PostgreSQL or Redis reads the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar
from uuid import UUID

PART_IDS = 1000
T = TypeVar("T")


async def in_parts(ids: Sequence[UUID], at_once: int, read: Callable[[Sequence[UUID]], Awaitable[T]]) -> list[T]:
    """What ``read`` gives for the parts of ``ids``, in their order; so many parts are under way at once.

    All run to their end, also when one fails; raises the error of the first that did.
    """
    slots = asyncio.Semaphore(at_once)

    async def one(start: int) -> T:
        async with slots:
            return await read(ids[start : start + PART_IDS])

    if len(ids) <= PART_IDS:
        return [await one(0)]
    found: list[T] = []
    for ended in await asyncio.gather(*map(one, range(0, len(ids), PART_IDS)), return_exceptions=True):
        if isinstance(ended, BaseException):
            raise ended
        found.append(ended)
    return found
