"""A database of 100,000 agents in 5,000 coalitions, with history over months, filled inside the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import asyncpg
import h3.api.basic_int as h3
import pytest

from freeagentics_persistence import DEFAULT_TENANT_ID, Persistence, Settings
from freeagentics_persistence.operations.servers import ServerUrls
from tests.conftest import database_urls, run_as_admin, settings_of
from tests.support.plans import EXPLAINED, Plans, listening

NAME = "plans"
CELL = h3.latlng_to_cell(52.37, 4.90, 9)
FILL = (
    # of every hundred one has no beliefs, so that it can be read without their key
    """
    INSERT INTO agents (tenant_id, id, name, agent_type, location_h3, status, last_active_at, created_at, updated_at,
        version, revision, newest_revision, belief_state)
    SELECT $1, md5('a' || n)::uuid, 'agent ' || n, 'type ' || n % 10, cells[1 + n * 7919 % cardinality(cells)],
        CASE WHEN n % 20 = 3 THEN 'inactive' ELSE 'active' END, now() - n * interval '1 second',
        now() - interval '40 days', now(), 2, md5('r2' || n)::uuid, '00000000-0000-7000-8000-000000000000',
        CASE WHEN n % 100 <> 0 THEN decode(repeat(md5(n::text), 6), 'hex') END
    FROM generate_series(1, 100000) AS n, (SELECT $2::bigint[] AS cells) AS near
    """,
    # a year of months before those that are made anyway
    """
    DO $$ BEGIN
        FOR ago IN 2..13 LOOP
            EXECUTE (
                SELECT format('CREATE TABLE agent_history_%s PARTITION OF agent_history FOR VALUES FROM (%L) TO (%L)',
                    to_char(month AT TIME ZONE 'UTC', 'YYYY_MM'), month, date_trunc('month', month + '40 days', 'UTC'))
                FROM (SELECT (date_trunc('month', now() AT TIME ZONE 'UTC') - make_interval(months => ago))
                    AT TIME ZONE 'UTC' AS month) AS former);
        END LOOP;
    END $$
    """,
    """
    INSERT INTO agent_history (tenant_id, agent_id, recorded_at, version, revision, energy_level)
    SELECT $1, md5('a' || n)::uuid, date_trunc('month', now(), 'UTC') - make_interval(days => 40 + 30 * (n % 11)), 0,
        md5('r0' || n)::uuid, 100
    FROM generate_series(1, 10000) AS n
    """,
    # one version in the last month but one, one a moment ago
    """
    INSERT INTO agent_history (tenant_id, agent_id, recorded_at, version, revision, energy_level)
    SELECT $1, md5('a' || n)::uuid, moment, version, md5('r' || version || n)::uuid, 100
    FROM generate_series(1, 100000) AS n,
        (VALUES (1, date_trunc('month', now(), 'UTC') - interval '3 days'), (2, now() - interval '1 minute'))
            AS v (version, moment)
    """,
    """
    INSERT INTO coalitions (tenant_id, id, name, business_model, status, revision)
    SELECT $1, md5('c' || n)::uuid, 'c', 'model ' || n % 10, CASE WHEN n > 4500 THEN 'forming' ELSE 'active' END,
        md5('cr' || n)::uuid
    FROM generate_series(1, 5000) AS n
    """,
    """
    INSERT INTO coalition_members (tenant_id, coalition_id, agent_id)
    SELECT $1, md5('c' || 1 + (row_number() OVER (ORDER BY location_h3, id) - 1) / 20)::uuid, id
    FROM agents WHERE tenant_id = $1
    """,
    """
    INSERT INTO coalition_performance (tenant_id, coalition_id, recorded_at, revision, member_count, revenue,
        revenue_per_member)
    SELECT $1, md5('c' || n)::uuid, now() - k * interval '1 minute', md5('p' || n || k)::uuid, 20, 1, 0.05
    FROM generate_series(1, 5000) AS n, generate_series(1, 4) AS k
    """,
)


@pytest.fixture(scope="module")
def filled(servers: ServerUrls, template: str) -> Iterator[Settings]:
    """The database; its connections report their plans."""

    async def fill(urls: ServerUrls) -> None:
        await run_as_admin(servers, f"CREATE DATABASE {NAME} TEMPLATE {template} STRATEGY WAL_LOG")
        for name, value in EXPLAINED.items():
            await run_as_admin(servers, f"ALTER DATABASE {NAME} SET {name} = '{value}'")
        assert urls.admin is not None
        connection = await asyncpg.connect(urls.admin, server_settings={"auto_explain.log_min_duration": "-1"})
        cells = h3.grid_disk(CELL, 57)
        for statement in FILL:
            await connection.execute(
                statement, *(DEFAULT_TENANT_ID, cells)[: ("$1" in statement) + ("$2" in statement)]
            )
        await connection.execute("VACUUM ANALYZE")
        await connection.close()

    urls = database_urls(servers, NAME)
    asyncio.run(fill(urls))
    # one connection, so that each statement comes to its generic plan
    database = {
        "url": urls.app,
        "migrator_url": urls.migrator,
        "admin_url": urls.admin,
        "pool_size": 1,
        "batch_connections": 1,
    }
    yield settings_of(urls, database=database)
    asyncio.run(run_as_admin(servers, f"DROP DATABASE {NAME} WITH (FORCE)"))


@pytest.fixture
def plans() -> Plans:
    """What the test's store reports."""
    return Plans()


@pytest.fixture
async def big_store(filled: Settings, plans: Plans) -> AsyncIterator[Persistence]:
    """An open store on that database."""
    with listening(plans):
        async with Persistence.open(filled, relay="off") as store:
            await plans.taken()
            yield store
