"""A subscription: updates in a bounded buffer, taken one by one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Literal
from uuid import UUID

from freeagentics_persistence.cache.connection import RedisConnection
from freeagentics_persistence.cache.updates.feed_follower import FeedFollower
from freeagentics_persistence.cache.updates.update_message import (
    AgentUpdate,
    ReceivedMessage,
    decode_update,
    format_position,
)
from freeagentics_persistence.domain.epochs import Epoch
from freeagentics_persistence.domain.events import FeedPosition
from freeagentics_persistence.errors import SubscriberOverflow, UpdatesError
from freeagentics_persistence.ports.sealing import Sealer

Overflow = Literal["error", "wait", "drop_oldest"]
OnSeen = Callable[[UUID, UUID, int], None]


class Subscription:
    """Updates as they come; made by ``subscribe_to_agent_updates``.

    Use it as ``async with ... as updates:`` with ``async for update in updates:`` or ``await anext(updates)``.
    A lost connection is made again and what was missed is read from the feed. Iterating raises FeedGap where updates
    are gone for good, NewEpoch where the database began a new one (open the store again), StoreClosed once the store
    is closed, SubscriberOverflow, AuthenticationFailed, and UpdatesError for a message that is none; what had come
    before is handed over first.
    ``dropped`` counts what overflow="drop_oldest" has dropped.
    """

    def __init__(
        self,
        connection: RedisConnection,
        follower: FeedFollower,
        sealer: Sealer,
        on_seen: OnSeen,
        *,
        epoch: Epoch,
        after: tuple[UUID, FeedPosition] | None,
        buffer: int,
        overflow: Overflow,
    ) -> None:
        self._connection = connection
        self._follower = follower
        self._sealer = sealer
        self._on_seen = on_seen
        self._epoch = epoch
        self._after = after
        self._limit = buffer
        self._overflow = overflow
        self._buffer: deque[ReceivedMessage] = deque()
        self._handed_over: FeedPosition | None = None
        self._ready = asyncio.Event()
        self._room = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.dropped = 0

    @property
    def position(self) -> str:
        """Up to here every update was handed over; subscribe with ``after=position`` to go on."""
        done = self._handed_over if self._buffer else self._follower.position
        return format_position(self._epoch.id, self._follower.position if done is None else done)

    async def __aenter__(self) -> Subscription:
        if self._task is not None:
            raise UpdatesError("this subscription was used before. Make a new one with after=position.")
        self._epoch.require()
        self._connection.claim_channel()
        try:
            await self._follower.start(self._after)
        except BaseException:
            await self._follower.close()
            self._connection.release_channel()
            raise
        self._handed_over = self._follower.position
        self._task = asyncio.get_running_loop().create_task(
            self._follower.follow(self._keep), name="freeagentics updates"
        )
        self._task.add_done_callback(lambda _: self._ready.set())
        self._epoch.listen(self._stop)
        return self

    async def __aexit__(self, *_: object) -> None:
        task = self._task
        if task is None:
            return
        self._epoch.ignore(self._stop)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await self._follower.close()
        self._connection.release_channel()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> AgentUpdate:
        task = self._task
        if task is None:
            raise UpdatesError("the subscription is not open. Use it as: async with ... as updates")
        while not self._buffer:
            if task.done():
                self._epoch.require()
                if task.cancelled():
                    raise StopAsyncIteration
                task.result()
            self._ready.clear()
            await self._ready.wait()
        message = self._buffer.popleft()
        self._room.set()
        update = decode_update(message, self._sealer)
        self._handed_over = message.position
        self._on_seen(update.tenant_id, update.agent_id, update.version)
        return update

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _keep(self, message: ReceivedMessage) -> None:
        while len(self._buffer) >= self._limit:
            if self._overflow == "error":
                raise SubscriberOverflow(
                    f"{self._limit:,} updates wait in the subscriber's buffer. Take them faster, raise buffer=, or use "
                    "overflow='wait' or 'drop_oldest'. To go on without losing one, subscribe with "
                    "after=error.resume_after.",
                    resume_after=format_position(self._epoch.id, self._follower.position),
                )
            if self._overflow == "drop_oldest":
                self._buffer.popleft()
                self.dropped += 1
            else:
                self._room.clear()
                await self._room.wait()
        self._buffer.append(message)
        self._ready.set()
