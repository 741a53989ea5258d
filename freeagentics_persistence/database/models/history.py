"""Which updates history keeps, and the revisions of those that it skipped."""

from __future__ import annotations

import sqlalchemy as sa

from freeagentics_persistence.database.models.base import belongs_to_tenant, key, metadata, moment

history_policies = sa.Table(
    "history_policies",
    metadata,
    key("tenant_id"),
    sa.Column("agent_type", sa.String(50), nullable=False),
    sa.Column("every_updates", sa.BigInteger),
    sa.Column("min_interval", sa.Interval),
    sa.Column("min_divergence", sa.Double),
    sa.PrimaryKeyConstraint("tenant_id", "agent_type", name="history_policies_pkey"),
    belongs_to_tenant("history_policies"),
    sa.CheckConstraint("num_nonnulls(every_updates, min_interval, min_divergence) = 1", name="one_history_policy"),
)

accepted_revisions = sa.Table(
    "accepted_revisions",
    metadata,
    key("tenant_id"),
    key("agent_id"),
    moment("recorded_at"),
    key("revision"),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.PrimaryKeyConstraint("tenant_id", "agent_id", "recorded_at", "revision", name="accepted_revisions_pkey"),
    postgresql_partition_by="RANGE (recorded_at)",
)
