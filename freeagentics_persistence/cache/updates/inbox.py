"""What one subscription has been given and waits for its caller, and how it comes to follow the channels.

It follows them, taking whatever is offered, or it is behind: then nothing is taken, and the caller's next wait reads
a page of the feed. What is offered during that read is kept aside, so that one joins the other without a break.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from uuid import UUID

from freeagentics_persistence.cache.updates.buffers import UpdateBuffer
from freeagentics_persistence.cache.updates.channel_follower import backoff
from freeagentics_persistence.cache.updates.feed import START
from freeagentics_persistence.cache.updates.feed_reader import OTHER_EPOCH
from freeagentics_persistence.cache.updates.hub import UpdateHub
from freeagentics_persistence.cache.updates.update_message import ReceivedMessage, format_position
from freeagentics_persistence.domain.events import FeedPosition
from freeagentics_persistence.errors import (
    AuthenticationFailed,
    SubscriberOverflow,
    Unavailable,
)

_log = logging.getLogger(__name__)


class Inbox:
    """Implements Listener. ``wait`` says that a full buffer is no error: the rest is read from the feed."""

    def __init__(
        self, hub: UpdateHub, tenant_id: UUID, agents: frozenset[str], buffer: UpdateBuffer, *, wait: bool
    ) -> None:
        self.tenant_id = tenant_id
        self.agents = agents
        self.buffer = buffer
        self._hub = hub
        self._wait = wait
        self._error: Exception | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._reached = START
        self._behind = True
        self._aside: UpdateBuffer | None = None
        self._reading: asyncio.Task[None] | None = None

    @property
    def position(self) -> FeedPosition:
        """Up to here everything has been taken."""
        return self._reached if self._behind else max(self._reached, self._hub.position(self))

    async def open(self, after: tuple[UUID, FeedPosition] | None) -> FeedPosition:
        """Begin after a position of an epoch, or from now: where. Raises what ``subscribe_to_agent_updates`` says."""
        self._hub.epoch.require()
        await self._hub.attach(self)
        try:
            if after is not None and after[0] == self._hub.epoch.id:
                start = self._reached = after[1]
                await self._read_page()
            else:
                self._aside = self.buffer.aside()
                start = self._reached = await self._hub.reader.newest(self.tenant_id)
                if after is not None:
                    raise self._hub.reader.gap(self._reached, self._reached, OTHER_EPOCH)
                self._join()
        except BaseException:
            await self.close()
            raise
        self._hub.epoch.listen(self.wake)
        return start

    async def close(self) -> None:
        """Take nothing more."""
        self.fall_behind()
        self._hub.epoch.ignore(self.wake)
        try:
            if self._reading is not None:
                self._reading.cancel()
                await asyncio.gather(self._reading, return_exceptions=True)
        finally:
            await self._hub.detach(self)

    async def more(self) -> None:
        """Wait until something may have come. Raises what has ended the subscription."""
        self.require()
        loop = asyncio.get_running_loop()
        if self._behind and self._reading is None:
            self._reading = loop.create_task(self._catch_up(), name="freeagentics catching up")
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def require(self) -> None:
        """Raise what has ended the subscription."""
        self._hub.epoch.require()
        if self._error is not None:
            raise self._error

    def wake(self) -> None:
        """Let all that wait look again."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def offer(self, messages: Sequence[ReceivedMessage], size: int) -> None:
        """See Listener."""
        if self._behind:
            if self._aside is not None and self._aside.add_all(messages, size) < len(messages):
                self._aside = None  # another page will be read
            return
        if messages[0].position <= self._reached:
            messages = [message for message in messages if self._reached < message.position]
            size = sum(message.size for message in messages)
        taken = self.buffer.add_all(messages, size)
        if taken:
            self._reached = messages[taken - 1].position
            if self._waiters:
                self.wake()
        if taken < len(messages):
            self._overflow()

    def fall_behind(self) -> None:
        """See Listener."""
        if not self._behind:
            self._reached, self._behind = self.position, True
        self._aside = None
        self.wake()

    def told_of_gap(self, gap: FeedPosition) -> None:
        """See Listener. Reading the feed then raises FeedGap."""
        if self.position < gap:
            self.fall_behind()

    def fail(self, error: Exception) -> None:
        """See Listener. What waits is handed over first."""
        self.fall_behind()
        self._error = self._error or error

    def _overflow(self) -> None:
        if self._wait:
            self.fall_behind()
            return
        self.fail(
            SubscriberOverflow(
                f"{len(self.buffer):,} updates wait in the subscriber's buffer, and there is no room for more. Take "
                "them faster, raise buffer= or buffer_bytes=, or choose another overflow=. To go on without losing "
                "one, subscribe with after=error.resume_after.",
                resume_after=format_position(self._hub.epoch.id, self.position),
            )
        )

    async def _catch_up(self) -> None:
        """Read pages until one has updates, or the channels are followed, however often Redis is away."""
        failures = 0
        try:
            while self._behind and not self.buffer and self._error is None:
                try:
                    await self._read_page()
                    failures = 0
                except AuthenticationFailed:
                    raise
                except Unavailable as error:
                    failures += 1
                    pause = backoff(failures)
                    _log.warning("subscription: %s Reading the feed again in %.2f s.", error, pause)
                    await asyncio.sleep(pause)
        except Exception as error:  # noqa: BLE001 - whatever ends it is raised to who takes updates
            self.fail(error)
        finally:
            self._reading = None
            self.wake()

    async def _read_page(self) -> None:
        self._aside = self.buffer.aside()
        page = await self._hub.reader.replay(self.tenant_id, self._reached, self.agents)
        self.buffer.refill(page.messages)
        self._reached = page.reached
        if page.gap is not None:
            self.fail(page.gap)
        elif page.end:
            self._join()

    def _join(self) -> None:
        """Follow the channels, where that leaves room enough; after another page otherwise."""
        aside, self._aside = self._aside, None
        if aside is not None and self.buffer.can_join(aside):
            self._behind = False
            while aside:
                message = aside.pop()
                self.offer((message,), message.size)
