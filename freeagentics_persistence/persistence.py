"""Persistence: the one way in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import lru_cache
from typing import Literal
from uuid import UUID
from weakref import WeakSet

from freeagentics_persistence.assembly import Parts, TenantStore, assemble
from freeagentics_persistence.cache.agent_cache import AgentCache
from freeagentics_persistence.cache.updates.real_time_updates import RealTimeUpdates
from freeagentics_persistence.database.repositories.agents import AgentRepository
from freeagentics_persistence.database.repositories.coalitions import CoalitionRepository
from freeagentics_persistence.database.repositories.history import HistoryRepository
from freeagentics_persistence.database.repositories.query_optimizer import QueryOptimizer
from freeagentics_persistence.domain.identifiers import DEFAULT_TENANT_ID
from freeagentics_persistence.domain.validation import require_uuid
from freeagentics_persistence.errors import InvalidInput
from freeagentics_persistence.metrics.collector import MetricsCollector
from freeagentics_persistence.operations.servers import (
    Progress,
    ensure_schema,
    find_servers,
)
from freeagentics_persistence.relay.relay import Relay
from freeagentics_persistence.settings import Settings
from freeagentics_persistence.synchronous.facade import SynchronousStore, open_synchronously

MAX_STORES = 10_000  # tenants used last that are remembered


class Persistence:
    """The store. Use it as ``async with Persistence.open() as store:``.

    ``agents``, ``history``, ``coalitions``, ``queries``, ``cache``, ``updates`` and ``metrics`` act for the default
    tenant, ``tenant(id)`` gives the same for another.
    """

    def __init__(self, parts: Parts) -> None:
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
            parts = await assemble(own, urls, stack, require_key=require_key)
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
