"""Puts a store together: the only module that knows every adapter."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from freeagentics_persistence.cache.agent_cache import AgentCache
from freeagentics_persistence.cache.connection import RedisConnection
from freeagentics_persistence.cache.redis_cache import RedisCache
from freeagentics_persistence.cache.updates.feed import FeedBounds
from freeagentics_persistence.cache.updates.hub import UpdateHub
from freeagentics_persistence.cache.updates.real_time_updates import RealTimeUpdates
from freeagentics_persistence.database import bootstrap
from freeagentics_persistence.database.context import Limits, TenantContext
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
from freeagentics_persistence.encryption.keyring import KeyringSealer
from freeagentics_persistence.errors import MetricsUnavailable, StoreClosed, TimedOut
from freeagentics_persistence.metrics.collector import MetricsCollector
from freeagentics_persistence.metrics.influx_sink import InfluxSink
from freeagentics_persistence.metrics.influx_store import InfluxMetricsStore
from freeagentics_persistence.operations.servers import (
    ServerUrls,
    database_options,
    key_provider,
    partition_rules,
)
from freeagentics_persistence.ports.metrics import MetricsStore
from freeagentics_persistence.ports.sinks import Sink
from freeagentics_persistence.relay.cache_sink import CacheSink
from freeagentics_persistence.relay.relay import Relay, RelayOptions
from freeagentics_persistence.relay.updates_sink import UpdatesSink
from freeagentics_persistence.settings import Environment, Settings

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
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
        """What acts for one tenant; nothing is asked of a server."""
        settings = self.settings.database
        limits = Limits(
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
        """A relay to every sink that there is, not started."""
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


async def assemble(settings: Settings, urls: ServerUrls, stack: AsyncExitStack, *, require_key: bool) -> Parts:
    """Connect to the servers; ``stack`` closes again what is opened, also where this raises."""
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
    return Parts(
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
