"""What is wrong is told in one line that names the thing and the remedy, never with a traceback or a secret."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import asyncpg
import pytest

from freeagentics_persistence.encryption.key_providers import create_key_file, generate_key
from freeagentics_persistence.operations.servers import ServerUrls, set_up_roles
from tests.conftest import in_database
from tests.integration.cli.cli_helpers import (
    COMMAND,
    Outcome,
    Run,
    environment,
    settings_for,
    silent_port,
    with_password,
)
from tests.support.influx import InfluxServer

NOWHERE = "127.0.0.1:1"
EVERY_COMMAND = (["init"], ["migrate"], ["rollback", "--yes"], ["status"], ["relay"], ["watch"], ["demo"])
DATABASE_URLS = ("DATABASE_URL", "DATABASE_MIGRATOR_URL", "DATABASE_RELAY_URL", "DATABASE_ADMIN_URL")


def unused_password() -> str:
    return f"secret{secrets.token_hex(8)}"


@pytest.mark.parametrize("command", EVERY_COMMAND, ids=lambda words: words[0])
def test_postgresql_is_not_reached(run: Run, own: dict[str, str], command: list[str]) -> None:
    url = f"postgresql://someone:{unused_password()}@{NOWHERE}/swarm"
    settings = {**own, **dict.fromkeys(DATABASE_URLS, url)}
    run(*command, settings).refused(f"PostgreSQL at {NOWHERE}/swarm cannot be reached", "Start it, or correct its URL")


def test_postgresql_does_not_answer(run: Run, own: dict[str, str]) -> None:
    with silent_port() as port:
        url = f"postgresql://someone@127.0.0.1:{port}/swarm"
        settings = {**own, "DATABASE_URL": url, "DATABASE_CONNECT_TIMEOUT": "0.5"}
        run("status", settings).refused(f"PostgreSQL at 127.0.0.1:{port}/swarm did not answer", "freeagentics-db check")


@pytest.mark.parametrize("command", [["init"], ["watch"]], ids=lambda words: words[0])
def test_redis_is_not_reached(run: Run, own: dict[str, str], command: list[str]) -> None:
    settings = {**own, "REDIS_URL": f"redis://:{unused_password()}@{NOWHERE}/0"}
    run(*command, settings).refused(f"Redis at {NOWHERE} cannot be reached", "freeagentics-db check")


def test_redis_does_not_answer(run: Run, own: dict[str, str]) -> None:
    with silent_port() as port:
        settings = {**own, "REDIS_URL": f"redis://127.0.0.1:{port}/0", "REDIS_TIMEOUT": "0.5"}
        run("init", settings).refused(f"Redis at 127.0.0.1:{port} did not answer", "raise REDIS_TIMEOUT")


def test_influxdb_is_not_reached(run: Run, own: dict[str, str]) -> None:
    settings = {**own, "INFLUXDB_URL": f"http://{NOWHERE}", "INFLUXDB_TOKEN": unused_password()}
    run("init", settings).refused(f"InfluxDB at http://{NOWHERE} cannot be reached", "correct INFLUXDB_URL")


def test_influxdb_refuses_the_token(run: Run, own: dict[str, str], influx_server: InfluxServer) -> None:
    url = influx_server.url
    settings = {**own, "INFLUXDB_URL": url, "INFLUXDB_TOKEN": unused_password()}
    run("init", settings).refused(f"InfluxDB at {url} refused the token", "INFLUXDB_TOKEN")


@pytest.mark.parametrize("command", [["init"], ["relay"]], ids=lambda words: words[0])
def test_postgresql_refuses_the_password(run: Run, own: dict[str, str], command: list[str]) -> None:
    settings = {**own, **{name: with_password(own[name], unused_password()) for name in DATABASE_URLS}}
    run(*command, settings).refused("refused the login", "Check the user and password")


def test_redis_refuses_the_password(run: Run, own: dict[str, str]) -> None:
    settings = {**own, "REDIS_URL": with_password(own["REDIS_URL"], unused_password())}
    run("watch", settings).refused("refused the user name or password", "Correct them in REDIS_URL")


@pytest.mark.parametrize("password", ["12/S3cretword", "S3cr#etword", "S3cr?etword", "S3cr@etword", "S3cr[etword"])
def test_a_password_that_is_not_percent_encoded(run: Run, own: dict[str, str], password: str) -> None:
    settings = {**own, "DATABASE_URL": f"postgresql://a_app:{password}@{NOWHERE}/swarm"}
    for command in ("status", "watch", "relay"):
        run(command, settings).refused("the database URL", "Percent-encode the password")
    redis = run("init", {**own, "REDIS_URL": f"redis://someone:{password}@{NOWHERE}/0"})
    redis.refused("REDIS_URL", "Percent-encode the password")


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        ("connect_timeout=5", ['"connect_timeout"', "leave out that parameter", "DATABASE_CONNECT_TIMEOUT"]),
        ("work_mem=lots", ['"work_mem"', "Correct or leave out that parameter"]),
        ("sslmode=bogus", ["`sslmode` parameter must be one of", "Correct or leave out that parameter"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_parameter_that_is_refused(run: Run, own: dict[str, str], parameter: str, words: list[str]) -> None:
    settings = {**own, "DATABASE_URL": f"{own['DATABASE_URL']}&{parameter}"}
    run("status", settings).refused("cannot be connected to as its URL says", *words)


def test_of_several_hosts_the_one_that_answers(run: Run, own: dict[str, str]) -> None:
    parts = urlsplit(own["DATABASE_URL"])
    folder = parse_qs(parts.query)["host"][0]
    server = f"{NOWHERE},{quote(folder, safe='')}:5432"
    url = parts._replace(netloc=f"{parts.netloc}{server}", query="").geturl()
    shown = run("status", {**own, "DATABASE_URL": url})
    assert shown.code == 0, shown
    assert f"PostgreSQL at {NOWHERE},{folder}:5432/test_" in shown.out


@pytest.mark.parametrize("unbuffered", ["1", ""])
@pytest.mark.parametrize("command", [["--help"], ["status"], ["status", "--json"], ["migrate", "--sql"]], ids=" ".join)
def test_output_that_cannot_be_written(
    own: dict[str, str], tmp_path: Path, command: list[str], unbuffered: str
) -> None:
    with open("/dev/full", "w") as full:
        settings = {**environment(tmp_path, own), "PYTHONUNBUFFERED": unbuffered}
        done = subprocess.run(
            [*COMMAND, *command], env=settings, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    Outcome(done.returncode, "", done.stderr).refused("the output cannot be written (No space left on device)")


@pytest.mark.parametrize("command", [["migrate"], ["watch"]], ids=lambda words: words[0])
def test_the_database_does_not_exist(run: Run, servers: ServerUrls, command: list[str]) -> None:
    assert servers.admin is not None
    urls = ServerUrls(
        admin=None,
        migrator=in_database(servers.migrator, "nowhere"),
        app=in_database(servers.app, "nowhere"),
        relay=in_database(servers.relay, "nowhere"),
        redis=servers.redis,
    )
    run(*command, settings_for(urls)).refused('database "nowhere" does not exist', "freeagentics-db init")


def test_init_may_not_make_the_database(run: Run, servers: ServerUrls) -> None:
    urls = ServerUrls(
        admin=None,
        migrator=in_database(servers.app, "nowhere"),
        app=in_database(servers.app, "nowhere"),
        relay=in_database(servers.relay, "nowhere"),
        redis=servers.redis,
    )
    run("init", settings_for(urls)).refused("may not set up the database", "permission denied", "DATABASE_ADMIN_URL")


def test_the_database_is_not_migrated(run: Run, empty_database: ServerUrls) -> None:
    asyncio.run(set_up_roles(empty_database))
    settings = settings_for(empty_database, DATABASE_AUTO_MIGRATE="false")
    run("relay", settings).refused("is at revision none, and this version needs 00", "Run: freeagentics-db migrate")


def test_watch_does_not_migrate(run: Run, empty_database: ServerUrls) -> None:
    asyncio.run(set_up_roles(empty_database))
    run("watch", settings_for(empty_database)).refused("is at revision none", "Run: freeagentics-db migrate")


def test_a_database_of_newer_code(run: Run, own: dict[str, str], urls: ServerUrls) -> None:
    async def age() -> None:
        connection = await asyncpg.connect(urls.admin)
        await connection.execute("UPDATE alembic_version SET version_num = '9999'")
        await connection.close()

    asyncio.run(age())
    for command in (["migrate"], ["rollback", "--yes"]):
        run(*command, own).refused("is at 9999, which this version does not know", "Install the version")


@pytest.fixture
def sealed(run: Run, own: dict[str, str]) -> dict[str, str]:
    """Settings of a database whose data key is wrapped under their key."""
    assert run("init", own).code == 0
    return own


@pytest.mark.parametrize("command", [["init"], ["relay"]], ids=lambda words: words[0])
def test_the_wrong_key(run: Run, sealed: dict[str, str], command: list[str]) -> None:
    settings = {**sealed, "ENCRYPTION_KEY": generate_key()}
    run(*command, settings).refused("sealed under the key env:", "Give the key that it was sealed with")


def test_no_key(run: Run, own: dict[str, str]) -> None:
    settings = {name: value for name, value in own.items() if name != "ENCRYPTION_KEY"}
    run("relay", settings).refused("ENCRYPTION_KEY or ENCRYPTION_KEY_FILE is not set", "freeagentics-db generate-key")


def test_a_key_that_is_none(run: Run, own: dict[str, str]) -> None:
    settings = {**own, "ENCRYPTION_KEY": "c2hvcnQ="}
    run("relay", settings).refused("ENCRYPTION_KEY does not hold a base64 key of 32 bytes", "generate-key")


def test_the_key_file_is_missing(run: Run, own: dict[str, str], tmp_path: Path) -> None:
    settings = {**own, "ENCRYPTION_KEY": "", "ENCRYPTION_KEY_FILE": str(tmp_path / "key")}
    run("relay", settings).refused(f"the key file {tmp_path / 'key'} does not exist", "ENCRYPTION_KEY_FILE")


def test_the_key_file_is_a_fifo(run: Run, own: dict[str, str], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key", 0o600)
    settings = {**own, "ENCRYPTION_KEY": "", "ENCRYPTION_KEY_FILE": str(tmp_path / "key")}
    run("relay", settings, timeout=20).refused("is no regular file", "ENCRYPTION_KEY_FILE")


def test_the_key_file_is_open_to_others(run: Run, own: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "key"
    create_key_file(path)
    path.chmod(0o644)
    settings = {**own, "ENCRYPTION_KEY": "", "ENCRYPTION_KEY_FILE": str(path)}
    run("relay", settings).refused(f"{path} is open to others (mode 0644)", f"chmod 600 {path}")


def test_the_data_folder_is_taken(run: Run, tmp_path: Path) -> None:
    (tmp_path / "data" / "postgres").mkdir(parents=True)
    settings = {"FREEAGENTICS_DATA_FOLDER": str(tmp_path / "data")}
    run("status", settings).refused(f"{tmp_path / 'data'} holds data that this package did not put there")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["postgres"]


def test_the_data_folder_is_a_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("mine")
    settings = {"FREEAGENTICS_DATA_FOLDER": str(tmp_path / "data")}
    run("init", settings).refused(str(tmp_path / "data"), "move it away", "FREEAGENTICS_DATA_FOLDER")
    assert (tmp_path / "data").read_text() == "mine"


def test_the_data_folder_is_not_writable(run: Run) -> None:
    run("init", {"FREEAGENTICS_DATA_FOLDER": "/proc/data"}).refused("/proc/data", "FREEAGENTICS_DATA_FOLDER")
    assert not os.path.exists("/proc/data")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"DATABASE_POOL_SIZE": "lots"}, ["DATABASE_POOL_SIZE", "valid integer"]),
        ({"REDIS_TIMEOUT": "-1"}, ["REDIS_TIMEOUT", "greater than 0"]),
        ({"REDIS_URL": ""}, ["DATABASE_URL is set and REDIS_URL is not", "set both"]),
        ({"INFLUXDB_URL": "http://localhost:8086"}, ["INFLUXDB_TOKEN is not", "give a token"]),
        ({"FREEAGENTICS_ENV": "moon"}, ["FREEAGENTICS_ENV", "'production'"]),
        ({"FREEAGENTICS_ENV": "production", "ENCRYPTION_KEY": ""}, ["ENCRYPTION_KEY", "generate-key"]),
        ({"DATABASE_URL": "mysql://root@localhost/swarm"}, ["database URL", "postgresql://"]),
        ({"REDIS_URL": "http://localhost"}, ["REDIS_URL is not a Redis URL", "redis://"]),
        ({"DATABASE_MIGRATOR_URL": "postgresql://me@localhost:port/swarm"}, ["no valid port"]),
        ({"DATABASE_RELAY_URL": "postgresql://[::1/db"}, ["no valid host"]),
        ({"REDIS_URL": "redis://localhost?encoding=zz"}, ["REDIS_URL has a parameter that is none of these"]),
        ({"INFLUXDB_URL": "http://[", "INFLUXDB_TOKEN": "token"}, ["INFLUXDB_URL has no valid host"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_bad_settings(run: Run, own: dict[str, str], changes: dict[str, str], words: list[str]) -> None:
    run("init", {**own, **changes}).refused(*words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["scout-1"], ["AGENT_ID", "'scout-1' is no UUID", "shows all"]),
        (["--tenant", "acme"], ["--tenant", "'acme' is no UUID", "default tenant"]),
        (["--tenant", "018f2b6e-0000-7000-8000-00000000dead"], ["tenant 018f2b6e", "does not exist"]),
        (["--after", "yesterday"], ["after", "'yesterday' is not a feed position"]),
    ],
    ids=lambda value: value[0],
)
def test_watch_is_asked_for_what_is_not_there(
    run: Run, own: dict[str, str], arguments: list[str], words: list[str]
) -> None:
    run("watch", *arguments, "--json", own).refused(*words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["migrate", "--to", "0042"], ["0042", "freeagentics-db status"]),
        (["migrate", "--to", "head-1"], ["'head-1' is not above it", "freeagentics-db status"]),
        (["migrate", "--to", "base"], ["base is below it", "freeagentics-db rollback --to base"]),
        (["migrate", "--to", "0002", "--sql"], ["0002 is below it", "freeagentics-db rollback --to 0002"]),
        (["rollback", "--to", "0042", "--yes"], ["'0042' is not below it", "0001, base"]),
        (["rollback", "--to", "-42", "--yes"], ["'-42' is not below it", "0001, base"]),
    ],
    ids=lambda value: "-".join(value),
)
def test_an_unknown_revision(run: Run, own: dict[str, str], arguments: list[str], words: list[str]) -> None:
    run(*arguments, own).refused(*words)
