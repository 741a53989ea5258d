"""Real servers for the Redis side: Valkey from its wheel, and Redis 7.0 where the system has it."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from freeagentics_persistence.cache.connection import RedisConnection
from tests.support.feeds import Feed
from tests.support.redis_server import LocalRedis, redis_program, valkey_program

SNAPSHOTS = ("--appendonly", "no")


def program_of(name: str) -> str:
    program = valkey_program() if name == "valkey" else redis_program()
    if program is None:
        pytest.skip(f"{name} is not installed. Run: make servers")
    return program


@pytest.fixture(scope="session", params=["valkey", "redis"])
def program(request: pytest.FixtureRequest) -> str:
    """The program of each kind of server."""
    return program_of(request.param)


@pytest.fixture(scope="session")
def shared_server(program: str) -> Iterator[LocalRedis]:
    """One server for all tests of a worker; their epochs keep them apart."""
    with tempfile.TemporaryDirectory(prefix="fa-redis-") as folder:
        server = LocalRedis(program, Path(folder), *SNAPSHOTS)
        server.start()
        yield server
        server.stop()


@pytest.fixture
def own_server(program: str) -> Iterator[LocalRedis]:
    """A server that the test may stop, restart or empty."""
    with tempfile.TemporaryDirectory(prefix="fa-redis-") as folder:
        server = LocalRedis(program, Path(folder), *SNAPSHOTS)
        server.start()
        yield server
        server.stop()


@pytest.fixture
async def connection(shared_server: LocalRedis) -> AsyncIterator[RedisConnection]:
    async with RedisConnection(shared_server.url, timeout=5.0) as opened:
        yield opened


@pytest.fixture
async def own_connection(own_server: LocalRedis) -> AsyncIterator[RedisConnection]:
    async with RedisConnection(own_server.url, timeout=5.0) as opened:
        yield opened


@pytest.fixture
def feed(connection: RedisConnection) -> Feed:
    return Feed(connection)


@pytest.fixture
def own_feed(own_connection: RedisConnection) -> Feed:
    return Feed(own_connection)
