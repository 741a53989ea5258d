"""Rows of agents as the queries give them, turned into entities."""

from __future__ import annotations

from functools import lru_cache
from typing import Any
from uuid import UUID

from freeagentics_persistence.domain.agents import Agent, AgentStatus, Personality
from freeagentics_persistence.domain.beliefs.beliefs import Beliefs
from freeagentics_persistence.domain.identifiers import plain_uuid
from freeagentics_persistence.domain.locations import int_to_cell

COLUMNS = (
    "id, name, agent_type, nullif(personality_traits, '{}') AS personality_traits, energy_level, location_h3, "
    "status, version, revision, created_at, updated_at, last_active_at"
)
WITH_BELIEFS = f"{COLUMNS}, belief_state"

_STATUS = {status.value: status for status in AgentStatus}
cell_of = lru_cache(maxsize=10_000)(int_to_cell)


def agent_of_row(tenant_id: UUID, row: Any, beliefs: Beliefs | None) -> Agent:
    """The agent of a row that begins with COLUMNS, with the beliefs that its envelope held."""
    agent_id, name, agent_type, traits, energy, cell, status, version, revision, created, updated, active, *_ = row
    return Agent.from_stored(
        id=plain_uuid(agent_id),
        tenant_id=tenant_id,
        name=name,
        agent_type=agent_type,
        personality=Personality.from_stored(traits or {}),
        energy=energy,
        location=None if cell is None else cell_of(cell),
        status=_STATUS[status],
        beliefs=beliefs,
        version=version,
        revision=plain_uuid(revision),
        created_at=created,
        updated_at=updated,
        last_active_at=active,
    )
