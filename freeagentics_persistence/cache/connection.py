"""The connection to Redis or Valkey: a bounded pool, time-outs, and one place where errors are translated."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import hiredis
import redis.exceptions as driver
from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from freeagentics_persistence.cache.circuit_breaker import CircuitBreaker
from freeagentics_persistence.cache.redis_errors import LOST, translate
from freeagentics_persistence.domain.server_urls import is_host, split_server_url
from freeagentics_persistence.errors import CacheUnavailable, ConfigurationError, Overloaded, StoreClosed

MINIMUM_VERSION = 7
READ_BYTES = 512 * 1024  # taken from the socket at once, as answers to many keys are large

# what else the driver reads from a URL is settings here, or fixed, or breaks it
_PARAMETERS = {
    *("db", "username", "password", "ssl_ca_certs", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile", "ssl_keyfile"),
    *("ssl_password", "ssl_check_hostname", "ssl_ciphers"),
}
_NO_URL = (
    "REDIS_URL is not a Redis URL. Write it as redis://user:password@host:6379/0, rediss://... or "
    "unix:///path/to/socket."
)

Argument = str | bytes | int
Command = Sequence[Argument]


@dataclass(frozen=True, slots=True)
class RedisServer:
    """Who answered: Redis or Valkey, its version, the id of its current run, and the seconds its answer took."""

    name: str
    version: str
    run_id: str
    latency: float


class RedisConnection:
    """At most ``pool_size`` connections to one server; ``timeout`` seconds for each call, waiting included.

    Raises ConfigurationError where the URL is none. Every call raises CacheUnavailable, AuthenticationFailed,
    TimedOut or, where all connections stay busy, Overloaded, and StoreClosed after ``close``. A command that meets a
    lost connection is sent once more, so commands must bear being repeated.
    """

    def __init__(self, url: str, *, timeout: float = 2.0, pool_size: int = 32) -> None:
        self._timeout = timeout
        self._pool_size = pool_size
        self._slots = asyncio.Semaphore(pool_size)
        self._free: list[AbstractConnection] = []
        self._breaker = CircuitBreaker()
        self._closed = False
        self._options = _options_of(url)
        self._kind: type[AbstractConnection] = self._options.pop("connection_class", Connection)
        if not self._can_be_made():
            raise ConfigurationError(_NO_URL)

    @property
    def server(self) -> str:
        """Where the server is, without user name and password."""
        options = self._options
        place = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
        return f"{place} (database {options['db']})" if options.get("db") else str(place)

    @property
    def timeout(self) -> float:
        """Seconds that one call may take."""
        return self._timeout

    def new_connection(self) -> AbstractConnection:
        """A connection outside the pool, not opened yet; whoever asks for it closes it. Raises StoreClosed."""
        self._require_open()
        fixed = {"retry": Retry(NoBackoff(), 0), "protocol": 2, "decode_responses": False, "health_check_interval": 0}
        times = {"socket_timeout": None, "socket_connect_timeout": None, "socket_read_size": READ_BYTES}
        return self._kind(**{**self._options, **fixed, **times, "client_name": "freeagentics"})

    def _require_open(self) -> None:
        if self._closed:
            raise StoreClosed

    def _can_be_made(self) -> bool:
        try:
            self.new_connection()
        except (ValueError, TypeError, driver.RedisError):
            return False
        return True

    async def __aenter__(self) -> RedisConnection:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection. Every way in raises StoreClosed from now on."""
        self._closed = True
        while self._free:
            await self._free.pop().disconnect(nowait=True)

    async def ping(self) -> RedisServer:
        """Who answers, past the circuit breaker. Raises ConfigurationError where the server is too old."""
        started = time.perf_counter()
        facts = server_facts((await self._call([("INFO", "server")]))[0])
        return describe_server(facts, self.server, time.perf_counter() - started)

    async def execute(self, *command: Argument) -> Any:
        """The reply to one command, undecoded."""
        return (await self.pipeline([command]))[0]

    async def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to commands sent at once over one connection; the first refused one is raised."""
        self._require_open()
        if self._breaker.refuses():
            error = CacheUnavailable(
                f"Redis at {self.server} failed several times in a row, so the circuit breaker keeps calls from it for "
                "a second. Run `freeagentics-db check`."
            )
            error.passed_over = True
            raise error
        return await self._call(commands)

    async def _call(self, commands: Sequence[Command]) -> list[Any]:
        served = False
        try:
            async with asyncio.timeout(self._timeout), self._slots:
                served = True
                replies = await self._round_trip(commands)
        except TimeoutError as error:
            if not served:
                raise Overloaded(
                    f"all {self._pool_size} connections to Redis at {self.server} were busy for {self._timeout:g} s. "
                    "Make fewer calls at once, or raise REDIS_POOL_SIZE."
                ) from None
            self._breaker.failed()
            raise translate(error, self.server, self._timeout) from error
        except (driver.RedisError, OSError) as error:
            self._breaker.failed()
            raise translate(error, self.server, self._timeout) from error
        self._breaker.succeeded()
        for reply in replies:
            if isinstance(reply, driver.RedisError):
                raise translate(reply, self.server, self._timeout) from reply
        return replies

    async def _round_trip(self, commands: Sequence[Command]) -> list[Any]:
        packed = [hiredis.pack_command(tuple(command)) for command in commands]  # type: ignore[arg-type]
        connection = self._free.pop() if self._free else self.new_connection()
        try:
            known = connection.is_connected
            try:
                return await _talk(connection, packed)
            except LOST:
                if not known:
                    raise
            return await _talk(connection, packed)
        finally:
            if self._closed:
                await connection.disconnect(nowait=True)
            else:
                self._free.append(connection)


def _options_of(url: str) -> dict[str, Any]:
    """What a connection is made with. Raises ConfigurationError, which shows nothing of the URL."""
    parts = split_server_url("REDIS_URL", url)
    if not {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)} <= _PARAMETERS:
        raise ConfigurationError(
            f"REDIS_URL has a parameter that is none of these: {', '.join(sorted(_PARAMETERS))}. Take it out; "
            "REDIS_TIMEOUT and REDIS_POOL_SIZE are settings of their own."
        )
    options: dict[str, Any] = {}
    with suppress(ValueError):
        options = dict(parse_url(url))
    misnamed = parts.scheme != "unix" and re.fullmatch(r"/?\d*", parts.path) is None  # the driver would take database 0
    if not options or misnamed or not is_host(options.get("host", "localhost")):
        raise ConfigurationError(_NO_URL)
    return options


def server_facts(reply: bytes) -> dict[str, str]:
    """What INFO server says; ``run_id`` changes whenever the server starts anew, or another one takes its place."""
    pairs = (line.partition(":") for line in reply.decode(errors="replace").splitlines())
    return {"run_id": "", **{name: value for name, _, value in pairs}}


def describe_server(facts: Mapping[str, str], server: str, latency: float) -> RedisServer:
    """Who these facts are of. Raises ConfigurationError where it is too old, or of an unknown version."""
    compatible = facts.get("redis_version", "")
    major = compatible.partition(".")[0]
    if not major.isdigit() or int(major) < MINIMUM_VERSION:
        raise ConfigurationError(
            f"the server at {server} is Redis {compatible or 'of an unknown version'}, and Redis {MINIMUM_VERSION} or "
            "newer, or Valkey, is needed. Upgrade it, or name another in REDIS_URL."
        )
    valkey = facts.get("valkey_version")
    return RedisServer("Valkey" if valkey else "Redis", valkey or compatible, facts["run_id"], latency)


async def _talk(connection: AbstractConnection, packed: Sequence[bytes]) -> list[Any]:
    try:
        await connection.connect()  # type: ignore[no-untyped-call]
        await connection.send_packed_command(packed, check_health=False)
        replies: list[Any] = []
        for _ in packed:
            try:
                replies.append(await connection.read_response(disconnect_on_error=False))
            except driver.ResponseError as error:
                replies.append(error)
    except BaseException:
        # an unread reply would answer the next command
        await connection.disconnect(nowait=True)
        raise
    return replies
