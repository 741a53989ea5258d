"""The tables, as SQLAlchemy knows them; migrations make them."""

from freeagentics_persistence.database.models.agents import agent_history, agents, deleted_agents
from freeagentics_persistence.database.models.base import metadata
from freeagentics_persistence.database.models.coalitions import (
    coalition_members,
    coalition_performance,
    coalitions,
)
from freeagentics_persistence.database.models.events import events, relay_positions
from freeagentics_persistence.database.models.history import accepted_revisions, history_policies
from freeagentics_persistence.database.models.tenants import epochs, keyring, tenants

__all__ = [
    "accepted_revisions",
    "agent_history",
    "agents",
    "coalition_members",
    "coalition_performance",
    "coalitions",
    "deleted_agents",
    "epochs",
    "events",
    "history_policies",
    "keyring",
    "metadata",
    "relay_positions",
    "tenants",
]
