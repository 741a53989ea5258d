"""Persistence: the one composition root, the only module that knows every adapter."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Literal
from uuid import UUID
from weakref import WeakSet

from freeagentics_persistence.cache.agent_cache import AgentCache
from freeagentics_persistence.cache.connection import RedisConnection
from freeagentics_persistence.cache.redis_cache import RedisCache
from freeagentics_persistence.cache.updates.feed import FeedBounds
from freeagentics_persistence.cache.updates.hub import UpdateHub
from freeagentics_persistence.cache.updates.real_time_updates import RealTimeUpdates
from freeagentics_persistence.database import bootstrap
from freeagentics_persistence.database.context import TenantContext, WriteLimits
from freeagentics_persistence.database.engine import Database
from freeagentics_persistence.database.epochs import EpochWatch, current_epoch, former_epochs
from freeagentics_persistence.database.partitions import ensure_partitions
from freeagentics_persistence.database.repositories.agents import AgentRepository
from freeagentics_persistence.database.repositories.coalitions import CoalitionRepository
from freeagentics_persistence.database.repositories.history import HistoryRepository
from freeagentics_persistence.database.repositories.query_optimizer import QueryOptimizer
from freeagentics_persistence.database.repositories.tenants import TenantRepository
from freeagentics_persistence.database.session_floors import SessionFloors
from freeagentics_persistence.database.time_series import PostgresMetricsStore
from freeagentics_persistence.database.wakeups import Wakeups
from freeagentics_persistence.database.write_pace import WritePace
from freeagentics_persistence.database.writes.kept_beliefs import KeptBeliefs
from freeagentics_persistence.database.writes.outbox import DatabaseOutbox
from freeagentics_persistence.domain.epochs import Epoch
from freeagentics_persistence.domain.identifiers import DEFAULT_TENANT_ID
from freeagentics_persistence.domain.validation import require_uuid
from freeagentics_persistence.encryption.keyring import KeyringSealer
from freeagentics_persistence.errors import InvalidInput, MetricsUnavailable, StoreClosed, TimedOut
from freeagentics_persistence.metrics.collector import MetricsCollector
from freeagentics_persistence.metrics.influx_sink import InfluxSink
from freeagentics_persistence.metrics.influx_store import InfluxMetricsStore
from freeagentics_persistence.operations.servers import (
    Progress,
    ServerUrls,
    database_options,
    ensure_schema,
    find_servers,
    key_provider,
    partition_rules,
)
from freeagentics_persistence.ports.metrics import MetricsStore
from freeagentics_persistence.ports.sinks import Sink
from freeagentics_persistence.relay.cache_sink import CacheSink
from freeagentics_persistence.relay.relay import Relay, RelayOptions
from freeagentics_persistence.relay.updates_sink import UpdatesSink
from freeagentics_persistence.settings import Environment, Settings
from freeagentics_persistence.synchronous.facade import SynchronousStore, open_synchronously

MAX_STORES = 10_000  # tenants used last that are remembered
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantStore:
    """Everything that belongs to one tenant."""

    tenant_id: UUID
    agents: AgentRepository
    history: HistoryRepository
    coalitions: CoalitionRepository
    queries: QueryOptimizer
    cache: AgentCache
    updates: RealTimeUpdates
    metrics: MetricsCollector


class Persistence:
    """The store. Use it as ``async with Persistence.open() as store:``.

    ``agents``, ``history``, ``coalitions``, ``queries``, ``cache``, ``updates`` and ``metrics`` act for the default
    tenant, ``tenant(id)`` gives the same for another.
    """

    def __init__(self, parts: _Parts) -> None:
        self._parts = parts
        self._store_of = lru_cache(MAX_STORES)(parts.make_store)
        self._repositories: WeakSet[AgentRepository] = WeakSet()  # also of stores that are no longer remembered
        self._default = self.tenant(DEFAULT_TENANT_ID)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: Settings | None = None,
        *,
        relay: Literal["auto", "off"] = "auto",
        progress: Progress | None = None,
        require_key: bool = True,
    ) -> AsyncIterator[Persistence]:
        """Open the store: settings from the environment where none are given, embedded servers where no URL is set.

        ``relay="auto"`` also runs the relay in this process, ``"off"`` leaves it to others. ``progress`` is told what
        is being waited for. Without ``require_key`` a key may be missing; where one is needed, KeyUnavailable is raised
        then. Raises ConfigurationError, SchemaMismatch, KeyUnavailable, errors.Unavailable, errors.EmbeddedServerError.
        """
        if relay not in ("auto", "off"):
            raise InvalidInput("relay", f"{relay!r} is unknown", "Use auto or off.")
        own = settings if settings is not None else Settings.load()
        async with AsyncExitStack() as stack:
            urls = await find_servers(own, stack, progress)
            await ensure_schema(own, urls, progress)
            parts = await _assemble(own, urls, stack, require_key=require_key)
            if relay == "auto":
                running = parts.make_relay()
                running.start()
                stack.push_async_callback(running.close)
            store = cls(parts)
            stack.push_async_callback(store._drain)
            yield store

    @classmethod
    def open_sync(
        cls,
        settings: Settings | None = None,
        *,
        relay: Literal["auto", "off"] = "auto",
        progress: Progress | None = None,
        require_key: bool = True,
    ) -> SynchronousStore:
        """Open the store for callers without an event loop: the same API, as ordinary calls.

        It is open when this returns; use it by ``with``, or end it by ``close()``. Takes and raises what ``open``
        does. ``progress`` is called in the store's own thread.
        """
        return open_synchronously(lambda: cls.open(settings, relay=relay, progress=progress, require_key=require_key))

    @property
    def agents(self) -> AgentRepository:
        """Agents of the default tenant."""
        return self._default.agents

    @property
    def history(self) -> HistoryRepository:
        """History of the default tenant."""
        return self._default.history

    @property
    def coalitions(self) -> CoalitionRepository:
        """Coalitions of the default tenant."""
        return self._default.coalitions

    @property
    def queries(self) -> QueryOptimizer:
        """Loads and queries of the default tenant that are made for size."""
        return self._default.queries

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
        return self._parts.epoch.id

    def tenant(self, tenant_id: UUID) -> TenantStore:
        """The same attributes for one tenant; their calls raise UnknownTenant where there is none."""
        store = self._store_of(require_uuid("tenant_id", tenant_id))
        self._repositories.add(store.agents)
        return store

    async def create_tenant(self, name: str) -> TenantStore:
        """Make a tenant with a data key of its own. Raises InvalidInput, AlreadyExists."""
        tenant_id = await self._parts.tenants.create_tenant(name)
        await self._parts.sealer.ensure_tenant(tenant_id)
        return self.tenant(tenant_id)

    async def require_tenant(self, tenant_id: UUID) -> None:
        """Raise UnknownTenant where there is no such tenant."""
        await self._parts.tenants.load_keys(require_uuid("tenant_id", tenant_id))

    def make_relay(self) -> Relay:
        """A relay of this store's sinks, for a process that does nothing else; the caller starts and closes it."""
        return self._parts.make_relay()

    async def _drain(self) -> None:
        for agents in list(self._repositories):
            await agents.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What all tenants share."""

    settings: Settings
    urls: ServerUrls
    database: Database
    epoch: Epoch
    former_epochs: Sequence[UUID]
    tenants: TenantRepository
    sealer: KeyringSealer
    redis: RedisConnection
    cache: RedisCache
    hub: UpdateHub
    metrics: MetricsStore
    wakeups: Wakeups
    pace: WritePace
    floors: SessionFloors
    kept: KeptBeliefs

    def make_store(self, tenant_id: UUID) -> TenantStore:
        settings = self.settings.database
        limits = WriteLimits(
            batch_rows=settings.batch_rows,
            batch_connections=settings.batch_connections,
            write_queue=settings.write_queue,
            read_queue=settings.read_queue,
            revision_memory=timedelta(hours=settings.revision_memory_hours),
        )
        context = TenantContext(
            tenant_id=tenant_id,
            database=self.database,
            sealer=self.sealer,
            beliefs=self.cache,
            members=self.cache,
            floors=self.floors,
            kept=self.kept,
            wake=self.wakeups.wake,
            pace=self.pace,
            limits=limits,
        )
        outbox = DatabaseOutbox(
            self.database, self.sealer, self.wakeups.wake, self.pace, revision_memory=limits.revision_memory
        )
        coalitions = CoalitionRepository(context)
        return TenantStore(
            tenant_id=tenant_id,
            agents=AgentRepository(context),
            history=HistoryRepository(context),
            coalitions=coalitions,
            queries=QueryOptimizer(context),
            cache=AgentCache(
                tenant_id,
                self.cache,
                self.cache,
                self.sealer,
                coalitions,
                self.epoch,
                coalition_floor=lambda coalition_id: self.floors.floor(tenant_id, coalition_id),
            ),
            updates=RealTimeUpdates(tenant_id, self.hub, outbox, self.sealer, self.floors.saw),
            metrics=MetricsCollector(self.metrics, outbox, tenant_id, self.epoch, dimensions=self._stores_dimensions),
        )

    @property
    def _stores_dimensions(self) -> bool:
        return isinstance(self.metrics, InfluxMetricsStore) and self.settings.influx.belief_dimensions

    def make_relay(self) -> Relay:
        settings, redis = self.settings.relay, self.settings.redis
        bounds = FeedBounds(
            length=redis.feed_length,
            bytes=redis.feed_megabytes * 1024 * 1024,
            idle_seconds=int(redis.feed_idle_hours * 3600),
        )
        sinks: list[Sink] = [CacheSink(self.cache), UpdatesSink(self.redis, self.epoch.id, bounds, self.former_epochs)]
        if isinstance(self.metrics, InfluxMetricsStore):
            sinks.append(InfluxSink(self.metrics, self.sealer if self._stores_dimensions else None))
        options = RelayOptions(
            batch_events=settings.batch_events,
            poll_interval=settings.poll_interval,
            max_backlog_hours=settings.max_backlog_hours,
            partitions=partition_rules(self.settings),
        )
        database = Database(self.urls.relay, database_options(self.settings, bootstrap.RELAY), pooled=False)
        return Relay(database, sinks, self.epoch, options)


async def _assemble(settings: Settings, urls: ServerUrls, stack: AsyncExitStack, *, require_key: bool) -> _Parts:
    database = Database(urls.app, database_options(settings, bootstrap.APP))
    stack.push_async_callback(database.close)
    await bootstrap.refuse_unrestricted(database, login_too=settings.env is Environment.PRODUCTION)
    await database.measure_clock()
    epoch = Epoch(await current_epoch(database))
    await ensure_partitions(database)
    tenants = TenantRepository(database)
    sealer = KeyringSealer(key_provider(settings, required=require_key), tenants)
    if require_key:
        await sealer.ensure_tenant(DEFAULT_TENANT_ID)
    redis = await stack.enter_async_context(
        RedisConnection(urls.redis, timeout=settings.redis.timeout, pool_size=settings.redis.pool_size)
    )
    cache = RedisCache(redis, epoch, belief_ttl=settings.redis.belief_ttl, member_ttl=settings.redis.member_ttl)
    metrics = await _metrics_store(settings, database)
    stack.push_async_callback(metrics.close)
    stack.callback(epoch.end, StoreClosed)
    wakeups = Wakeups(database)
    stack.push_async_callback(wakeups.close)
    database.require_epoch = epoch.require
    stack.push_async_callback(EpochWatch(database, epoch).close)
    return _Parts(
        settings=settings,
        urls=urls,
        database=database,
        epoch=epoch,
        former_epochs=await former_epochs(database),
        tenants=tenants,
        sealer=sealer,
        redis=redis,
        cache=cache,
        hub=UpdateHub(redis, epoch),
        metrics=metrics,
        wakeups=wakeups,
        pace=WritePace(database, epoch.id, settings.relay.max_waiting_events, settings.relay.write_timeout),
        floors=SessionFloors(),
        kept=KeptBeliefs(settings.history.memory_megabytes * 1024 * 1024),
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
    except (MetricsUnavailable, TimedOut) as error:
        _log.warning("metrics wait for InfluxDB, and the rest goes on: %s", error)
    except BaseException:
        await store.close()
        raise
    return store
