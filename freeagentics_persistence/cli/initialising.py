"""``freeagentics-db init``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace

from freeagentics_persistence.cache.connection import RedisConnection
from freeagentics_persistence.cli.terminal import note, print_json, say
from freeagentics_persistence.database import bootstrap
from freeagentics_persistence.database.driver_errors import sqlstate_of
from freeagentics_persistence.database.engine import Database
from freeagentics_persistence.database.partitions import ensure_partitions
from freeagentics_persistence.database.repositories.tenants import TenantRepository
from freeagentics_persistence.database.urls import describe, login_of
from freeagentics_persistence.domain.identifiers import DEFAULT_TENANT_ID
from freeagentics_persistence.embedded import default_data_folder
from freeagentics_persistence.encryption.keyring import KeyringSealer
from freeagentics_persistence.errors import ConfigurationError, SchemaMismatch
from freeagentics_persistence.metrics.influx_store import InfluxMetricsStore
from freeagentics_persistence.operations.migration_manager import MigrationManager
from freeagentics_persistence.operations.servers import (
    ServerUrls,
    database_options,
    find_servers,
    key_file,
    key_provider,
    migrator,
    set_up_roles,
)
from freeagentics_persistence.settings import Environment, Settings

_KEEP = "keep a copy of it: without it no belief can be read"


@dataclass(slots=True)
class Done:
    """What was found and made."""

    database: str
    database_made: bool = False
    logins_made: list[str] = field(default_factory=list)
    revision: str | None = None
    migrations_run: list[str] = field(default_factory=list)
    key: str = "none"  # none, made, or opens
    redis: str = ""
    metrics: str = "PostgreSQL"
    bucket_made: bool = False
    data_folder: str | None = None
    key_file: str | None = None
    next: str = "freeagentics-db check"


async def initialise(settings: Settings, *, as_json: bool) -> None:
    """Set up what is missing, and say what was done."""
    async with AsyncExitStack() as stack:
        urls = await find_servers(settings, stack, note)
        name = bootstrap.database_name(urls.migrator)
        urls = replace(urls, admin=bootstrap.in_database(urls.admin or urls.migrator, name))
        done = Done(database=describe(urls.migrator))
        await _reach_the_others(settings, urls, done)
        await _make_database(urls, done)
        await _migrate(settings, urls, done)
        await _make_key(settings, urls, done)
        await _verify(settings, urls)
    if settings.env is Environment.EMBEDDED:
        done.data_folder = str(settings.data_folder or default_data_folder())
        done.key_file = str(key_file(settings)) if settings.encryption.key is None else None
    if as_json:
        print_json(asdict(done))
    else:
        _print(done)


async def _reach_the_others(settings: Settings, urls: ServerUrls, done: Done) -> None:
    """Before anything is made, so that a wrong address leaves nothing half done."""
    async with RedisConnection(urls.redis, timeout=settings.redis.timeout, pool_size=1) as redis:
        server = await redis.ping()
        done.redis = f"{server.name} {server.version} at {redis.server}"
    influx = settings.influx
    if influx.url is None or influx.token is None:
        return
    store = InfluxMetricsStore(
        influx.url, influx.token.get_secret_value(), org=influx.org, bucket=influx.bucket, timeout=influx.timeout
    )
    try:
        done.bucket_made = await store.ensure_bucket()
        done.metrics = f"{store.where}, bucket {influx.bucket}"
    finally:
        await store.close()


async def _make_database(urls: ServerUrls, done: Done) -> None:
    admin = urls.admin
    assert admin is not None  # noqa: S101 - initialise() names one
    with _rights_explained(admin):
        if not await _exists(admin):
            done.database_made = await bootstrap.create_database(admin)
        done.logins_made = await bootstrap.create_logins(
            admin, [login_of(url) for url in (urls.migrator, urls.app, urls.relay)]
        )
        await set_up_roles(urls)


async def _exists(url: str) -> bool:
    try:
        await Database(url, pooled=False).fetch("SELECT 1")
    except SchemaMismatch as error:
        if error.__cause__ is None or sqlstate_of(error.__cause__) != "3D000":
            raise
        return False
    return True


@contextmanager
def _rights_explained(url: str) -> Iterator[None]:
    try:
        yield
    except SchemaMismatch as error:
        cause = error.__cause__
        if cause is None or sqlstate_of(cause) != "42501":
            raise
        reason = " ".join(str(cause).split())
        raise ConfigurationError(
            f"{describe(url)}: the login {login_of(url)[0]} may not set up the database ({reason}). Name one that may, "
            "such as a superuser, in DATABASE_ADMIN_URL; only init uses it."
        ) from error


async def _migrate(settings: Settings, urls: ServerUrls, done: Done) -> None:
    database = migrator(settings, urls)
    manager = MigrationManager(database)
    before = await manager.status()
    if not before.is_current:
        note("migrating the database")
        await manager.run_migrations()
    done.migrations_run, done.revision = list(before.pending), before.head
    await ensure_partitions(database)


async def _make_key(settings: Settings, urls: ServerUrls, done: Done) -> None:
    encryption = settings.encryption
    if settings.env is not Environment.EMBEDDED and encryption.key is None and encryption.key_file is None:
        done.next = "freeagentics-db generate-key, then set ENCRYPTION_KEY or ENCRYPTION_KEY_FILE"
        return
    tenants = TenantRepository(Database(urls.app, database_options(settings, bootstrap.APP), pooled=False))
    known = await tenants.load_keys(DEFAULT_TENANT_ID)
    provider = key_provider(settings)
    await KeyringSealer(provider, tenants).ensure_tenant(DEFAULT_TENANT_ID)
    done.key = "opens" if known else "made"


async def _verify(settings: Settings, urls: ServerUrls) -> None:
    """Each login gets in and may take on its role, or the error says which does not."""
    for url, role in ((urls.app, bootstrap.APP), (urls.relay, bootstrap.RELAY)):
        await Database(url, database_options(settings, role), pooled=False).fetch("SELECT 1")


def _print(done: Done) -> None:
    say(f"database  {done.database} {'was made' if done.database_made else 'was there'}; its roles are set up")
    if done.logins_made:
        say(f"logins    made {', '.join(done.logins_made)}")
    ran = f"migrations run: {', '.join(done.migrations_run)}" if done.migrations_run else "nothing to migrate"
    say(f"schema    at {done.revision}, {ran}")
    if done.key != "none":
        say(f"data key  {'the first one was made' if done.key == 'made' else 'opens'}")
    say(f"cache     {done.redis}")
    say(f"metrics   {done.metrics}{', which was made' if done.bucket_made else ''}")
    if done.data_folder is not None:
        say(f"data      {done.data_folder}")
    if done.key_file is not None:
        say(f"key       {done.key_file}; {_KEEP}")
    say(f"next      {done.next}")
