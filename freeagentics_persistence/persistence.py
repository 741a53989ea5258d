"""Persistence: the one composition root, the only module that knows every adapter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal
from urllib.parse import unquote, urlsplit
from uuid import UUID

from freeagentics_persistence.cache.agent_cache import AgentCache
from freeagentics_persistence.cache.connection import RedisConnection
from freeagentics_persistence.cache.real_time_updates import RealTimeUpdates
from freeagentics_persistence.cache.redis_cache import RedisCache
from freeagentics_persistence.database import bootstrap
from freeagentics_persistence.database.context import TenantContext, WriteLimits
from freeagentics_persistence.database.engine import Database, DatabaseOptions
from freeagentics_persistence.database.epochs import current_epoch
from freeagentics_persistence.database.outbox import DatabaseOutbox
from freeagentics_persistence.database.partitions import ensure_partitions
from freeagentics_persistence.database.repositories.agents import AgentRepository
from freeagentics_persistence.database.repositories.coalitions import CoalitionRepository
from freeagentics_persistence.database.repositories.tenants import TenantRepository
from freeagentics_persistence.database.session_floors import SessionFloors
from freeagentics_persistence.database.time_series import PostgresMetricsStore
from freeagentics_persistence.database.wakeups import Wakeups
from freeagentics_persistence.domain.identifiers import DEFAULT_TENANT_ID
from freeagentics_persistence.domain.validation import require_uuid
from freeagentics_persistence.embedded import EmbeddedServers, default_data_folder
from freeagentics_persistence.encryption.key_providers import EnvironmentKeyProvider, FileKeyProvider
from freeagentics_persistence.encryption.keyring import KeyringSealer
from freeagentics_persistence.errors import ConfigurationError, InvalidInput, SchemaMismatch
from freeagentics_persistence.metrics.collector import MetricsCollector
from freeagentics_persistence.metrics.influx_sink import InfluxSink
from freeagentics_persistence.metrics.influx_store import InfluxMetricsStore
from freeagentics_persistence.operations.migration_manager import MigrationManager
from freeagentics_persistence.ports.keys import KeyProvider
from freeagentics_persistence.ports.metrics import MetricsStore
from freeagentics_persistence.ports.sinks import Sink
from freeagentics_persistence.relay.cache_sink import CacheSink
from freeagentics_persistence.relay.relay import Relay, RelayOptions
from freeagentics_persistence.relay.updates_sink import UpdatesSink
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


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantStore:
    """Everything that belongs to one tenant."""

    tenant_id: UUID
    agents: AgentRepository
    coalitions: CoalitionRepository
    cache: AgentCache
    updates: RealTimeUpdates
    metrics: MetricsCollector


class Persistence:
    """The store. Use it as ``async with Persistence.open() as store:``.

    ``agents``, ``coalitions``, ``cache``, ``updates`` and ``metrics`` act for the default tenant, ``tenant(id)``
    gives the same for another.
    """

    def __init__(self, parts: _Parts) -> None:
        self._parts = parts
        self._stores: dict[UUID, TenantStore] = {}
        self._default = self.tenant(DEFAULT_TENANT_ID)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: Settings | None = None,
        *,
        relay: Literal["auto", "off"] = "auto",
        progress: Progress | None = None,
    ) -> AsyncIterator[Persistence]:
        """Open the store: settings from the environment where none are given, embedded servers where no URL is set.

        ``relay="auto"`` also runs the relay in this process (one process is active for each sink); ``"off"`` leaves
        it to others. ``progress`` is told what is being waited for. Raises ConfigurationError, SchemaMismatch,
        KeyUnavailable, errors.Unavailable, errors.EmbeddedServerError.
        """
        if relay not in ("auto", "off"):
            raise InvalidInput("relay", f"{relay!r} is unknown", "Use auto or off.")
        own = settings if settings is not None else Settings.load()
        async with AsyncExitStack() as stack:
            urls = await find_servers(own, stack, progress)
            await ensure_schema(own, urls, progress)
            parts = await _assemble(own, urls, stack)
            if relay == "auto":
                running = parts.make_relay()
                running.start()
                stack.push_async_callback(running.close)
            store = cls(parts)
            stack.push_async_callback(store._drain)
            yield store

    @property
    def agents(self) -> AgentRepository:
        """Agents of the default tenant."""
        return self._default.agents

    @property
    def coalitions(self) -> CoalitionRepository:
        """Coalitions of the default tenant."""
        return self._default.coalitions

    @property
    def cache(self) -> AgentCache:
        """The cache of the default tenant."""
        return self._default.cache

    @property
    def updates(self) -> RealTimeUpdates:
        """Updates of the default tenant."""
        return self._default.updates

    @property
    def metrics(self) -> MetricsCollector:
        """Metrics of the default tenant."""
        return self._default.metrics

    @property
    def epoch(self) -> UUID:
        """The epoch of the database as of opening."""
        return self._parts.epoch

    def tenant(self, tenant_id: UUID) -> TenantStore:
        """The same attributes for one tenant. The first call to any of them raises UnknownTenant where there is none."""
        own = require_uuid("tenant_id", tenant_id)
        if own not in self._stores:
            self._stores[own] = self._parts.make_store(own)
        return self._stores[own]

    async def create_tenant(self, name: str) -> TenantStore:
        """Make a tenant with a data key of its own. Raises InvalidInput, AlreadyExists."""
        tenant_id = await self._parts.tenants.create_tenant(name)
        await self._parts.sealer.ensure_tenant(tenant_id)
        return self.tenant(tenant_id)

    async def _drain(self) -> None:
        for store in self._stores.values():
            await store.agents.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What all tenants share."""

    settings: Settings
    urls: ServerUrls
    database: Database
    epoch: UUID
    tenants: TenantRepository
    sealer: KeyringSealer
    redis: RedisConnection
    cache: RedisCache
    metrics: MetricsStore
    wakeups: Wakeups
    floors: SessionFloors

    def make_store(self, tenant_id: UUID) -> TenantStore:
        settings = self.settings.database
        limits = WriteLimits(
            batch_rows=settings.batch_rows,
            batch_connections=settings.batch_connections,
            write_queue=settings.write_queue,
            revision_memory=timedelta(hours=settings.revision_memory_hours),
        )
        context = TenantContext(
            tenant_id=tenant_id,
            database=self.database,
            sealer=self.sealer,
            beliefs=self.cache,
            members=self.cache,
            floors=self.floors,
            wake=self.wakeups.wake,
            limits=limits,
        )
        outbox = DatabaseOutbox(self.database, self.sealer, self.wakeups.wake)
        coalitions = CoalitionRepository(context)
        return TenantStore(
            tenant_id=tenant_id,
            agents=AgentRepository(context),
            coalitions=coalitions,
            cache=AgentCache(tenant_id, self.cache, self.cache, self.sealer, coalitions),
            updates=RealTimeUpdates(tenant_id, self.epoch, self.redis, outbox, self.sealer, self.floors.saw),
            metrics=MetricsCollector(self.metrics, outbox, tenant_id),
        )

    def make_relay(self) -> Relay:
        settings = self.settings.relay
        sinks: list[Sink] = [
            CacheSink(self.cache),
            UpdatesSink(self.redis, self.epoch, feed_length=self.settings.redis.feed_length),
        ]
        if isinstance(self.metrics, InfluxMetricsStore):
            sinks.append(InfluxSink(self.metrics, self.sealer if self.settings.influx.belief_dimensions else None))
        options = RelayOptions(
            batch_events=settings.batch_events,
            poll_interval=settings.poll_interval,
            max_backlog_hours=settings.max_backlog_hours,
        )
        database = Database(self.urls.relay, database_options(self.settings, bootstrap.RELAY), pooled=False)
        return Relay(database, sinks, self.epoch, options)


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
    if not settings.auto_migrate:
        application = Database(urls.app, database_options(settings, bootstrap.APP), pooled=False)
        status = await MigrationManager(application).status()
        if not status.is_current:
            raise SchemaMismatch(
                f"{application.where} is at revision {status.current or 'none'}, and this version needs {status.head}. "
                "Run: freeagentics-db migrate"
            )
        return
    manager = MigrationManager(migrator(settings, urls))
    status = await manager.status()
    if not status.is_current:
        if progress is not None:
            progress("migrating the database")
        await manager.run_migrations()


async def set_up_roles(urls: ServerUrls) -> None:
    """Make the group roles in the database of ``urls.admin``, and the logins of the other URLs their members."""
    logins = [
        (unquote(urlsplit(url).username or ""), role)
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


def key_provider(settings: Settings) -> KeyProvider:
    """Where the KEKs come from. Raises ConfigurationError where the settings name none and none may be made."""
    encryption = settings.encryption
    if encryption.key is not None:
        return EnvironmentKeyProvider([part.strip() for part in encryption.key.get_secret_value().split(",")])
    if settings.env is Environment.EMBEDDED:
        folder = settings.data_folder or default_data_folder()
        return FileKeyProvider(encryption.key_file or folder / "encryption.key", create=True)
    if encryption.key_file is None:
        raise ConfigurationError(
            "ENCRYPTION_KEY or ENCRYPTION_KEY_FILE is not set, so beliefs cannot be sealed. Make a key with: "
            "freeagentics-db generate-key"
        )
    return FileKeyProvider(encryption.key_file)


async def _assemble(settings: Settings, urls: ServerUrls, stack: AsyncExitStack) -> _Parts:
    database = Database(urls.app, database_options(settings, bootstrap.APP))
    stack.push_async_callback(database.close)
    await bootstrap.refuse_unrestricted(database)
    await database.measure_clock()
    epoch = await current_epoch(database)
    await ensure_partitions(database)
    tenants = TenantRepository(database)
    sealer = KeyringSealer(key_provider(settings), tenants)
    await sealer.ensure_tenant(DEFAULT_TENANT_ID)
    redis = await stack.enter_async_context(
        RedisConnection(urls.redis, timeout=settings.redis.timeout, pool_size=settings.redis.pool_size)
    )
    cache = RedisCache(redis, epoch, belief_ttl=settings.redis.belief_ttl, member_ttl=settings.redis.member_ttl)
    metrics = await _metrics_store(settings, database)
    stack.push_async_callback(metrics.close)
    wakeups = Wakeups(database)
    stack.push_async_callback(wakeups.close)
    return _Parts(
        settings=settings,
        urls=urls,
        database=database,
        epoch=epoch,
        tenants=tenants,
        sealer=sealer,
        redis=redis,
        cache=cache,
        metrics=metrics,
        wakeups=wakeups,
        floors=SessionFloors(),
    )


async def _metrics_store(settings: Settings, database: Database) -> MetricsStore:
    influx = settings.influx
    if influx.url is None or influx.token is None:
        return PostgresMetricsStore(database)
    store = InfluxMetricsStore(
        influx.url, influx.token.get_secret_value(), org=influx.org, bucket=influx.bucket, timeout=influx.timeout
    )
    try:
        await store.ensure_bucket()
    except BaseException:
        await store.close()
        raise
    return store
