"""Durable, sealed and live persistence for swarms of Active-Inference agents.

The public names are below. They are imported when they are first used, as the watchdog of the embedded servers and
the command's help need none of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from freeagentics_persistence.assembly import TenantStore
    from freeagentics_persistence.cache.updates.real_time_updates import ALL
    from freeagentics_persistence.cache.updates.update_message import AgentUpdate
    from freeagentics_persistence.database.repositories.query_optimizer import QueryOptimizer
    from freeagentics_persistence.domain.agents import Agent, AgentStatus, Personality
    from freeagentics_persistence.domain.beliefs.batch import BeliefBatch
    from freeagentics_persistence.domain.beliefs.beliefs import Beliefs, Factor
    from freeagentics_persistence.domain.beliefs.families import Family
    from freeagentics_persistence.domain.coalitions import Coalition, CoalitionStatus, Member
    from freeagentics_persistence.domain.history import BeliefChanges, HistoryPolicy
    from freeagentics_persistence.domain.identifiers import DEFAULT_TENANT_ID, new_revision, new_revisions
    from freeagentics_persistence.domain.results import (
        AgentPlaces,
        BatchResult,
        LoadProgress,
        Page,
        Revision,
        RowStatus,
    )
    from freeagentics_persistence.errors import PersistenceError
    from freeagentics_persistence.operations.migration_manager import MigrationManager
    from freeagentics_persistence.persistence import Persistence
    from freeagentics_persistence.settings import Settings
    from freeagentics_persistence.synchronous.facade import SynchronousStore

__version__ = "0.2.0.dev0"

_HOMES = {
    "ALL": "cache.updates.real_time_updates",
    "DEFAULT_TENANT_ID": "domain.identifiers",
    "Agent": "domain.agents",
    "AgentPlaces": "domain.results",
    "AgentStatus": "domain.agents",
    "AgentUpdate": "cache.updates.update_message",
    "BatchResult": "domain.results",
    "BeliefBatch": "domain.beliefs.batch",
    "BeliefChanges": "domain.history",
    "Beliefs": "domain.beliefs.beliefs",
    "Coalition": "domain.coalitions",
    "CoalitionStatus": "domain.coalitions",
    "Factor": "domain.beliefs.beliefs",
    "Family": "domain.beliefs.families",
    "HistoryPolicy": "domain.history",
    "LoadProgress": "domain.results",
    "Member": "domain.coalitions",
    "MigrationManager": "operations.migration_manager",
    "Page": "domain.results",
    "Persistence": "persistence",
    "PersistenceError": "errors",
    "Personality": "domain.agents",
    "QueryOptimizer": "database.repositories.query_optimizer",
    "Revision": "domain.results",
    "RowStatus": "domain.results",
    "Settings": "settings",
    "SynchronousStore": "synchronous.facade",
    "TenantStore": "assembly",
    "new_revision": "domain.identifiers",
    "new_revisions": "domain.identifiers",
}

__all__ = [
    "ALL",
    "DEFAULT_TENANT_ID",
    "Agent",
    "AgentPlaces",
    "AgentStatus",
    "AgentUpdate",
    "BatchResult",
    "BeliefBatch",
    "BeliefChanges",
    "Beliefs",
    "Coalition",
    "CoalitionStatus",
    "Factor",
    "Family",
    "HistoryPolicy",
    "LoadProgress",
    "Member",
    "MigrationManager",
    "Page",
    "Persistence",
    "PersistenceError",
    "Personality",
    "QueryOptimizer",
    "Revision",
    "RowStatus",
    "Settings",
    "SynchronousStore",
    "TenantStore",
    "new_revision",
    "new_revisions",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
