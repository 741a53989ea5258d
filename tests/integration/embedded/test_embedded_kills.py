"""Processes killed at any moment, and what they leave."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from embedded_helpers import UserProcess, all_processes, main_process, processes, socket_folder, sql, valkey, wait_until

from freeagentics_persistence.embedded import EmbeddedServers
from freeagentics_persistence.embedded.account import server_account
from freeagentics_persistence.embedded.kernel_lock import FileLock
from freeagentics_persistence.errors import ServerDidNotStart


async def test_servers_of_a_killed_user_stop_by_themselves(folder: Path) -> None:
    user = UserProcess(folder)
    printed = user.started()
    await sql(printed["admin_url"], "CREATE TABLE kept AS SELECT 42 AS answer")
    user.kill()
    await asyncio.to_thread(wait_until, lambda: not all_processes(folder), 10)
    assert "database system is shut down" in (folder / "logs/postgres.log").read_text()
    assert (folder / "logs/watchdog.log").read_text() == ""
    async with EmbeddedServers(folder) as urls:
        assert await sql(urls.admin_url, "SELECT answer FROM kept") == 42


@pytest.mark.parametrize("steps", [(0.12, 0.25, 0.4, 0.55), (0.2, 0.3, 0.5, 0.65, 0.8)])
async def test_a_first_start_killed_at_any_moment_blocks_nothing(folder: Path, steps: tuple[float, ...]) -> None:
    for delay in steps:
        user = UserProcess(folder)
        await asyncio.sleep(delay)
        user.kill()
    async with EmbeddedServers(folder) as urls:
        assert await sql(urls.app_url, "SELECT current_user") == "freeagentics_app_login"
        assert await valkey(urls.redis_url, "PING") is True
        assert list(folder.glob("postgres.new-*")) == []
    assert all_processes(folder) == []


async def test_a_killed_watchdog_is_replaced_and_not_needed_to_stop(folder: Path) -> None:
    async with EmbeddedServers(folder):
        (watchdog,) = processes(folder, "watchdog")
        os.kill(watchdog, signal.SIGKILL)
        wait_until(lambda: not processes(folder, "watchdog"))
    assert all_processes(folder) == []

    async with EmbeddedServers(folder):
        (watchdog,) = processes(folder, "watchdog")
        os.kill(watchdog, signal.SIGKILL)
        wait_until(lambda: not processes(folder, "watchdog"))
        user = UserProcess(folder)
        await asyncio.to_thread(user.started)
        assert len(processes(folder, "watchdog")) == 1
        user.kill()


async def test_a_pid_file_that_names_a_living_stranger_blocks_nothing(folder: Path) -> None:
    async with EmbeddedServers(folder):
        pid_file = (folder / "postgres/postmaster.pid").read_text().splitlines()
    account = server_account()
    stranger = subprocess.Popen(["sleep", "60"], user=account.uid, group=account.gid)
    try:
        stale = folder / "postgres/postmaster.pid"
        stale.write_text("\n".join([str(stranger.pid), *pid_file[1:]]) + "\n")
        os.chown(stale, account.uid, account.gid)
        async with EmbeddedServers(folder) as urls:
            assert await sql(urls.app_url, "SELECT 1") == 1
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


async def test_servers_that_lost_their_sockets_are_replaced(folder: Path) -> None:
    async with EmbeddedServers(folder) as urls:
        await sql(urls.admin_url, "CREATE TABLE kept AS SELECT 42 AS answer")
        before = main_process(folder, "postgres")
        sockets = socket_folder(urls.admin_url)
        for path in sockets.iterdir():
            path.unlink()
        sockets.rmdir()
        async with EmbeddedServers(folder) as again:
            assert again == urls
            assert main_process(folder, "postgres") != before
            assert await sql(urls.admin_url, "SELECT answer FROM kept") == 42


async def test_a_folder_removed_while_in_use_leaves_no_process(folder: Path) -> None:
    servers = EmbeddedServers(folder, durable=False)
    urls = await servers.start()
    running = all_processes(folder)
    subprocess.run(["rm", "-rf", str(folder)], check=True)
    await servers.stop()
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{pid}/exe").exists() for pid in running):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    shutil.rmtree(socket_folder(urls.admin_url))  # with what a server leaves that finds its own folder gone


async def test_a_server_that_hangs_is_told_and_left_alone(folder: Path) -> None:
    async with EmbeddedServers(folder, durable=False) as urls:
        postmaster = main_process(folder, "postgres")
        os.kill(postmaster, signal.SIGSTOP)
        try:
            with pytest.raises(ServerDidNotStart, match=r"PostgreSQL \(.*postgres\.log\): no progress for 1 s"):
                await EmbeddedServers(folder, start_timeout=1).start()
        finally:
            os.kill(postmaster, signal.SIGCONT)
        assert main_process(folder, "postgres") == postmaster
        assert await sql(urls.app_url, "SELECT 1") == 1


async def test_a_start_waits_for_the_start_of_another_process_while_that_goes_on(folder: Path) -> None:
    async with EmbeddedServers(folder, durable=False):
        pass
    said: list[str] = []
    other = FileLock(folder / "locks/start.lock")
    try:
        assert other.try_exclusive()
        starting = asyncio.create_task(EmbeddedServers(folder, progress=said.append, start_timeout=0.5).start())
        for percent in range(8):
            other.write_note(f"recovered {percent} %")
            await asyncio.sleep(0.2)
            assert not starting.done()
        with pytest.raises(ServerDidNotStart, match=r"start\.lock: recovered 7 %: no progress"):
            await starting
        assert "waiting for another process: recovered 3 %" in said
    finally:
        other.close()
