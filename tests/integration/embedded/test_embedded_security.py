"""Who can connect, with what, and how durable it is."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import psutil
import pytest
import redis.exceptions
from embedded_helpers import all_processes, main_process, processes, sql, valkey

from freeagentics_persistence.embedded import EmbeddedServers, EmbeddedUrls


@pytest.fixture
async def urls(folder: Path) -> AsyncIterator[EmbeddedUrls]:
    async with EmbeddedServers(folder) as running:
        yield running


async def test_servers_are_durable_and_sized_to_the_machine(urls: EmbeddedUrls) -> None:
    expected = {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "data_checksums": "on",
        "wal_level": "replica",
        "jit": "off",
        "server_encoding": "UTF8",
        "password_encryption": "scram-sha-256",
        "listen_addresses": "",
    }
    assert {name: await sql(urls.admin_url, f"SHOW {name}") for name in expected} == expected
    collation = "SELECT datlocprovider::text || datlocale FROM pg_database WHERE datname = 'freeagentics'"
    assert await sql(urls.admin_url, collation) == "bC.UTF-8"
    buffers = await sql(urls.admin_url, "SELECT setting::bigint * 8192 FROM pg_settings WHERE name = 'shared_buffers'")
    assert isinstance(buffers, int)
    assert 64 << 20 <= buffers <= min(2 << 30, max(64 << 20, int(psutil.virtual_memory().total * 0.2)))
    for name, value in {"appendonly": "no", "save": "", "port": "0"}.items():
        assert await valkey(urls.redis_url, "CONFIG", "GET", name) == {name: value}
    assert int((await valkey(urls.redis_url, "CONFIG", "GET", "maxmemory"))["maxmemory"]) >= 64 << 20


async def test_tests_may_do_without_fsync(folder: Path) -> None:
    async with EmbeddedServers(folder, durable=False) as urls:
        assert await sql(urls.admin_url, "SHOW fsync") == "off"


@pytest.mark.parametrize("role", ["migrator", "app", "relay"])
async def test_logins_are_restricted(urls: EmbeddedUrls, role: str) -> None:
    url = getattr(urls, f"{role}_url")
    rights = "rolsuper OR rolbypassrls OR rolcreatedb OR rolcreaterole OR rolreplication"
    assert await sql(url, "SELECT current_user") == f"freeagentics_{role}_login"
    assert await sql(url, f"SELECT {rights} FROM pg_roles WHERE rolname = current_user") is False
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await sql(url, "CREATE ROLE another")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await sql(url, "COPY (SELECT 1) TO PROGRAM 'true'")


async def test_a_wrong_or_missing_password_is_refused(urls: EmbeddedUrls) -> None:
    for url in (urls.admin_url, urls.app_url):
        password = urlsplit(url).password or ""
        with pytest.raises(asyncpg.InvalidPasswordError):
            await sql(url.replace(password, "wrong"), "SELECT 1")
    with pytest.raises(redis.exceptions.ConnectionError, match="invalid username-password pair"):
        await valkey(urls.redis_url.replace(urlsplit(urls.redis_url).password or "", "wrong"), "PING")
    without = urls.redis_url.replace(f":{urlsplit(urls.redis_url).password}@", "")
    with pytest.raises(redis.exceptions.ConnectionError, match="authenticate"):
        await valkey(without, "PING")


async def test_no_network_port_is_open(folder: Path, urls: EmbeddedUrls) -> None:
    pids = processes(folder, "postgres") + processes(folder, "valkey")
    assert len(pids) > 3
    for pid in pids:
        assert psutil.Process(pid).net_connections("inet") == [], pid


async def test_servers_run_unprivileged_in_sessions_of_their_own(folder: Path, urls: EmbeddedUrls) -> None:
    for name in ("postgres", "valkey"):
        process = psutil.Process(main_process(folder, name))
        assert process.uids().real != 0
        assert process.gids().real != 0
        assert os.getsid(process.pid) == process.pid
        with open(f"/proc/{process.pid}/status") as status:
            groups = next(line for line in status if line.startswith("Groups:"))
        assert os.geteuid() != 0 or groups.split() == ["Groups:"]


async def test_passwords_are_in_no_argument_environment_log_or_repr(folder: Path, urls: EmbeddedUrls) -> None:
    with pytest.raises(asyncpg.PostgresError):
        await sql(urls.admin_url, "ALTER ROLE nobody_of_that_name PASSWORD 'not-for-the-log'")
    document = json.loads((folder / "secrets.json").read_text())
    passwords = [*document["postgres"].values(), document["valkey"], "not-for-the-log"]
    assert len(passwords) == 6
    seen = repr(urls) + "".join(path.read_text() for path in (folder / "logs").iterdir())
    for pid in all_processes(folder):
        process = psutil.Process(pid)
        seen += " ".join(process.cmdline()) + str(process.environ())
    assert "ready to accept connections" in seen
    for password in passwords:
        assert password not in seen


async def test_a_base_backup_can_be_taken(urls: EmbeddedUrls, tmp_path: Path) -> None:
    from freeagentics_persistence.embedded.account import server_account
    from freeagentics_persistence.embedded.binaries import find_binaries

    program = find_binaries(server_account()).postgres / "pg_basebackup"
    backup = await asyncio.create_subprocess_exec(program, "-d", urls.admin_url, "-D", tmp_path / "backup")
    assert await backup.wait() == 0
    assert (tmp_path / "backup/backup_manifest").exists()
