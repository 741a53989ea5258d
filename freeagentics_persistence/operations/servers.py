"""Finds the servers that the settings mean, and makes them ready: roles, schema, keys."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from freeagentics_persistence.database import bootstrap
from freeagentics_persistence.database.engine import Database, DatabaseOptions
from freeagentics_persistence.database.partitions import PartitionRules
from freeagentics_persistence.database.urls import login_of
from freeagentics_persistence.embedded import EmbeddedServers, default_data_folder
from freeagentics_persistence.encryption.key_providers import EnvironmentKeyProvider, FileKeyProvider, NoKeyProvider
from freeagentics_persistence.errors import ConfigurationError, SchemaMismatch
from freeagentics_persistence.operations.migration_manager import MigrationManager
from freeagentics_persistence.ports.keys import KeyProvider
from freeagentics_persistence.settings import Environment, Settings

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerUrls:
    """Where the servers are, one login a task."""

    admin: str | None
    migrator: str
    app: str
    relay: str
    redis: str

    def __repr__(self) -> str:
        return "ServerUrls(...)"


async def find_servers(settings: Settings, stack: AsyncExitStack, progress: Progress | None = None) -> ServerUrls:
    """The servers' URLs; embedded ones are started, or attached to, until the stack is closed."""
    if settings.env is Environment.EMBEDDED:
        servers = EmbeddedServers(settings.data_folder or default_data_folder(), progress=progress)
        urls = await stack.enter_async_context(servers)
        return ServerUrls(
            admin=urls.admin_url,
            migrator=urls.migrator_url,
            app=urls.app_url,
            relay=urls.relay_url,
            redis=urls.redis_url,
        )
    database = settings.database
    if database.url is None or settings.redis.url is None:
        raise ConfigurationError("DATABASE_URL and REDIS_URL are not set. Set both, or neither for embedded servers.")
    app = database.url.get_secret_value()
    direct = app if database.direct_url is None else database.direct_url.get_secret_value()
    return ServerUrls(
        admin=None if database.admin_url is None else database.admin_url.get_secret_value(),
        migrator=direct if database.migrator_url is None else database.migrator_url.get_secret_value(),
        app=app,
        relay=direct if database.relay_url is None else database.relay_url.get_secret_value(),
        redis=settings.redis.url.get_secret_value(),
    )


async def ensure_schema(settings: Settings, urls: ServerUrls, progress: Progress | None = None) -> None:
    """Migrate where the settings allow it; raise SchemaMismatch where they do not and it is needed."""
    if settings.env is Environment.EMBEDDED:
        await set_up_roles(urls)
    application = Database(urls.app, database_options(settings, bootstrap.APP), pooled=False)
    try:
        status = await MigrationManager(application).status()
    except SchemaMismatch:
        if not settings.auto_migrate:
            raise
    else:
        if status.is_current:
            return
        if not settings.auto_migrate:
            raise SchemaMismatch(
                f"{application.where} is at revision {status.current or 'none'}, and this version needs {status.head}. "
                "Run: freeagentics-db migrate"
            )
    manager = MigrationManager(migrator(settings, urls))
    if not (await manager.status()).is_current:
        if progress is not None:
            progress("migrating the database")
        await manager.run_migrations()


async def set_up_roles(urls: ServerUrls) -> None:
    """Make the group roles in the database of ``urls.admin``, and the logins of the other URLs their members."""
    logins = [
        (login_of(url)[0], role)
        for url, role in ((urls.migrator, bootstrap.MIGRATOR), (urls.app, bootstrap.APP), (urls.relay, bootstrap.RELAY))
    ]
    await bootstrap.bootstrap(urls.admin or urls.migrator, [(login, role) for login, role in logins if login])


def migrator(settings: Settings, urls: ServerUrls) -> Database:
    """The database with the rights to migrate it."""
    return Database(urls.migrator, database_options(settings, bootstrap.OWNER), pooled=False)


def database_options(settings: Settings, role: str) -> DatabaseOptions:
    """How to connect in a role."""
    database = settings.database
    return DatabaseOptions(
        role=role,
        pool_size=database.pool_size,
        pool_timeout=database.pool_timeout,
        connect_timeout=database.connect_timeout,
        statement_timeout=database.statement_timeout,
        through_pooler=database.pooler == "transaction" and role == bootstrap.APP,
    )


def partition_rules(settings: Settings) -> PartitionRules:
    """What the settings say of partitions."""
    return PartitionRules(
        unit=settings.history.partitions,
        retention=timedelta(days=settings.history.retention_days),
        revision_memory=timedelta(hours=settings.database.revision_memory_hours),
    )


def key_provider(settings: Settings, *, required: bool = True) -> KeyProvider:
    """Where the KEKs come from. Raises ConfigurationError where the settings name none, none may be made, and one is
    required."""
    encryption = settings.encryption
    if encryption.key is not None:
        return EnvironmentKeyProvider([part.strip() for part in encryption.key.get_secret_value().split(",")])
    if settings.env is Environment.EMBEDDED:
        return FileKeyProvider(key_file(settings), create=True)
    if encryption.key_file is None and not required:
        return NoKeyProvider()
    if encryption.key_file is None:
        raise ConfigurationError(
            "ENCRYPTION_KEY or ENCRYPTION_KEY_FILE is not set, so beliefs cannot be sealed. Make a key with: "
            "freeagentics-db generate-key"
        )
    return FileKeyProvider(encryption.key_file)


def key_file(settings: Settings) -> Path:
    """Where embedded mode keeps its key."""
    return settings.encryption.key_file or (settings.data_folder or default_data_folder()) / "encryption.key"
