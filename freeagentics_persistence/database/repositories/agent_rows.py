"""Rows of agents as the queries give them, turned into entities."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID

from freeagentics_persistence.database.collector import collector_waits
from freeagentics_persistence.database.context import TenantContext
from freeagentics_persistence.database.reads.opening import Payload, beliefs_of, open_columns
from freeagentics_persistence.domain.agents import Agent, AgentStatus, Personality
from freeagentics_persistence.domain.identifiers import uuids_of_bytes
from freeagentics_persistence.domain.locations import int_to_cell
from freeagentics_persistence.errors import PersistenceError

# ids and times as bytes: the driver's own UUIDs would have to be made into plain ones, and its times take the longest
# of all columns while many agents have the same ones
_COLUMNS = (
    "uuid_send(id), name, agent_type, nullif(personality_traits, '{}'), energy_level, location_h3, status, version, "
    "uuid_send(revision), timestamptz_send(created_at), timestamptz_send(updated_at), timestamptz_send(last_active_at)"
)
WITH_BELIEFS = f"{_COLUMNS}, belief_state"
WITHOUT_BELIEFS = f"{_COLUMNS}, NULL::bytea"

_STATUS = {status.value: status for status in AgentStatus}
_YEAR_2000 = datetime(2000, 1, 1, tzinfo=UTC)
cell_of = lru_cache(maxsize=10_000)(int_to_cell)


@lru_cache(maxsize=10_000)
def _time_of(packed: bytes) -> datetime:
    """The time of PostgreSQL's 8 bytes: microseconds since 2000."""
    return _YEAR_2000 + timedelta(microseconds=int.from_bytes(packed, "big", signed=True))


async def agents_of_rows(
    context: TenantContext, ids: Sequence[UUID], rows: Sequence[Any]
) -> list[Agent | PersistenceError]:
    """The agent of each row that begins with WITH_BELIEFS or WITHOUT_BELIEFS, or why its beliefs do not open."""
    if not rows:
        return []
    # by column, as looking up each value in its row takes several times as long
    columns = list(zip(*rows, strict=True))
    payloads = await open_columns(context, ids, columns[7], columns[8], columns[12])
    with collector_waits():
        return _agents(context.tenant_id, ids, columns, payloads)


def _agents(
    tenant_id: UUID, ids: Sequence[UUID], columns: Sequence[Sequence[Any]], payloads: Sequence[Payload]
) -> list[Agent | PersistenceError]:
    revisions = uuids_of_bytes(b"".join(columns[8]))
    found: list[Agent | PersistenceError] = []
    for row in zip(ids, *columns[1:8], revisions, *columns[9:12], payloads, strict=True):
        agent_id, name, kind, traits, energy, cell, status, version, revision, created, updated, active, payload = row
        beliefs = beliefs_of(payload)
        if isinstance(beliefs, PersistenceError):
            found.append(beliefs)
            continue
        agent = Agent.from_stored(
            id=agent_id,
            tenant_id=tenant_id,
            name=name,
            agent_type=kind,
            personality=Personality.from_stored(traits or {}),
            energy=energy,
            location=None if cell is None else cell_of(cell),
            status=_STATUS[status],
            beliefs=beliefs,
            version=version,
            revision=revision,
            created_at=_time_of(created),
            updated_at=_time_of(updated),
            last_active_at=_time_of(active),
        )
        found.append(agent)
    return found
