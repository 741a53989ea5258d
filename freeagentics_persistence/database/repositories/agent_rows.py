"""Rows of agents as the queries give them, turned into entities."""

from __future__ import annotations

from functools import lru_cache
from typing import Any
from uuid import UUID

from freeagentics_persistence.domain.agents import Agent, AgentStatus, Personality
from freeagentics_persistence.domain.beliefs import Beliefs
from freeagentics_persistence.domain.identifiers import uuid_of_int
from freeagentics_persistence.domain.locations import int_to_cell

COLUMNS = (
    "id, name, agent_type, nullif(personality_traits, '{}') AS personality_traits, energy_level, location_h3, "
    "status, version, revision, created_at, updated_at, last_active_at"
)
WITH_BELIEFS = f"{COLUMNS}, belief_state"

_STATUS = {status.value: status for status in AgentStatus}
cell_of = lru_cache(maxsize=10_000)(int_to_cell)


def agent_of_row(tenant_id: UUID, row: Any, beliefs: Beliefs | None) -> Agent:
    """The agent of a row of COLUMNS, with the beliefs that its envelope held."""
    location = row["location_h3"]
    return Agent.from_stored(
        id=uuid_of_int(row["id"].int),
        tenant_id=tenant_id,
        name=row["name"],
        agent_type=row["agent_type"],
        personality=Personality.from_stored(row["personality_traits"] or {}),
        energy=row["energy_level"],
        location=None if location is None else cell_of(location),
        status=_STATUS[row["status"]],
        beliefs=beliefs,
        version=row["version"],
        revision=uuid_of_int(row["revision"].int),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        last_active_at=row["last_active_at"],
    )
