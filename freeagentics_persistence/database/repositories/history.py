"""HistoryRepository: which updates history keeps, and what changed between two moments."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from freeagentics_persistence.database.context import TenantContext
from freeagentics_persistence.database.engine import HARMLESS
from freeagentics_persistence.database.models import history_policies
from freeagentics_persistence.database.repositories.agent_arguments import require_ids
from freeagentics_persistence.database.repositories.beliefs import BeliefReader
from freeagentics_persistence.domain.beliefs.divergences import divergences
from freeagentics_persistence.domain.history import BeliefChanges, HistoryPolicy
from freeagentics_persistence.domain.validation import require_aware, require_text
from freeagentics_persistence.errors import InvalidInput


class HistoryRepository:
    """History of one tenant. Every method raises UnknownTenant, and errors.Unavailable where a server is away."""

    def __init__(self, context: TenantContext) -> None:
        self._context = context
        self._reader = BeliefReader(context)

    async def set_policy(self, agent_type: str, policy: HistoryPolicy | None) -> None:
        """From the next update on history keeps what ``policy`` says of agents of this type; None: every update.

        It is stored in PostgreSQL, so that all writers agree. Raises InvalidInput.
        """
        own = require_text("agent_type", agent_type, limit=50)
        if policy is not None and not isinstance(policy, HistoryPolicy):
            raise InvalidInput("policy", f"is a {type(policy).__name__}", "Pass a HistoryPolicy, or None.")
        tenant_id, p = self._context.tenant_id, history_policies.c
        statement: sa.Delete | sa.Insert = sa.delete(history_policies).where(
            p.tenant_id == tenant_id, p.agent_type == own
        )
        if policy is not None and not policy.keeps_all:
            rule = {
                "every_updates": policy.every_updates,
                "min_interval": policy.min_interval,
                "min_divergence": policy.min_divergence,
            }
            adding = insert(history_policies).values(tenant_id=tenant_id, agent_type=own, **rule)
            statement = adding.on_conflict_do_update(index_elements=["tenant_id", "agent_type"], set_=rule)
        async with self._context.database.write(tenant_id, if_unknown=HARMLESS) as connection:
            await connection.execute(statement)

    async def get_policies(self) -> dict[str, HistoryPolicy]:
        """The policies by agent type; of types that are not there, history keeps every update."""
        p = history_policies.c
        query = sa.select(p.agent_type, p.every_updates, p.min_interval, p.min_divergence)
        query = query.where(p.tenant_id == self._context.tenant_id).order_by(p.agent_type)
        async with self._context.database.read(self._context.tenant_id) as connection:
            rows = (await connection.execute(query)).all()
        return {agent_type: HistoryPolicy(*rule) for agent_type, *rule in rows}

    async def diff_beliefs(self, ids: Sequence[UUID], start: datetime, stop: datetime) -> BeliefChanges:
        """How beliefs changed from ``start`` to ``stop``: D_KL(stop || start) and the change of entropy, in nats.

        Each moment is answered as by get_beliefs_at. Raises InvalidInput, EnvelopeRejected, KeyUnavailable.
        """
        wanted = require_ids(ids)
        if require_aware("stop", stop) < require_aware("start", start):
            raise InvalidInput("stop", "is before start", "Pass the earlier moment first.")
        before, after = [await self._reader.read_at(wanted, moment) for moment in (start, stop)]
        assert before.versions is not None and after.versions is not None  # noqa: S101, PT018 - batches that were read
        return BeliefChanges(
            ids=wanted,
            divergence=divergences(after, before),
            entropy=after.statistics().entropy - before.statistics().entropy,
            start_versions=before.versions,
            stop_versions=after.versions,
            present=before.present & after.present,
        )
