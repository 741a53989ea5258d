"""Follows channels over one connection: what comes is read once, and offered to everyone who follows it.

Redis sends what is followed and nothing else. After a lost connection the channels are subscribed to again, and what
was missed is read from the feed, once for all listeners of a tenant.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

from freeagentics_persistence.cache.connection import RedisConnection
from freeagentics_persistence.cache.keys import EpochKeys
from freeagentics_persistence.cache.updates.audience import Audience, FollowedTenant, Place
from freeagentics_persistence.cache.updates.channels import ChannelConnection, Received
from freeagentics_persistence.cache.updates.feed_marker import from_sortable
from freeagentics_persistence.cache.updates.feed_reader import FeedReader
from freeagentics_persistence.cache.updates.update_message import ReceivedMessage, read_message
from freeagentics_persistence.domain.epochs import Epoch
from freeagentics_persistence.domain.events import FeedPosition
from freeagentics_persistence.errors import (
    AuthenticationFailed,
    TimedOut,
    Unavailable,
    UpdatesError,
)

CHUNK = 10_000  # channels that are asked for at once
HEALTH_SECONDS = 5.0
MAX_BACKOFF_SECONDS = 2.0
_SILENT = "Redis does not answer on the subscriptions' connection. Run `freeagentics-db check`."
_log = logging.getLogger(__name__)


def backoff(failures: int) -> float:
    """Seconds to wait after so many failures in a row."""
    return min(MAX_BACKOFF_SECONDS, 0.05 * 2 ** min(failures, 10)) * random.uniform(0.5, 1.0)  # noqa: S311


class ChannelFollower:
    """Keeps a connection to the audience's channels until it is closed."""

    def __init__(
        self, connection: RedisConnection, epoch: Epoch, reader: FeedReader, audience: Audience, *, health: float
    ) -> None:
        self._epoch = epoch
        self._reader = reader
        self._audience = audience
        self._health = health
        self._timeout = connection.timeout
        self._gaps_channel = EpochKeys(epoch.id).gaps_channel
        self._link = ChannelConnection(connection)
        self._connected = False
        self._asked = self._answered = 0
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._checked: dict[UUID, FeedPosition] = {}
        self._gathered: list[Place] = []
        self._last: tuple[bytes, FollowedTenant, ReceivedMessage] | None = None
        self._task = asyncio.get_running_loop().create_task(self._follow(), name="freeagentics updates")
        epoch.listen(self._end)

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._task.done()

    async def subscribe(self, channels: Sequence[str]) -> None:
        """Follow these too, and return when they are followed. Raises what keeps the connection away."""
        self._asked += 1
        number, waiter = self._asked, asyncio.get_running_loop().create_future()
        self._waiting[number] = waiter
        try:
            async with asyncio.timeout(self._timeout):
                if self._connected:
                    with suppress(Unavailable):  # a lost connection is made again with all channels
                        if channels:
                            await self._link.subscribe(channels)
                        await self._link.ping(str(number))
                await waiter
        except TimeoutError:
            raise TimedOut(_SILENT) from None
        finally:
            self._waiting.pop(number, None)

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        """Follow these no longer."""
        if self._connected and channels:
            with suppress(Unavailable):
                await self._link.unsubscribe(channels)

    async def close(self) -> None:
        """End, and close the connection."""
        self._end()
        await asyncio.gather(self._task, return_exceptions=True)

    def _end(self) -> None:
        self._epoch.ignore(self._end)
        self._task.cancel()
        self._release(None)

    async def _follow(self) -> None:
        failures = 0
        try:
            while True:
                try:
                    await self._connect()
                    for tenant in list(self._audience.tenants.values()):
                        await self._replay(tenant)
                    failures = 0
                    await self._live()
                except AuthenticationFailed:
                    raise
                except Unavailable as error:
                    self._connected = False
                    self._release(error)
                    failures += 1
                    pause = backoff(failures)
                    _log.warning("subscriptions: %s Connecting again in %.2f s.", error, pause)
                    await asyncio.sleep(pause)
        except Exception as error:  # noqa: BLE001 - whatever ends it is raised to everyone
            self._release(error)
            for tenant in self._audience.tenants.values():
                for listener in tenant.everyone():
                    listener.fail(error)
        finally:
            self._connected = False
            await self._link.close()

    async def _connect(self) -> None:
        """Follow the audience's channels. What comes before all are followed is in the feed, which is read then."""
        await self._link.open([self._gaps_channel])
        self._connected = True
        channels = sorted(self._audience.channels)  # later ones are asked for by whoever adds them
        for first in range(0, len(channels), CHUNK):
            known = [channel for channel in channels[first : first + CHUNK] if channel in self._audience.channels]
            if known:
                await self._link.subscribe(known)
                await self._hear(offer=False)
        self._release(None, self._answered)

    async def _replay(self, tenant: FollowedTenant) -> None:
        """Offer what was missed. Where it is gone, each listener reads the feed from where it is itself."""
        try:
            end = False
            while not end:
                page = await self._reader.replay(tenant.id, tenant.position, tenant.wanted)
                if page.messages and "" in tenant.places:
                    tenant.places[""].offer(page.messages)
                for message in page.messages:
                    if message.agent_id in tenant.places:
                        tenant.places[message.agent_id].offer([message])
                tenant.position, end = page.reached, page.end
                if page.gap is not None:
                    raise page.gap
        except UpdatesError:
            for listener in tenant.everyone():
                listener.fall_behind()

    async def _live(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._health):
                    while True:
                        self._handle(await self._link.receive())
            await self._try_connection()

    async def _try_connection(self) -> None:
        """Ask for an answer. Whatever was published before it was asked for comes before it, so the newest positions
        as of then have been reached once it is there."""
        tenants = list(self._audience.tenants.values())
        quiet = [tenant for tenant in tenants if self._checked.get(tenant.id, tenant.position) == tenant.position]
        if quiet:
            newest = await self._reader.last([tenant.id for tenant in quiet])
            await self._hear(offer=True)
            for tenant, position in zip(quiet, newest, strict=True):
                tenant.position = max(tenant.position, position)
        self._checked = {tenant.id: tenant.position for tenant in tenants}

    async def _hear(self, *, offer: bool) -> None:
        """Ask for an answer, and take what comes before it, or pass it over. Raises TimedOut."""
        self._asked += 1
        number = self._asked
        await self._link.ping(str(number))
        try:
            async with asyncio.timeout(self._timeout):
                while self._answered < number:
                    received = await self._link.receive()
                    if offer:
                        self._handle(received)
                    elif received is not None and received.channel is None:
                        self._answered = int(received.data)
        except TimeoutError:
            raise TimedOut(_SILENT) from None

    def _handle(self, received: Received | None) -> None:
        if received is None:
            return
        if (place := self._audience.channels.get(received.channel or "")) is not None:
            self._take(received.data, place)
            return
        self._offer_batches()  # as positions go on by an answer
        if received.channel is None:
            self._answered = int(received.data)
            self._release(None, self._answered)
        elif received.channel == self._gaps_channel:
            gap = from_sortable(received.data)
            for tenant in self._audience.tenants.values():
                for listener in tenant.everyone():
                    listener.told_of_gap(gap)

    def _take(self, data: bytes, place: Place) -> None:
        """Offer an agent's update. Those of all are gathered until there is nothing more to read at once."""
        try:
            message = self._read(data, place.tenant)
        except UpdatesError as error:
            self._offer_batches()
            for listener in place.listeners:
                listener.fail(error)
            return
        if not place.agent:
            if not place.batch:
                self._gathered.append(place)
                asyncio.get_running_loop().call_soon(self._offer_batches)
            place.batch.append(message)
        elif place.agent == message.agent_id:
            self._offer(place, [message])

    def _offer_batches(self) -> None:
        while self._gathered:
            place = self._gathered.pop()
            messages, place.batch = place.batch, []
            self._offer(place, messages)

    def _offer(self, place: Place, messages: Sequence[ReceivedMessage]) -> None:
        place.offer(messages)
        tenant = place.tenant
        if tenant.reached_by(place):
            tenant.position = max(tenant.position, messages[-1].position)

    def _read(self, data: bytes, tenant: FollowedTenant) -> ReceivedMessage:
        """Where an agent and all are followed, a message comes twice in a row."""
        if self._last is not None and self._last[0] == data and self._last[1] is tenant:
            return self._last[2]
        message = read_message(data, self._epoch.id, tenant.id)
        self._last = (data, tenant, message)
        return message

    def _release(self, error: Exception | None, upto: int | None = None) -> None:
        """Tell those that wait for an answer, or for one up to this number."""
        for number, waiter in self._waiting.items():
            if not waiter.done() and (upto is None or number <= upto):
                if error is None:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(error)
