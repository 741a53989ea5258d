"""What callers may announce beside the store's own changes; all of it goes through the outbox."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol
from uuid import UUID

from freeagentics_persistence.domain.beliefs.beliefs import Beliefs


class Outbox(Protocol):
    """Writes events, each in a transaction of its own. Raises what a write raises, UnknownAgent, UnknownCoalition.

    ``revision`` is a UUIDv7 that names the announcement, which is then made once, however often it comes; None makes
    a new one. Raises InvalidInput, RevisionExpired.
    """

    async def publish_update(
        self, tenant_id: UUID, agent_id: UUID, update_type: str, data: Mapping[str, Any], revision: UUID | None = None
    ) -> UUID:
        """Announce an update of an agent with sealed ``data``; the revision that names it."""

    async def record_beliefs(
        self,
        tenant_id: UUID,
        agent_id: UUID,
        beliefs: Beliefs,
        free_energy: float | None,
        revision: UUID | None = None,
    ) -> UUID:
        """Record statistics of beliefs without changing the agent."""

    async def record_performance(
        self,
        tenant_id: UUID,
        coalition_id: UUID,
        member_count: int,
        revenue: float,
        efficiency: float | None,
        revision: UUID | None = None,
    ) -> UUID:
        """Record how a coalition performed."""
