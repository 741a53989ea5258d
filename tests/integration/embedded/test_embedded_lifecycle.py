"""Start, attach, leave, stop: by one process and by several."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import subprocess
from pathlib import Path

import pytest
from embedded_helpers import (
    UserProcess,
    all_processes,
    main_process,
    processes,
    socket_folder,
    sql,
    valkey,
    wait_until,
)

from freeagentics_persistence.embedded import EmbeddedServers
from freeagentics_persistence.embedded.account import server_account
from freeagentics_persistence.embedded.binaries import find_binaries


async def test_data_survives_a_stop_and_nothing_runs_after_it(folder: Path) -> None:
    servers = EmbeddedServers(folder)
    urls = await servers.start()
    await sql(urls.admin_url, "CREATE TABLE kept AS SELECT 42 AS answer")
    await valkey(urls.redis_url, "SET", "kept", "43")
    assert processes(folder, "postgres")
    assert processes(folder, "valkey")
    assert len(processes(folder, "watchdog")) == 1
    await servers.stop()
    assert all_processes(folder) == []
    assert not socket_folder(urls.admin_url).exists()

    async with EmbeddedServers(folder) as again:
        assert again == urls
        assert await sql(again.admin_url, "SELECT answer FROM kept") == 42
        assert await valkey(again.redis_url, "GET", "kept") == "43"


async def test_a_stop_is_clean_for_both_servers(folder: Path) -> None:
    async with EmbeddedServers(folder):
        pass
    programs = find_binaries(server_account()).postgres
    shown = subprocess.run(
        [programs / "pg_controldata", folder / "postgres"], capture_output=True, text=True, check=True
    )
    assert "Database cluster state:               shut down\n" in shown.stdout
    assert "Data page checksum version:           1\n" in shown.stdout
    assert "DB saved on disk" in (folder / "logs/valkey.log").read_text()


async def test_others_attach_and_the_last_to_leave_stops(folder: Path) -> None:
    first = UserProcess(folder)
    printed = first.started()
    second = EmbeddedServers(folder)
    urls = await second.start()
    assert dataclasses.asdict(urls) == printed
    postmaster = main_process(folder, "postgres")

    await asyncio.to_thread(first.leave)
    assert main_process(folder, "postgres") == postmaster
    assert await sql(urls.app_url, "SELECT 1") == 1

    await second.stop()
    assert all_processes(folder) == []


async def test_processes_that_start_at_once_share_one_set_of_servers(folder: Path) -> None:
    users = [UserProcess(folder) for _ in range(4)]
    printed = [await asyncio.to_thread(user.started) for user in users]
    assert all(urls == printed[0] for urls in printed)
    assert "admin_url" in printed[0]
    assert len(processes(folder, "valkey")) == 1
    await asyncio.gather(*(asyncio.to_thread(user.leave) for user in users))
    assert all_processes(folder) == []


async def test_two_in_one_process_are_two_users(folder: Path) -> None:
    one, other = EmbeddedServers(folder), EmbeddedServers(folder)
    urls, same = await asyncio.gather(one.start(), other.start())
    assert urls == same
    await one.stop()
    assert await valkey(urls.redis_url, "PING") is True
    await other.stop()
    await other.stop()
    assert all_processes(folder) == []


async def test_leaving_and_coming_at_once_never_meets_a_dead_server(folder: Path) -> None:
    async def come_and_go() -> None:
        for _ in range(4):
            async with EmbeddedServers(folder, durable=False) as urls:
                assert await sql(urls.app_url, "SELECT 1") == 1
                assert await valkey(urls.redis_url, "PING") is True

    await asyncio.gather(*(come_and_go() for _ in range(3)))
    assert all_processes(folder) == []


async def test_ctrl_c_of_one_user_leaves_the_servers_to_the_others(folder: Path) -> None:
    user = UserProcess(folder)
    user.started()
    async with EmbeddedServers(folder) as urls:
        await asyncio.to_thread(user.interrupt_group)
        assert await sql(urls.app_url, "SELECT 1") == 1
        assert await valkey(urls.redis_url, "PING") is True


async def test_a_cancelled_start_leaves_nothing_behind(folder: Path) -> None:
    servers = EmbeddedServers(folder)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(servers.start(), 0.2)
    assert all_processes(folder) == []
    async with servers as urls:
        assert await sql(urls.app_url, "SELECT 1") == 1


async def test_killed_servers_come_back_with_their_data(folder: Path) -> None:
    said: list[str] = []
    servers = EmbeddedServers(folder, progress=said.append)
    urls = await servers.start()
    await sql(urls.admin_url, "CREATE TABLE kept AS SELECT 42 AS answer")
    for name in ("postgres", "valkey"):
        os.kill(main_process(folder, name), signal.SIGKILL)
    wait_until(lambda: not processes(folder, "valkey"))

    assert await servers.start() == urls
    assert await sql(urls.admin_url, "SELECT answer FROM kept") == 42
    assert await valkey(urls.redis_url, "PING") is True
    assert "PostgreSQL: starting" in said
    assert "database system was not properly shut down" in (folder / "logs/postgres.log").read_text()
    await servers.stop()
    assert all_processes(folder) == []


async def test_the_event_loop_is_free_while_servers_start(folder: Path) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    async with EmbeddedServers(folder, durable=False):
        ticking.cancel()
    assert ticks >= 10


@pytest.mark.parametrize("seconds", [0.05, 0.3, 0.5, 0.6, 0.7, 0.8])
async def test_a_start_cancelled_at_any_moment_leaves_nothing_behind(folder: Path, seconds: float) -> None:
    servers = EmbeddedServers(folder, durable=False)
    starting = asyncio.create_task(servers.start())
    await asyncio.sleep(seconds)
    if starting.cancel():
        with pytest.raises(asyncio.CancelledError):
            await starting
    else:  # it had started already
        await servers.stop()
    assert all_processes(folder) == []
