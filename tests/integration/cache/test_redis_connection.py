"""The connection: who answers, what each failure is called, and that a hanging server slows no one."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from freeagentics_persistence.cache.connection import RedisConnection, describe_server, server_facts
from freeagentics_persistence.cache.updates.channels import ChannelConnection
from freeagentics_persistence.errors import (
    AuthenticationFailed,
    CacheUnavailable,
    ConfigurationError,
    Overloaded,
    StoreClosed,
    TimedOut,
)
from tests.support.feeds import eventually
from tests.support.redis_server import LocalRedis

PASSWORD = "correct-horse"


@pytest.fixture
def guarded_server(program: str) -> Iterator[LocalRedis]:
    with tempfile.TemporaryDirectory(prefix="fa-redis-") as folder:
        server = LocalRedis(program, Path(folder), "--requirepass", PASSWORD)
        server.start()
        yield server
        server.stop()


async def test_ping_tells_who_answers(connection: RedisConnection, program: str) -> None:
    found = await connection.ping()
    assert found.name == ("Valkey" if "valkey" in program else "Redis")
    assert int(found.version.split(".")[0]) >= 7
    assert len(found.run_id) == 40
    assert 0 < found.latency < 5


@pytest.mark.parametrize("info", ["redis_version:6.2.14\r\nrun_id:1\r\n", "server_name:other\r\n", "redis_version:x"])
def test_a_server_that_is_too_old_or_unknown_is_refused(info: str) -> None:
    with pytest.raises(ConfigurationError, match=r"Redis 7 or newer, or Valkey, is needed.*REDIS_URL"):
        describe_server(server_facts(info.encode()), "host:1", 0.1)


async def test_a_wrong_password_is_named_and_never_shown(guarded_server: LocalRedis) -> None:
    async with RedisConnection(f"unix://:{PASSWORD}@{guarded_server.socket}") as right:
        assert await right.execute("PING") == b"PONG"
    for login in ("", ":wrong-staple@", "someone:wrong-staple@"):
        async with RedisConnection(f"unix://{login}{guarded_server.socket}") as wrong:
            with pytest.raises(AuthenticationFailed, match=r"redis.sock refused.*REDIS_URL") as caught:
                await wrong.execute("PING")
            assert "staple" not in str(caught.value)
            await eventually(lambda: "connected_clients:1\r" in asked(guarded_server, "INFO", "clients"))


def asked(server: LocalRedis, *command: str) -> str:
    return server.ask(*command, password=PASSWORD)


async def test_a_user_without_rights_is_named(own_server: LocalRedis) -> None:
    own_server.ask("ACL", "SETUSER", "reader", "on", ">pw", "~*", "+get", "+info")
    async with RedisConnection(f"unix://reader:pw@{own_server.socket}") as limited:
        with pytest.raises(AuthenticationFailed, match="does not allow"):
            await limited.execute("SET", "a", "b")


@pytest.mark.parametrize("url", ["http://host", "redis://host:port", "redis://:secret@h?db=x", ""])
async def test_a_url_that_is_none_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match="REDIS_URL is not a Redis URL") as caught:
        RedisConnection(url)
    assert "secret" not in str(caught.value)


async def test_nobody_there() -> None:
    async with RedisConnection("redis://:secret@127.0.0.1:1/2") as connection:
        with pytest.raises(CacheUnavailable, match=r"127.0.0.1:1 \(database 2\) cannot be reached.*check") as caught:
            await connection.execute("PING")
    assert "secret" not in str(caught.value)


async def test_a_hanging_server_slows_no_one_for_long(own_server: LocalRedis) -> None:
    async with RedisConnection(own_server.url, timeout=0.2) as connection:
        assert await connection.execute("SET", "a", "1") == b"OK"
        os.kill(own_server.pid, signal.SIGSTOP)
        try:
            for _ in range(5):
                with pytest.raises(TimedOut, match=r"did not answer within 0.2 s"):
                    await connection.execute("GET", "a")
            started = time.monotonic()
            for _ in range(100):
                with pytest.raises(CacheUnavailable, match="failed several times"):
                    await connection.execute("GET", "a")
            assert time.monotonic() - started < 0.15
            await asyncio.sleep(1.0)
            with pytest.raises(TimedOut):
                await connection.execute("GET", "a")  # the one call that tries
            with pytest.raises(CacheUnavailable, match="failed several times"):
                await connection.execute("GET", "a")
        finally:
            os.kill(own_server.pid, signal.SIGCONT)
        assert (await connection.ping()).run_id
        assert await connection.execute("GET", "a") == b"1"


async def test_only_one_call_tries_a_server_that_hangs(own_server: LocalRedis) -> None:
    async with RedisConnection(own_server.url, timeout=0.2) as connection:
        os.kill(own_server.pid, signal.SIGSTOP)
        try:
            await asyncio.gather(*(connection.execute("PING") for _ in range(6)), return_exceptions=True)
            await asyncio.sleep(1.05)
            outcomes = await asyncio.gather(*(connection.execute("PING") for _ in range(10)), return_exceptions=True)
        finally:
            os.kill(own_server.pid, signal.SIGCONT)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["CacheUnavailable"] * 9 + ["TimedOut"]


async def test_a_restart_costs_no_call(own_server: LocalRedis) -> None:
    async with RedisConnection(own_server.url) as connection:
        await asyncio.gather(*(connection.execute("PING") for _ in range(4)))
        before = (await connection.ping()).run_id
        own_server.restart()
        assert await asyncio.gather(*(connection.execute("PING") for _ in range(4))) == [b"PONG"] * 4
        assert (await connection.ping()).run_id != before


async def test_more_calls_than_connections_wait_and_then_say_so(own_server: LocalRedis) -> None:
    async with RedisConnection(own_server.url, timeout=0.5, pool_size=2) as connection:
        replies = await asyncio.gather(*(connection.execute("ECHO", str(i)) for i in range(50)))
        assert replies == [b"%d" % i for i in range(50)]
        assert own_server.ask("INFO", "clients").count("connected_clients:3") == 1
        slow = await asyncio.gather(
            *(connection.execute("BLPOP", "none", "0.3") for _ in range(9)), return_exceptions=True
        )
    refused = [str(outcome) for outcome in slow if isinstance(outcome, Overloaded)]
    assert len(refused) >= 4
    assert "all 2 connections" in refused[0]
    assert "REDIS_POOL_SIZE" in refused[0]


async def test_a_cancelled_call_leaves_no_answer_for_the_next(own_server: LocalRedis) -> None:
    async with RedisConnection(own_server.url, pool_size=1) as connection:
        for i in range(50):
            call = asyncio.create_task(connection.execute("ECHO", f"cancelled {i}"))
            for _ in range(i % 5):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            assert await connection.execute("ECHO", f"{i}") == b"%d" % i


async def test_a_refused_command_leaves_the_others_answers_in_place(connection: RedisConnection) -> None:
    with pytest.raises(CacheUnavailable, match="refused a command"):
        await connection.pipeline([("ECHO", "a"), ("NOSUCH",), ("ECHO", "b")])
    assert await connection.pipeline([("ECHO", "c"), ("ECHO", "d")]) == [b"c", b"d"]


async def test_a_refused_command_costs_no_connection(own_server: LocalRedis) -> None:
    async with RedisConnection(own_server.url, pool_size=1) as connection:
        before = await connection.execute("CLIENT", "ID")
        with pytest.raises(CacheUnavailable, match="refused a command"):
            await connection.execute("NOSUCH")
        assert await connection.execute("CLIENT", "ID") == before


async def test_out_of_memory_says_what_to_raise(own_server: LocalRedis) -> None:
    own_server.ask("CONFIG", "SET", "maxmemory", "1mb")
    async with RedisConnection(own_server.url) as connection:
        with pytest.raises(CacheUnavailable, match=r"out of memory.*maxmemory"):
            await connection.pipeline([("SET", f"k{i}", b"x" * 100_000) for i in range(100)])


async def test_a_closed_connection_says_so(own_server: LocalRedis) -> None:
    async with RedisConnection(own_server.url) as connection:
        await connection.execute("PING")
    for call in (
        connection.ping(),
        connection.execute("PING"),
        connection.pipeline([("PING",)]),
        ChannelConnection(connection).open(["c"]),
    ):
        with pytest.raises(StoreClosed):
            await call
    await eventually(lambda: "connected_clients:1" in own_server.ask("INFO", "clients"))
