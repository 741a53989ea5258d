"""Fixtures: an InfluxDB for each worker, an empty bucket for each test, and ``series``, once for each store."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from freeagentics_persistence.database.engine import Database
from freeagentics_persistence.database.repositories.tenants import TenantRepository
from freeagentics_persistence.database.time_series import PostgresMetricsStore
from freeagentics_persistence.database.write_pace import WritePace
from freeagentics_persistence.database.writes.outbox import DatabaseOutbox
from freeagentics_persistence.encryption.key_providers import EnvironmentKeyProvider, generate_key
from freeagentics_persistence.encryption.keyring import KeyringSealer
from freeagentics_persistence.metrics.influx_store import InfluxMetricsStore
from tests.support import influx
from tests.support.influx import InfluxServer
from tests.support.metrics import InfluxSeries, PostgresSeries, Series


@pytest.fixture(scope="session")
def influx_server() -> Iterator[InfluxServer]:
    """InfluxDB of this worker; skips where there is none."""
    with influx.influx_server() as server:
        yield server


@pytest.fixture
async def influx_store(influx_server: InfluxServer) -> AsyncIterator[InfluxMetricsStore]:
    """A store on an empty bucket of its own, deleted after the test."""
    bucket = f"test-{secrets.token_hex(8)}"
    async with AsyncExitStack() as stack:
        store = influx_server.store(bucket)
        stack.push_async_callback(store.close)
        await store.ensure_bucket()
        stack.callback(influx_server.delete_bucket, bucket)
        yield store


@pytest.fixture
def influxdb_series(influx_store: InfluxMetricsStore) -> InfluxSeries:
    """InfluxDB with an empty bucket."""
    return InfluxSeries(influx_store)


@pytest.fixture
def postgresql_series(app_database: Database) -> PostgresSeries:
    """PostgreSQL with an empty database."""
    return PostgresSeries(PostgresMetricsStore(app_database), app_database)


@pytest.fixture(params=["influxdb", "postgresql"])
def series(request: pytest.FixtureRequest) -> Series:
    """Each of the stores."""
    found: Series = request.getfixturevalue(f"{request.param}_series")
    return found


@pytest.fixture
def sealer(app_database: Database) -> KeyringSealer:
    """Seals with keys that live as long as the test."""
    return KeyringSealer(EnvironmentKeyProvider([generate_key()]), TenantRepository(app_database))


@pytest.fixture
def outbox(app_database: Database, sealer: KeyringSealer) -> DatabaseOutbox:
    """The outbox of the test's database, which no relay reads."""
    return DatabaseOutbox(
        app_database, sealer, lambda: None, WritePace(app_database, uuid4(), 0, 1), revision_memory=timedelta(hours=24)
    )


@pytest.fixture
def tenant_id() -> UUID:
    """A tenant."""
    return uuid4()


@pytest.fixture
def agent_id() -> UUID:
    """An agent."""
    return uuid4()
