"""A subscription: updates taken one by one."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from freeagentics_persistence.cache.updates.feed import START
from freeagentics_persistence.cache.updates.inbox import Inbox
from freeagentics_persistence.cache.updates.update_message import AgentUpdate, OnSeen, format_position
from freeagentics_persistence.domain.events import FeedPosition
from freeagentics_persistence.errors import UpdatesError
from freeagentics_persistence.ports.sealing import Sealer


class Subscription:
    """Updates as they come; made by ``subscribe_to_agent_updates``.

    Use it as ``async with ... as updates:`` with ``async for update in updates:`` or ``await anext(updates)``.
    A lost connection is made again and what was missed is read from the feed. Iterating raises FeedGap where updates
    are gone for good, NewEpoch where the database began a new one (open the store again), StoreClosed once the store
    is closed, SubscriberOverflow, AuthenticationFailed, and UpdatesError for a message that is none; what had come
    before is handed over first.
    """

    def __init__(
        self, inbox: Inbox, epoch: UUID, sealer: Sealer, on_seen: OnSeen, *, after: tuple[UUID, FeedPosition] | None
    ) -> None:
        self._inbox = inbox
        self._buffer = inbox.buffer
        self._pop = inbox.buffer.pop
        self._epoch = epoch
        self._sealer = sealer
        self._on_seen = on_seen
        self._after = after
        self._state: Literal["new", "entering", "open", "closed"] = "new"
        self._handed_over = START

    @property
    def dropped(self) -> int:
        """How many updates overflow="drop_oldest", "drop_newest" or "latest" has passed over."""
        return self._buffer.dropped

    @property
    def position(self) -> str:
        """Up to here every update was handed over; subscribe with ``after=position`` to go on."""
        return format_position(self._epoch, self._handed_over if self._buffer else self._inbox.position)

    async def __aenter__(self) -> Subscription:
        if self._state != "new":
            raise UpdatesError("this subscription was used before. Make a new one with after=position.")
        self._state = "entering"
        self._handed_over = await self._inbox.open(self._after)
        self._state = "open"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._state == "open":
            self._state = "closed"
            await self._inbox.close()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> AgentUpdate:
        while True:
            try:
                message = self._pop()
            except IndexError:
                await self._more()
            else:
                break
        update = message.update or message.decode(self._sealer, self._on_seen)
        self._handed_over = message.position
        return update

    async def _more(self) -> None:
        if self._state == "open":
            await self._inbox.more()
        elif self._state == "closed":
            self._inbox.require()
            raise StopAsyncIteration
        else:
            raise UpdatesError("the subscription is not open. Use it as: async with ... as updates")
