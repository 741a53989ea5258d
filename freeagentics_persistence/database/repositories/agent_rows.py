"""Rows of agents, turned into entities."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from freeagentics_persistence.domain.agents import Agent, AgentStatus, Personality
from freeagentics_persistence.domain.beliefs import Beliefs
from freeagentics_persistence.domain.locations import int_to_cell


def agent_of_row(row: Any, payload: bytes | None) -> Agent:
    """The agent of a row of ``agents``, with the belief payload that its envelope held."""
    return Agent(
        id=row.id,
        tenant_id=UUID(int=row.tenant_id.int),
        name=row.name,
        agent_type=row.agent_type,
        personality=Personality.from_dict(row.personality_traits),
        energy=row.energy_level,
        location=None if row.location_h3 is None else int_to_cell(row.location_h3),
        status=AgentStatus(row.status),
        beliefs=None if payload is None else Beliefs.from_bytes(payload),
        version=row.version,
        revision=UUID(int=row.revision.int),
        created_at=row.created_at,
        updated_at=row.updated_at,
        last_active_at=row.last_active_at,
    )
