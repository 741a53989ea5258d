"""What a data folder may be, and what is said where it may not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from embedded_helpers import all_processes, socket_folder, sql, valkey

from freeagentics_persistence.embedded import EmbeddedServers, default_data_folder
from freeagentics_persistence.embedded.files import open_log, shorten_log
from freeagentics_persistence.errors import DataFolderUnusable, IncompatibleDataFolder, ServerDidNotStart


async def test_only_the_owner_can_read_a_data_folder(folder: Path) -> None:
    async with EmbeddedServers(folder) as urls:
        assert socket_folder(urls.admin_url).stat().st_mode & 0o777 == 0o700
        for parent, folders, files in os.walk(folder):
            for name in [*folders, *files]:
                path = Path(parent, name)
                assert path.lstat().st_mode & 0o077 == 0, path
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / "secrets.json").stat().st_mode & 0o777 == 0o600
        assert "snapshot" not in (folder / "README.txt").read_text()


async def test_a_folder_that_was_there_keeps_its_mode(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o755)
    (folder / "something.txt").write_text("not ours, and left alone")
    async with EmbeddedServers(folder, durable=False):
        assert folder.stat().st_mode & 0o777 == 0o755
        assert (folder / "postgres").stat().st_mode & 0o777 == 0o700
        assert (folder / "something.txt").exists()


async def test_a_path_longer_than_a_socket_name_works(folder: Path) -> None:
    deep = folder.joinpath(*["a-rather-long-folder-name-with spaces"] * 5)
    async with EmbeddedServers(deep, durable=False) as urls:
        assert await sql(urls.app_url, "SELECT 1") == 1
        assert await valkey(urls.redis_url, "PING") is True
    assert all_processes(deep) == []


async def test_another_major_version_of_postgresql_is_refused(folder: Path) -> None:
    async with EmbeddedServers(folder, durable=False):
        pass
    version = folder / "postgres/PG_VERSION"
    ours = version.read_text()
    version.write_text("15\n")
    with pytest.raises(IncompatibleDataFolder, match=r"PostgreSQL 15.*FREEAGENTICS_DATA_FOLDER"):
        await EmbeddedServers(folder).start()
    assert all_processes(folder) == []
    version.write_text(ours)
    async with EmbeddedServers(folder, durable=False) as urls:
        assert await sql(urls.app_url, "SELECT 1") == 1


async def test_a_newer_valkey_folder_is_refused_and_an_older_one_taken_on(folder: Path) -> None:
    async with EmbeddedServers(folder, durable=False):
        pass
    version = folder / "valkey/VERSION"
    ours = version.read_text()
    version.write_text("99\n")
    with pytest.raises(IncompatibleDataFolder, match=r"Valkey 99.*FREEAGENTICS_DATA_FOLDER"):
        await EmbeddedServers(folder).start()
    assert all_processes(folder) == []
    version.write_text("7\n")
    async with EmbeddedServers(folder, durable=False):
        assert version.read_text() == ours


async def test_a_file_in_the_place_of_the_folder_is_refused(folder: Path) -> None:
    folder.write_text("")
    with pytest.raises(DataFolderUnusable, match="FREEAGENTICS_DATA_FOLDER"):
        await EmbeddedServers(folder).start()
    with pytest.raises(DataFolderUnusable, match="FREEAGENTICS_DATA_FOLDER"):
        await EmbeddedServers(folder / "below").start()
    assert folder.read_text() == ""


async def test_a_folder_that_nobody_can_write_to_is_refused() -> None:
    with pytest.raises(DataFolderUnusable, match=r"/proc/.*FREEAGENTICS_DATA_FOLDER"):
        await EmbeddedServers(Path("/proc/freeagentics")).start()


async def test_data_of_others_is_refused(folder: Path) -> None:
    (folder / "postgres").mkdir(parents=True)
    with pytest.raises(DataFolderUnusable, match="did not put there"):
        await EmbeddedServers(folder).start()
    assert [path.name for path in folder.iterdir()] == ["postgres"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
async def test_a_folder_of_another_user_is_refused(folder: Path) -> None:
    async with EmbeddedServers(folder, durable=False):
        pass
    os.chown(folder / "locks", 12345, 12345)
    with pytest.raises(DataFolderUnusable, match="belongs to user id 12345"):
        await EmbeddedServers(folder).start()


async def test_lost_passwords_are_replaced_and_the_data_kept(folder: Path) -> None:
    async with EmbeddedServers(folder) as urls:
        await sql(urls.admin_url, "CREATE TABLE kept AS SELECT 42 AS answer")
    (folder / "secrets.json").unlink()
    async with EmbeddedServers(folder) as fresh:
        assert fresh.admin_url != urls.admin_url
        assert await sql(fresh.admin_url, "SELECT answer FROM kept") == 42
        assert await sql(fresh.relay_url, "SELECT 1") == 1
        assert await valkey(fresh.redis_url, "PING") is True


async def test_a_broken_secrets_file_is_named(folder: Path) -> None:
    async with EmbeddedServers(folder, durable=False):
        pass
    (folder / "secrets.json").write_text(json.dumps({"postgres": {}}))
    with pytest.raises(DataFolderUnusable, match=r"secrets\.json.*Remove that file"):
        await EmbeddedServers(folder).start()
    assert all_processes(folder) == []


async def test_a_server_that_ends_at_its_start_shows_its_log(folder: Path) -> None:
    async with EmbeddedServers(folder, durable=False):
        pass
    with (folder / "postgres/postgresql.auto.conf").open("a") as file:
        file.write("max_connections = 'many'\n")
    with pytest.raises(ServerDidNotStart, match=r"(?s)postgres\.log.*max_connections"):
        await EmbeddedServers(folder).start()
    assert all_processes(folder) == []


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of its own with the mount options of the test's parameter."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", request.param, "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a small disk needs root with the right to mount one")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("small_disk", ["size=64m", "size=600m,nr_inodes=300"], indirect=True)
async def test_a_full_disk_is_named(small_disk: Path) -> None:
    with pytest.raises(DataFolderUnusable, match=r"(?i)free some .*FREEAGENTICS_DATA_FOLDER"):
        await EmbeddedServers(small_disk / "data").start()
    assert all_processes(small_disk / "data") == []


def test_long_logs_are_shortened_under_their_writer(tmp_path: Path) -> None:
    log = tmp_path / "postgres.log"
    writer = open_log(log)
    try:
        os.write(writer, b"a line\n" * 3_000_000)
        shorten_log(log)
        os.write(writer, b"the next line\n")
        assert log.read_text() == "the next line\n"
        assert log.with_name("postgres.log.1").stat().st_size == 21_000_000
    finally:
        os.close(writer)


def test_the_default_folder_is_the_users_and_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    assert default_data_folder() == tmp_path / "share/freeagentics-persistence"
    assert not (tmp_path / "share").exists()


async def test_a_copied_folder_is_a_folder_of_its_own(folder: Path, tmp_path: Path) -> None:
    async with EmbeddedServers(folder) as urls:
        await sql(urls.admin_url, "CREATE TABLE kept AS SELECT 42 AS answer")
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", str(folder), str(copy)], check=True)
    async with EmbeddedServers(folder) as original, EmbeddedServers(copy) as copied:
        assert socket_folder(copied.admin_url) != socket_folder(original.admin_url)
        await sql(copied.admin_url, "UPDATE kept SET answer = 1")
        assert await sql(original.admin_url, "SELECT answer FROM kept") == 42
    shutil.rmtree(copy)
