"""No query crosses tenants: by the repositories, and by row-level security alone."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import numpy as np
import pytest
import sqlalchemy as sa

from freeagentics_persistence import DEFAULT_TENANT_ID, Agent, Beliefs, Coalition, HistoryPolicy, Persistence, RowStatus
from freeagentics_persistence.database.bootstrap import APP
from freeagentics_persistence.database.engine import Database, DatabaseOptions
from freeagentics_persistence.database.models import metadata
from freeagentics_persistence.errors import AlreadyExists, PersistenceError, UnknownCoalition, UnknownTenant
from freeagentics_persistence.operations.servers import ServerUrls

OWNED = (
    "agents",
    "agent_history",
    "history_policies",
    "accepted_revisions",
    "deleted_agents",
    "coalitions",
    "coalition_members",
    "coalition_performance",
)


async def test_another_tenants_ids_show_and_change_nothing(quiet_store: Persistence, admin: asyncpg.Connection) -> None:
    ours, theirs = quiet_store, await quiet_store.create_tenant("other")
    agent = await ours.agents.save_agent(Agent(name="a", agent_type="t", beliefs=Beliefs.uniform(2)))
    coalition = await ours.coalitions.save_coalition(Coalition(name="c", business_model="m"))
    await ours.coalitions.add_members(coalition.id, [agent.id])
    before = await admin.fetch("SELECT * FROM agents")
    assert await theirs.agents.get_agent(agent.id) is None
    assert await theirs.agents.get_beliefs(agent.id) is None
    assert await theirs.agents.delete_agent(agent.id) is False
    result = await theirs.agents.update_beliefs_many([agent.id], np.array([[1.0, 0]]))
    assert result.status.tolist() == [RowStatus.UNKNOWN_AGENT]
    assert not (await theirs.agents.get_beliefs_at([agent.id], datetime.now(UTC))).present.any()
    assert [change async for change in theirs.agents.get_belief_history(agent.id)] == []
    assert await theirs.coalitions.get_coalition(coalition.id) is None
    with pytest.raises(UnknownCoalition):
        await theirs.coalitions.add_members(coalition.id, [agent.id])
    with pytest.raises(UnknownCoalition):
        await theirs.cache.is_coalition_member(coalition.id, agent.id)
    assert await admin.fetch("SELECT * FROM agents") == before


async def test_one_id_may_live_in_two_tenants(quiet_store: Persistence) -> None:
    theirs = await quiet_store.create_tenant("other")
    agent = await quiet_store.agents.save_agent(Agent(name="a", agent_type="t", beliefs=Beliefs([1.0, 0])))
    twin = await theirs.agents.save_agent(Agent(id=agent.id, name="b", agent_type="t", beliefs=Beliefs([0, 1.0])))
    assert await quiet_store.agents.get_beliefs(agent.id) == agent.beliefs
    assert await theirs.agents.get_beliefs(agent.id) == twin.beliefs


@pytest.mark.parametrize("table", [*OWNED, "keyring"])
async def test_row_level_security_alone_keeps_tenants_apart(
    quiet_store: Persistence, app_database: Database, admin: asyncpg.Connection, table: str
) -> None:
    agent = await quiet_store.agents.save_agent(Agent(name="a", agent_type="t", beliefs=Beliefs.uniform(2)))
    await quiet_store.history.set_policy("t", HistoryPolicy.every(2))
    await quiet_store.agents.update_beliefs(agent.id, [0.5, 0.5])
    gone = await quiet_store.agents.save_agent(Agent(name="b", agent_type="t"))
    await quiet_store.agents.delete_agent(gone.id)
    coalition = await quiet_store.coalitions.save_coalition(Coalition(name="c", business_model="m"))
    await quiet_store.coalitions.add_members(coalition.id, [agent.id])
    await quiet_store.coalitions.record_revenue(coalition.id, 1)
    other = (await quiet_store.create_tenant("other")).tenant_id
    owned = metadata.tables[table]
    assert await admin.fetchval(f"SELECT count(*) FROM {table}") > 0
    async with app_database.read(other) as connection:
        rows = (await connection.execute(sa.select(owned))).all()
    assert [row for row in rows if row.tenant_id != other] == []
    without_tenant = await app_database.fetch(f"SELECT count(*) AS n FROM {table}")
    assert without_tenant[0]["n"] == 0
    ours = (await admin.fetch(f"SELECT * FROM {table} LIMIT 1"))[0]
    values = {**dict(ours), **({"key_id": uuid4()} if table == "keyring" else {})}
    with pytest.raises(PersistenceError, match="row-level security"):
        async with app_database.write(other) as connection:
            await connection.execute(sa.insert(owned).inline().values(**values))


async def test_row_level_security_is_forced_on_every_owned_table(admin: asyncpg.Connection) -> None:
    rows = await admin.fetch(
        "SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity AS forced FROM pg_class c "
        "JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' "
        "WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relnamespace = 'public'::regnamespace"
    )
    assert {row["relname"] for row in rows} == {*OWNED, "events", "keyring"}
    assert all(row["forced"] for row in rows)
    partitions = await admin.fetch(
        "SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r' "
        "AND has_table_privilege('freeagentics_app', oid, 'SELECT')"
    )
    assert partitions == []


async def test_applications_cannot_read_events_or_write_epochs(app_database: Database) -> None:
    for statement in ("SELECT * FROM events", "DELETE FROM epochs", "CREATE TABLE x (i int)", "TRUNCATE agents"):
        with pytest.raises(PersistenceError, match="permission denied"):
            await app_database.fetch(statement)


@pytest.mark.parametrize(("column", "value"), [("id", "9000000000000000000"), ("xid", "'9000000000000000000'::xid8")])
async def test_applications_cannot_choose_places_in_the_feed(app_database: Database, column: str, value: str) -> None:
    # one id from far ahead would make the relay pass over everybody's events up to it
    with pytest.raises(PersistenceError, match="permission denied"):
        await app_database.fetch(
            f"INSERT INTO events (tenant_id, subject_id, type, version, revision, recorded_at, {column}) "
            f"OVERRIDING SYSTEM VALUE VALUES ($1, $1, 'x', 1, $1, now(), {value})",
            DEFAULT_TENANT_ID,
        )


async def test_an_unknown_tenant_is_an_error(quiet_store: Persistence) -> None:
    stranger = quiet_store.tenant(uuid4())
    for call in (
        stranger.agents.save_agent(Agent(name="a", agent_type="t")),
        stranger.agents.get_agent(uuid4()),
        stranger.agents.get_beliefs(uuid4()),
        stranger.agents.delete_agent(uuid4()),
        stranger.agents.update_beliefs(uuid4(), [1.0]),
        stranger.coalitions.save_coalition(Coalition(name="c", business_model="m")),
        stranger.coalitions.list_coalitions(),
    ):
        with pytest.raises(UnknownTenant, match=str(stranger.tenant_id)):
            await call


async def test_tenants_have_names_of_their_own(quiet_store: Persistence) -> None:
    await quiet_store.create_tenant("x")
    with pytest.raises(AlreadyExists, match="'x'"):
        await quiet_store.create_tenant("x")


async def test_commits_wait_for_the_disk_whatever_the_logins_default_is(
    urls: ServerUrls, admin: asyncpg.Connection
) -> None:
    name = urlsplit(urls.app).path.lstrip("/")
    await admin.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    database = Database(urls.app, DatabaseOptions(role=APP))
    rows = await database.fetch("SELECT current_setting('synchronous_commit') AS value, current_user AS role")
    assert (rows[0]["value"], rows[0]["role"]) == ("on", APP)
    await database.close()


async def test_temporary_objects_cannot_borrow_the_owners_rights(
    app_database: Database, admin: asyncpg.Connection
) -> None:
    """A function with the owner's rights must not find a table that its caller made."""
    with pytest.raises(PersistenceError, match="permission denied"):
        await app_database.fetch("CREATE TEMPORARY TABLE epochs (id uuid)")
    unsafe = await admin.fetch(
        "SELECT proname FROM pg_proc WHERE prosecdef AND pronamespace = 'public'::regnamespace "
        "AND NOT 'search_path=pg_catalog, pg_temp' = ANY (coalesce(proconfig, '{}'))"
    )
    assert unsafe == []
