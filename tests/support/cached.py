"""What is cached, agent by agent."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from freeagentics_persistence.errors import EnvelopeRejected
from freeagentics_persistence.ports.cache import BeliefCache, CacheEntry


async def cached(
    cache: BeliefCache, tenant_id: UUID, ids: Sequence[UUID]
) -> list[CacheEntry | EnvelopeRejected | None]:
    """The entry of each agent, None where there is none, and why it was rejected where it is no entry."""
    found = await cache.fetch_beliefs(tenant_id, ids)
    assert list(found.ids) == list(ids)
    entries = {entry.agent_id: entry for entry in found.entries()}
    return [found.rejected.get(row, entries.get(agent_id)) for row, agent_id in enumerate(ids)]
