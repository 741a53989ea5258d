"""Fixtures: real servers for each worker, a database cloned from a migrated template for each test."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from freeagentics_persistence.database.bootstrap import APP, OWNER, RELAY, create_database
from freeagentics_persistence.database.engine import Database, DatabaseOptions
from freeagentics_persistence.embedded import EmbeddedServers
from freeagentics_persistence.encryption.key_providers import generate_key
from freeagentics_persistence.operations.migration_manager import MigrationManager
from freeagentics_persistence.operations.servers import ServerUrls, set_up_roles
from freeagentics_persistence.persistence import Persistence
from freeagentics_persistence.settings import Settings
from tests.support.relay import MakeReader, making_readers

TEMPLATE = "template_migrated"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """In continuous integration every server is there, so a skipped test is a failed one."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"skipped, and in CI nothing may be: {report.longrepr}"
    return report


def in_database(url: str, name: str) -> str:
    """The same server and login, another database."""
    return urlsplit(url)._replace(path=f"/{name}").geturl()


@pytest.fixture(scope="session")
def servers() -> Iterator[ServerUrls]:
    """PostgreSQL and Valkey of this worker alone, as a write transaction of one test would hold back others' feeds."""
    folder = Path(tempfile.mkdtemp(prefix="fa-test-"))
    embedded = EmbeddedServers(folder / "data", durable=False)
    urls = asyncio.run(embedded.start())
    try:
        yield ServerUrls(
            admin=urls.admin_url,
            migrator=urls.migrator_url,
            app=urls.app_url,
            relay=urls.relay_url,
            redis=urls.redis_url,
        )
    finally:
        asyncio.run(embedded.stop())
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def template(servers: ServerUrls) -> str:
    """A migrated database without an epoch, for cloning."""

    async def make() -> None:
        urls = database_urls(servers, TEMPLATE)
        assert urls.admin is not None
        await create_database(urls.admin)
        await set_up_roles(urls)
        migrating = Database(urls.migrator, DatabaseOptions(role=OWNER), pooled=False)
        await MigrationManager(migrating).run_migrations()

    asyncio.run(make())
    return TEMPLATE


def database_urls(servers: ServerUrls, name: str) -> ServerUrls:
    """The logins of the servers on one database."""
    assert servers.admin is not None
    return ServerUrls(
        admin=in_database(servers.admin, name),
        migrator=in_database(servers.migrator, name),
        app=in_database(servers.app, name),
        relay=in_database(servers.relay, name),
        redis=servers.redis,
    )


async def run_as_admin(servers: ServerUrls, statement: str) -> None:
    """One statement on the maintenance database."""
    assert servers.admin is not None
    connection = await asyncpg.connect(in_database(servers.admin, "postgres"))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture
async def empty_database(servers: ServerUrls) -> AsyncIterator[ServerUrls]:
    """A database of this test alone, without roles' grants or schema."""
    name = f"test_{uuid4().hex}"
    await run_as_admin(servers, f"CREATE DATABASE {name} TEMPLATE template0")
    yield database_urls(servers, name)
    await run_as_admin(servers, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def urls(servers: ServerUrls, template: str) -> AsyncIterator[ServerUrls]:
    """A migrated database of this test alone. Its first opening begins an epoch, and so its own keys in Valkey."""
    name = f"test_{uuid4().hex}"
    await run_as_admin(servers, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY WAL_LOG")
    await run_as_admin(servers, f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC")  # which a clone does not inherit
    yield database_urls(servers, name)
    await run_as_admin(servers, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def app_database(urls: ServerUrls) -> AsyncIterator[Database]:
    """The migrated database as the application sees it."""
    database = Database(urls.app, DatabaseOptions(role=APP, pool_size=5))
    yield database
    await database.close()


@pytest.fixture
def owner_database(urls: ServerUrls) -> Database:
    """The migrated database as its owner sees it."""
    return Database(urls.migrator, DatabaseOptions(role=OWNER), pooled=False)


@pytest.fixture
def relay_database(urls: ServerUrls) -> Database:
    """The migrated database as the relay sees it."""
    return Database(urls.relay, DatabaseOptions(role=RELAY), pooled=False)


@pytest.fixture
async def make_reader(relay_database: Database) -> AsyncIterator[MakeReader]:
    """Makes readers of the outbox, as a relay has one for each sink."""
    async with making_readers(relay_database) as make:
        yield make


@pytest.fixture
async def admin(urls: ServerUrls) -> AsyncIterator[asyncpg.Connection]:
    """A superuser's connection to the test's database, to look at what is really stored."""
    assert urls.admin is not None
    connection = await asyncpg.connect(urls.admin)
    yield connection
    await connection.close()


@pytest.fixture
def settings(urls: ServerUrls) -> Settings:
    """Settings that name the test's servers as a user would name their own."""
    return settings_of(urls)


def settings_of(urls: ServerUrls, **groups: object) -> Settings:
    """Settings for these URLs; keyword arguments replace groups."""
    values: dict[str, object] = {
        "env": "testing",
        "database": {"url": urls.app, "migrator_url": urls.migrator, "relay_url": urls.relay, "admin_url": urls.admin},
        "redis": {"url": urls.redis},
        "encryption": {"key": generate_key()},
        **groups,
    }
    return Settings.load(**values)


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Persistence]:
    """An open store with its relay."""
    async with Persistence.open(settings) as opened:
        yield opened


@pytest.fixture
async def quiet_store(settings: Settings) -> AsyncIterator[Persistence]:
    """An open store without a relay."""
    async with Persistence.open(settings, relay="off") as opened:
        yield opened
