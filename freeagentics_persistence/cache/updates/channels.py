"""A connection that follows channels, whichever are asked for while it is open."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import redis.exceptions as driver
from redis.asyncio.connection import AbstractConnection

from freeagentics_persistence.cache.connection import RedisConnection
from freeagentics_persistence.cache.redis_errors import translate
from freeagentics_persistence.errors import CacheUnavailable, PersistenceError


@dataclass(frozen=True, slots=True)
class Received:
    """What came: on ``channel``, or the answer to a ping where that is None."""

    channel: str | None
    data: bytes = field(repr=False)


class ChannelConnection:
    """Follows channels from ``open`` to ``close``. Errors are those of RedisConnection; after one, open it again."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._link: AbstractConnection | None = None

    async def open(self, channels: Sequence[str]) -> None:
        """Subscribe. Nothing that is published once this returns is missed; what comes before is not kept."""
        await self.close()
        link = self._link = self._connection.new_connection()
        try:
            async with asyncio.timeout(self._connection.timeout):
                await link.connect()  # type: ignore[no-untyped-call]
                await link.send_command("SUBSCRIBE", *channels)
                confirmed = 0
                while confirmed < len(channels):
                    reply = await link.read_response()
                    confirmed += reply[0] == b"subscribe"
        except (driver.RedisError, OSError) as error:
            await self.close()
            raise self._translated(error) from error

    async def close(self) -> None:
        """Close the connection."""
        link, self._link = self._link, None
        if link is not None:
            await link.disconnect(nowait=True)

    async def subscribe(self, channels: Sequence[str]) -> None:
        """Follow these too: from then on that the answer to a later ``ping`` is received."""
        await self._send("SUBSCRIBE", *channels)

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        """Follow these no longer; what was published before may still come."""
        await self._send("UNSUBSCRIBE", *channels)

    async def ping(self, payload: str) -> None:
        """Ask for an answer with this payload; it comes by ``receive``, after all that was published before."""
        await self._send("PING", payload)

    async def receive(self, timeout: float | None = None) -> Received | None:
        """What comes next, None where nothing comes within ``timeout`` seconds. Cancelled, it loses nothing."""
        while True:
            try:
                reply = await self._opened().read_response(timeout=timeout, disconnect_on_error=False)
            except (driver.RedisError, OSError) as error:
                raise self._translated(error) from error
            if reply is None:
                return None
            if reply[0] == b"message":
                return Received(reply[1].decode(), reply[2])
            if reply[0] == b"pong":
                return Received(None, reply[1])

    async def _send(self, *command: str) -> None:
        try:
            async with asyncio.timeout(self._connection.timeout):
                await self._opened().send_command(*command, check_health=False)
        except (driver.RedisError, OSError) as error:
            raise self._translated(error) from error

    def _opened(self) -> AbstractConnection:
        if self._link is None:
            raise CacheUnavailable(f"the subscription at {self._connection.server} is not connected.")
        return self._link

    def _translated(self, error: Exception) -> PersistenceError:
        return translate(error, self._connection.server, self._connection.timeout)
