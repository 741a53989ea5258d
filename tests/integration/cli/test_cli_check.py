"""check: every kind of thing that may be wrong, each with its remedy, and the others still shown."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import asyncpg
import pytest

from freeagentics_persistence.database.engine import Database
from freeagentics_persistence.domain.agents import Agent
from freeagentics_persistence.encryption.key_providers import generate_key
from freeagentics_persistence.operations import relay_health
from freeagentics_persistence.operations.relay_health import look_at_relay
from freeagentics_persistence.operations.servers import ServerUrls, set_up_roles
from freeagentics_persistence.persistence import Persistence
from freeagentics_persistence.settings import Settings
from tests.integration.cli.cli_helpers import Outcome, Run, settings_for, with_password

NOWHERE = "127.0.0.1:1"


def findings(outcome: Outcome) -> dict[str, dict[str, Any]]:
    """By subject; the report and the exit code agree."""
    report = outcome.json
    assert report["ok"] == all(finding["ok"] for finding in report["findings"])
    assert outcome.code == (0 if report["ok"] else 1)
    assert outcome.err == ""
    for finding in report["findings"]:
        assert (finding["remedy"] is None) == finding["ok"], finding
    return {finding["subject"]: finding for finding in report["findings"]}


def wrong(outcome: Outcome) -> dict[str, dict[str, Any]]:
    return {subject: finding for subject, finding in findings(outcome).items() if not finding["ok"]}


async def execute(url: str | None, statement: str) -> None:
    assert url is not None
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def test_all_is_well(run: Run, own: dict[str, str]) -> None:
    assert run("init", own).code == 0
    found = findings(run("check", "--json", own))
    assert list(found) == [
        "PostgreSQL",
        "clock",
        "migrations",
        "keyring",
        "history",
        "relay to cache",
        "relay to updates",
        "transactions",
        "Redis",
        "metrics",
    ]
    assert all(finding["ok"] for finding in found.values())
    assert found["PostgreSQL"]["facts"]["version"].startswith("18.")
    assert 0 < found["PostgreSQL"]["facts"]["latency_ms"] < 1000
    assert abs(found["clock"]["facts"]["offset_ms"]) < 1000
    assert found["migrations"]["facts"]["current"] == found["migrations"]["facts"]["head"]
    assert found["keyring"]["facts"]["data_keys"] == 1
    assert found["Redis"]["facts"]["server"] == "Valkey"
    assert 0 < found["Redis"]["facts"]["latency_ms"] < 1000
    assert found["relay to cache"]["facts"]["behind_events"] == 0

    shown = run("check", own)
    assert shown.code == 0
    lines = shown.out.splitlines()
    assert len(lines) == len(found) + 1
    assert lines[0].split()[:2] == ["ok", "PostgreSQL"]
    assert lines[-1] == "Everything is as it should be."


def test_one_server_is_down_and_the_others_are_shown(run: Run, own: dict[str, str]) -> None:
    down = wrong(run("check", "--json", {**own, "DATABASE_URL": f"postgresql://me@{NOWHERE}/swarm"}))
    assert list(down) == ["PostgreSQL"]
    assert f"PostgreSQL at {NOWHERE}/swarm cannot be reached" in down["PostgreSQL"]["summary"]
    assert "DATABASE_URL" in down["PostgreSQL"]["remedy"]
    down = wrong(run("check", "--json", {**own, "REDIS_URL": f"redis://{NOWHERE}/0"}))
    assert list(down) == ["Redis"]
    assert "REDIS_URL" in down["Redis"]["remedy"]
    settings = {**own, "INFLUXDB_URL": f"http://{NOWHERE}", "INFLUXDB_TOKEN": "token"}
    down = wrong(run("check", "--json", settings))
    assert list(down) == ["metrics"]

    shown = run("check", {**own, "REDIS_URL": f"redis://{NOWHERE}/0"})
    assert shown.code == 1
    assert shown.out.count("WRONG") == 1
    assert shown.out.splitlines()[-1].startswith("next, for Redis: start it")


def test_a_login_is_refused(run: Run, own: dict[str, str]) -> None:
    settings = {**own, "DATABASE_RELAY_URL": with_password(own["DATABASE_RELAY_URL"], "nonsense1234")}
    down = wrong(run("check", "--json", settings))
    assert list(down) == ["relay"]
    assert "refused the login" in down["relay"]["summary"]
    assert "DATABASE_RELAY_URL" in down["relay"]["remedy"]


async def test_a_database_without_schema_or_roles(run: Run, empty_database: ServerUrls) -> None:
    await set_up_roles(empty_database)
    down = wrong(await asyncio.to_thread(run, "check", "--json", settings_for(empty_database)))
    assert down["migrations"]["remedy"] == "freeagentics-db migrate"
    assert down["migrations"]["facts"]["current"] is None


async def test_a_login_that_passes_row_level_security(run: Run, urls: ServerUrls, own: dict[str, str]) -> None:
    await execute(urls.admin, "CREATE ROLE too_strong; ALTER ROLE freeagentics_app BYPASSRLS")
    try:
        down = wrong(await asyncio.to_thread(run, "check", "--json", own))
        assert "can pass row-level security" in down["PostgreSQL"]["summary"]
    finally:
        await execute(urls.admin, "DROP ROLE too_strong; ALTER ROLE freeagentics_app NOBYPASSRLS")


async def test_a_schema_of_newer_code(run: Run, urls: ServerUrls, own: dict[str, str]) -> None:
    await execute(urls.admin, "UPDATE alembic_version SET version_num = '9999'")
    down = wrong(await asyncio.to_thread(run, "check", "--json", own))
    assert "which this version does not know" in down["migrations"]["summary"]


def test_another_key(run: Run, own: dict[str, str]) -> None:
    assert run("init", own).code == 0
    down = wrong(run("check", "--json", {**own, "ENCRYPTION_KEY": generate_key()}))
    assert list(down) == ["keyring"]
    assert "sealed under the key env:" in down["keyring"]["summary"]


def test_no_key(run: Run, own: dict[str, str]) -> None:
    assert run("init", own).code == 0
    down = wrong(run("check", "--json", {**own, "ENCRYPTION_KEY": ""}))
    assert list(down) == ["keyring"]
    assert "ENCRYPTION_KEY_FILE is not set" in down["keyring"]["summary"]


async def test_a_partition_is_missing_and_the_keeper_makes_it(run: Run, urls: ServerUrls, own: dict[str, str]) -> None:
    before = findings(await asyncio.to_thread(run, "check", "--json", own))
    partition = before["history"]["facts"]["partition"]
    await execute(urls.admin, f"DROP TABLE {partition}")
    down = wrong(await asyncio.to_thread(run, "check", "--json", own))
    assert list(down) == ["history"]
    begins = datetime.fromisoformat(before["history"]["facts"]["begins"])
    assert partition == f"agent_history_{begins:%Y_%m}"
    assert f"from {begins:%Y-%m-%d} on, is missing" in down["history"]["summary"]
    assert down["history"]["remedy"] == "freeagentics-db partitions keep"
    assert (await asyncio.to_thread(run, "partitions", "keep", own)).code == 0
    assert (await asyncio.to_thread(run, "check", own)).code == 0


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes a minute to go wrong does so at once."""
    monkeypatch.setattr(relay_health, "LAG_SECONDS", 0.0)
    monkeypatch.setattr(relay_health, "OPEN_SECONDS", 0.1)


@pytest.mark.usefixtures("impatient")
async def test_a_sink_that_nobody_serves_lags_until_it_is_served(
    settings: Settings, app_database: Database, relay_database: Database
) -> None:
    async with Persistence.open(settings, relay="off") as store:
        await store.agents.save_agents([Agent(name=f"a{i}", agent_type="t") for i in range(3)])
        cache, updates, transactions = await look_at_relay(settings, app_database, relay_database)
        for finding in (cache, updates):
            assert not finding.ok
            assert finding.remedy == "freeagentics-db relay"
            assert finding.facts["behind_events"] == 3
            assert finding.facts["behind_seconds"] > 0
            assert finding.facts["served_by_pid"] is None
        assert transactions.ok
    async with Persistence.open(settings):
        async with asyncio.timeout(20):
            while True:
                cache, updates, _ = await look_at_relay(settings, app_database, relay_database)
                if cache.ok and updates.ok and cache.facts["served_by_pid"] and updates.facts["served_by_pid"]:
                    break
                await asyncio.sleep(0.05)
        assert cache.facts["delivered"] == updates.facts["delivered"] == 3
        relays = "SELECT pid FROM pg_stat_activity WHERE usename = 'freeagentics_relay_login'"
        pids = {row["pid"] for row in await app_database.fetch(relays)}
        assert {cache.facts["served_by_pid"], updates.facts["served_by_pid"]} <= pids
    cache, updates, _ = await look_at_relay(settings, app_database, relay_database)
    assert cache.ok
    assert "served by no process" in cache.summary


async def test_what_a_sink_will_never_have_is_told_and_who_is_waited_for(
    settings: Settings, app_database: Database, relay_database: Database, urls: ServerUrls
) -> None:
    async with Persistence.open(settings, relay="off"):
        pass
    places = "INSERT INTO relay_positions (sink, epoch, done_snapshot, delivered, left_out, missed, retired) SELECT"
    await execute(urls.admin, f"{places} 'metrics', id, '1:1:', 9, 2, 0, false FROM epochs")
    await execute(urls.admin, f"{places} 'former', gen_random_uuid(), '1:1:', 9, 2, 0, false")
    await execute(urls.admin, f"{places} 'unwanted', id, '1:1:', 9, 0, 0, true FROM epochs")
    await execute(urls.admin, f"{places} 'cache', id, '1:1:', 9, 0, 7, false FROM epochs")
    found = {each.facts.get("sink"): each for each in await look_at_relay(settings, app_database, relay_database)}
    assert "former" not in found
    assert "2 left out, as its server refused them" in found["metrics"].summary
    assert "7 given up" in found["cache"].summary
    assert "retired, as no relay is configured with it" in found["unwanted"].summary
    assert found["unwanted"].ok


@pytest.mark.usefixtures("impatient")
async def test_a_transaction_that_stays_open_is_named(
    settings: Settings, app_database: Database, relay_database: Database, urls: ServerUrls
) -> None:
    connection = await asyncpg.connect(urls.admin, server_settings={"application_name": "forgetful"})
    async with connection.transaction():
        await connection.execute("SELECT pg_current_xact_id()")
        await asyncio.sleep(0.2)
        *_, finding = await look_at_relay(settings, app_database, relay_database)
        assert not finding.ok
        pid = connection.get_server_pid()
        assert finding.facts["pid"] == pid
        assert f"backend {pid} (postgres, forgetful, idle in transaction)" in finding.summary
        assert finding.remedy is not None
        assert f"pg_terminate_backend({pid})" in finding.remedy
    await connection.close()
    *_, finding = await look_at_relay(settings, app_database, relay_database)
    assert finding.ok
