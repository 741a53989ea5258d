"""init on servers of one's own and on embedded ones."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, urlsplit
from uuid import uuid4

import asyncpg
import pytest

from freeagentics_persistence.database.bootstrap import ROLES, create_logins, database_name, scram_verifier
from freeagentics_persistence.errors import ConfigurationError
from freeagentics_persistence.operations.servers import ServerUrls
from tests.conftest import in_database, run_as_admin
from tests.integration.cli.cli_helpers import Run, settings_for
from tests.support.influx import InfluxServer

PASSWORD = 'it\'s 100 % "odd"\\ @:/?#'


def with_login(url: str, login: str, password: str) -> str:
    place = urlsplit(url).netloc.rpartition("@")[2]
    return urlsplit(url)._replace(netloc=f"{login}:{quote(password, safe='')}@{place}").geturl()


@pytest.fixture
def planned(servers: ServerUrls) -> Iterator[ServerUrls]:
    """URLs of a database and of logins that do not exist."""
    assert servers.admin is not None
    name = f"Test {uuid4().hex}"
    logins = [f"{task} {uuid4().hex}" for task in ("app", "migrator", "relay")]
    app, migrator, relay = (
        with_login(in_database(servers.app, quote(name)), quote(login), PASSWORD) for login in logins
    )
    yield ServerUrls(admin=servers.admin, migrator=migrator, app=app, relay=relay, redis=servers.redis)

    async def clean() -> None:
        await run_as_admin(servers, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        for login in logins:
            await run_as_admin(servers, f'DROP ROLE IF EXISTS "{login}"')

    asyncio.run(clean())


async def identity(url: str) -> tuple[str, str, bool]:
    connection = await asyncpg.connect(url)
    try:
        row = await connection.fetchrow(
            "SELECT current_database()::text AS database, rolname::text AS login,"
            " rolsuper OR rolbypassrls OR rolcreatedb OR rolcreaterole AS strong"
            " FROM pg_roles WHERE rolname = current_user"
        )
        return row["database"], row["login"], row["strong"]
    finally:
        await connection.close()


def test_init_makes_database_logins_schema_and_key(run: Run, planned: ServerUrls) -> None:
    settings = settings_for(planned)
    done = run("init", "--json", settings)
    assert done.code == 0, done
    made = done.json
    assert made["database_made"] is True
    assert len(made["logins_made"]) == 3
    assert made["revision"] == made["migrations_run"][-1]
    assert made["key"] == "made"
    assert made["redis"].startswith("Valkey")
    assert made["metrics"] == "PostgreSQL"
    assert made["next"] == "freeagentics-db check"
    assert PASSWORD not in done.out + done.err
    for url, login in zip((planned.migrator, planned.app, planned.relay), made["logins_made"], strict=False):
        database, name, strong = asyncio.run(identity(url))
        assert database.startswith("Test ")
        assert name in made["logins_made"], login
        assert not strong

    again = run("init", "--json", settings).json
    assert again["database_made"] is False
    assert again["logins_made"] == again["migrations_run"] == []
    assert again["key"] == "opens"
    assert again["revision"] == made["revision"]

    without_admin = {name: value for name, value in settings.items() if name not in ("DATABASE_ADMIN_URL",)}
    checked = run("check", "--json", without_admin)
    assert checked.code == 0, checked
    said = run("init", settings).out
    assert "was there; its roles are set up" in said
    assert "next      freeagentics-db check" in said


def test_init_without_a_key_says_how_to_get_one(run: Run, own: dict[str, str]) -> None:
    done = run("init", "--json", {**own, "ENCRYPTION_KEY": ""})
    assert done.code == 0
    assert done.json["key"] == "none"
    assert "freeagentics-db generate-key" in done.json["next"]


def test_init_leaves_an_existing_login_its_password(run: Run, own: dict[str, str], planned: ServerUrls) -> None:
    assert run("init", settings_for(planned)).code == 0
    app = planned.app.replace(quote(PASSWORD, safe=""), "another")
    settings = {**settings_for(planned), "DATABASE_URL": app}
    run("init", settings).refused("refused the login", "Check the user and password")
    assert asyncio.run(identity(planned.app))[0].startswith("Test ")


def test_init_makes_the_bucket(run: Run, own: dict[str, str], influx_server: InfluxServer) -> None:
    bucket = f"test-{uuid4().hex}"
    settings = {
        **own,
        "INFLUXDB_URL": influx_server.url,
        "INFLUXDB_TOKEN": influx_server.token,
        "INFLUXDB_ORG": influx_server.org,
        "INFLUXDB_BUCKET": bucket,
    }
    try:
        assert run("init", "--json", settings).json["bucket_made"] is True
        assert run("init", "--json", settings).json["bucket_made"] is False
        finding = next(f for f in run("check", "--json", settings).json["findings"] if f["subject"] == "metrics")
        assert finding["ok"] is True
        assert finding["facts"]["server"] == "InfluxDB"
        missing = {**settings, "INFLUXDB_BUCKET": f"no-{bucket}"}
        finding = next(f for f in run("check", "--json", missing).json["findings"] if f["subject"] == "metrics")
        assert finding["ok"] is False
        assert finding["remedy"] == "freeagentics-db init"
    finally:
        with suppress(Exception):
            influx_server.delete_bucket(bucket)


async def test_two_inits_at_once(run: Run, planned: ServerUrls) -> None:
    settings = settings_for(planned)
    both = await asyncio.gather(*(asyncio.to_thread(run, "init", "--json", settings) for _ in range(2)))
    assert [outcome.code for outcome in both] == [0, 0], both
    assert (await asyncio.to_thread(run, "check", settings)).code == 0


async def test_a_password_beyond_ascii_is_refused(servers: ServerUrls) -> None:
    assert servers.admin is not None
    with pytest.raises(ConfigurationError, match="the password of someone is not printable ASCII"):
        await create_logins(servers.admin, [("someone", "schlüssel")])


def test_a_verifier_differs_each_time() -> None:
    assert scram_verifier("a", "b") != scram_verifier("a", "b")


def test_embedded(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    settings = {"FREEAGENTICS_DATA_FOLDER": str(folder)}
    early = run("check", "--json", settings)
    assert early.code == 1
    assert early.json["findings"][0]["remedy"] == "freeagentics-db init"
    assert not folder.exists()

    done = run("init", settings)
    assert done.code == 0, done
    assert f"data      {folder}" in done.out
    assert f"key       {folder / 'encryption.key'}; keep a copy of it" in done.out
    assert not (folder / "postgres" / "postmaster.pid").exists()
    checked = run("check", "--json", settings)
    assert checked.code == 0, checked
    assert checked.json["ok"] is True

    key = folder / "encryption.key"
    key.rename(folder / "copy.key")
    lost = run("check", "--json", settings)
    assert lost.code == 1
    finding = next(finding for finding in lost.json["findings"] if finding["subject"] == "keyring")
    assert str(key) in finding["summary"]
    assert "does not exist" in finding["summary"]
    assert not key.exists()


@pytest.mark.usefixtures("template")  # by then a superuser has made the group roles
async def test_init_by_a_login_that_is_no_superuser(run: Run, servers: ServerUrls, planned: ServerUrls) -> None:
    assert servers.admin is not None
    boss = f"boss_{uuid4().hex}"
    await run_as_admin(servers, f"CREATE ROLE {boss} LOGIN CREATEDB CREATEROLE PASSWORD 'of the boss'")
    try:
        settings = settings_for(planned, DATABASE_ADMIN_URL=with_login(servers.admin, boss, "of the boss"))
        refused = await asyncio.to_thread(run, "init", settings)
        refused.refused(f"the login {boss} may not set up the database", "DATABASE_ADMIN_URL")
        for role in ROLES:
            await run_as_admin(servers, f"GRANT {role} TO {boss} WITH ADMIN OPTION")
        await run_as_admin(servers, f"GRANT pg_read_all_stats TO {boss} WITH ADMIN OPTION")
        done = await asyncio.to_thread(run, "init", settings)
        assert done.code == 0, done
        assert (await asyncio.to_thread(run, "check", settings)).code == 0
    finally:
        name = (await identity(in_database(servers.admin, "postgres")))[1]
        await run_as_admin(servers, f'DROP DATABASE IF EXISTS "{database_name(planned.app)}" WITH (FORCE)')
        await run_as_admin(servers, f"REASSIGN OWNED BY {boss} TO {name}")
        await run_as_admin(servers, f"DROP OWNED BY {boss} CASCADE")
        await run_as_admin(servers, f"DROP ROLE {boss}")
