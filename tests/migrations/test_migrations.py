"""Migrations forward, back and forward again, with rows in the tables, on every way there is."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from urllib.parse import quote, urlsplit

import asyncpg
import pytest

from freeagentics_persistence import Agent, Beliefs, Coalition, HistoryPolicy, Persistence
from freeagentics_persistence.database.bootstrap import OWNER
from freeagentics_persistence.database.engine import Database, DatabaseOptions
from freeagentics_persistence.errors import MigrationFailed, SchemaMismatch
from freeagentics_persistence.operations.migration_manager import MigrationManager, migrations_folder
from freeagentics_persistence.operations.servers import ServerUrls, set_up_roles
from tests.conftest import run_as_admin, settings_of

REVISIONS = [f"{number:04}" for number in range(1, 14)]
TABLES = [
    "tenants",
    "keyring",
    "epochs",
    "agents",
    "deleted_agents",
    "agent_history",
    "history_policies",
    "accepted_revisions",
    "coalitions",
    "coalition_members",
    "coalition_performance",
    "events",
    "relay_positions",
]


def manager_of(urls: ServerUrls) -> MigrationManager:
    return MigrationManager(Database(urls.migrator, DatabaseOptions(role=OWNER), pooled=False))


async def fill(urls: ServerUrls) -> Agent:
    """Rows in every table."""
    async with Persistence.open(settings_of(urls)) as store:
        await store.history.set_policy("t", HistoryPolicy.every(3))
        agent = await store.agents.save_agent(Agent(name="a", agent_type="t", beliefs=Beliefs.uniform(3)))
        await store.agents.update_beliefs(agent.id, [1.0, 0.0, 0.0])
        gone = await store.agents.save_agent(Agent(name="b", agent_type="t"))
        coalition = await store.coalitions.save_coalition(Coalition(name="c", business_model="m"))
        await store.coalitions.add_members(coalition.id, [agent.id, gone.id])
        await store.coalitions.record_revenue(coalition.id, 1)
        await store.agents.delete_agent(gone.id)
        return agent


async def test_forward_back_and_forward_again_with_rows(urls: ServerUrls, admin: asyncpg.Connection) -> None:
    manager = manager_of(urls)
    await fill(urls)
    for table in TABLES:
        if table != "events":  # a relay may have delivered them already
            assert await admin.fetchval(f"SELECT count(*) FROM {table}") > 0, table
    for target in [*reversed(REVISIONS[:-1]), "base"]:
        status = await manager.rollback_migration(target)
        assert status.current == (None if target == "base" else target)
    left = await admin.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert [row["tablename"] for row in left] == ["alembic_version"]
    functions = await admin.fetch("SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace")
    assert functions == []
    for target in REVISIONS:
        assert (await manager.run_migrations(target)).current == target
    assert await manager.differences() == []
    await fill(urls)


async def test_scores_that_were_set_by_hand_are_ranked(urls: ServerUrls, admin: asyncpg.Connection) -> None:
    await fill(urls)
    await manager_of(urls).rollback_migration("0007")
    assert await admin.fetchval("SELECT count(*) FROM coalition_performance") == 1  # the booking
    await admin.execute("UPDATE coalition_members SET contribution_score = 7.25")
    await manager_of(urls).run_migrations()
    assert await admin.fetchval("SELECT rank_key FROM coalition_members") == -725


async def test_going_back_leaves_out_what_was_skipped_in_a_dropped_partition(
    urls: ServerUrls, admin: asyncpg.Connection
) -> None:
    agent = await fill(urls)  # its version 2 is skipped
    await admin.execute("UPDATE agents SET updated_at = updated_at - interval '3 years'")
    assert (await manager_of(urls).rollback_migration("0007")).current == "0007"
    versions = await admin.fetch("SELECT version FROM agent_history WHERE agent_id = $1 ORDER BY version", agent.id)
    assert [row["version"] for row in versions] == [1]


async def test_models_and_migrated_schema_are_equal(urls: ServerUrls) -> None:
    manager = manager_of(urls)
    status = await manager.status()
    assert (status.is_current, status.current, status.pending) == (True, REVISIONS[-1], ())
    assert await manager.differences() == []


async def test_a_changed_schema_is_noticed(urls: ServerUrls, admin: asyncpg.Connection) -> None:
    await admin.execute("ALTER TABLE agents ADD COLUMN extra integer")
    differences = await manager_of(urls).differences()
    assert "extra" in str(differences)


async def test_two_runners_at_once_are_safe(empty_database: ServerUrls) -> None:
    await set_up_roles(empty_database)
    runs = [manager_of(empty_database).run_migrations() for _ in range(4)]
    assert all(status.is_current for status in await asyncio.gather(*runs))


async def test_a_database_that_is_not_migrated_is_refused_with_the_next_command(empty_database: ServerUrls) -> None:
    await set_up_roles(empty_database)
    database = {"url": empty_database.app, "migrator_url": empty_database.migrator, "auto_migrate": False}
    with pytest.raises(SchemaMismatch, match="freeagentics-db migrate"):
        async with Persistence.open(settings_of(empty_database, database=database), relay="off"):
            pass


async def test_a_locked_table_makes_the_migration_give_way(
    urls: ServerUrls, admin: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("freeagentics_persistence.operations.migration_manager.LOCK_TIMEOUT", "200ms")
    async with admin.transaction():
        await admin.execute("LOCK TABLE agents IN ACCESS SHARE MODE")
        with pytest.raises(MigrationFailed, match="stayed locked"):
            await manager_of(urls).rollback_migration("0001")
    assert (await manager_of(urls).run_migrations()).is_current


async def test_an_unknown_revision_is_one_clear_error(urls: ServerUrls) -> None:
    with pytest.raises(MigrationFailed, match="9999"):
        await manager_of(urls).run_migrations("9999")


async def test_a_password_with_any_characters_migrates(
    servers: ServerUrls, empty_database: ServerUrls, admin: asyncpg.Connection
) -> None:
    password = "p%20@:/?#[]%s'\"\\ ü"
    login = f"odd_{urlsplit(empty_database.app).path.lstrip('/')}"
    literal = await admin.fetchval("SELECT quote_literal($1::text)", password)
    await run_as_admin(servers, f"CREATE ROLE {login} LOGIN PASSWORD {literal}")
    try:
        parts = urlsplit(empty_database.migrator)
        url = parts._replace(netloc=f"{login}:{quote(password, safe='')}@").geturl()
        urls = ServerUrls(
            admin=empty_database.admin,
            migrator=url,
            app=empty_database.app,
            relay=empty_database.relay,
            redis=empty_database.redis,
        )
        await set_up_roles(urls)
        assert (await manager_of(urls).run_migrations()).is_current
    finally:
        await run_as_admin(servers, f"DROP ROLE {login}")


async def test_create_migration_writes_what_differs(
    urls: ServerUrls, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    folder = tmp_path / "migrations"
    shutil.copytree(migrations_folder(), folder)
    await admin.execute("DROP INDEX idx_agents_last_active")
    manager = MigrationManager(Database(urls.migrator, DatabaseOptions(role=OWNER), pooled=False), script_folder=folder)
    path = await manager.create_migration("bring the index back")
    text = path.read_text()
    assert "idx_agents_last_active" in text
    assert "def downgrade" in text
