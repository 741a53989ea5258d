"""Agents, the memory of deleted ones, and history."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, UUID

from freeagentics_persistence.database.models.base import belongs_to_tenant, key, metadata, moment

_ACTIVE = sa.text("status = 'active'")

agents = sa.Table(
    "agents",
    metadata,
    key("tenant_id"),
    key("id"),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("agent_type", sa.String(50), nullable=False),
    sa.Column("personality_traits", JSONB, nullable=False, server_default=sa.text("'{}'")),
    sa.Column("energy_level", sa.Integer, nullable=False, server_default=sa.text("100")),
    sa.Column("location_h3", sa.BigInteger),
    sa.Column("status", sa.String(20), nullable=False, server_default=sa.text("'active'")),
    moment("created_at", default="now()"),
    moment("updated_at", default="now()"),
    moment("last_active_at", default="now()"),
    sa.Column("version", sa.BigInteger, nullable=False, server_default=sa.text("1")),
    key("revision"),
    key("newest_revision"),
    sa.Column("belief_state", sa.LargeBinary),
    # the newest version in history, and when it was recorded, where history skipped the present version
    sa.Column("kept_version", sa.BigInteger),
    moment("kept_at", nullable=True),
    sa.Column("skipped_version", sa.BigInteger),
    sa.PrimaryKeyConstraint("tenant_id", "id", name="agents_pkey"),
    belongs_to_tenant("agents"),
    sa.CheckConstraint("energy_level >= 0 AND energy_level <= 100", name="valid_energy"),
    sa.CheckConstraint("status IN ('active', 'inactive', 'suspended')", name="valid_status"),
    sa.Index("idx_agents_tenant_type", "tenant_id", "agent_type", "id"),
    sa.Index("idx_agents_location", "tenant_id", "location_h3", "id"),
    sa.Index("idx_agents_last_active", "tenant_id", "last_active_at"),
    sa.Index("idx_agents_composite", "tenant_id", "status", "last_active_at", postgresql_where=_ACTIVE),
    sa.Index("idx_agents_active_location", "tenant_id", "location_h3", "id", postgresql_where=_ACTIVE),
    sa.Index("idx_agents_resting", "tenant_id", "status", "id", postgresql_where=sa.text("status <> 'active'")),
    postgresql_with={"fillfactor": 50, "toast_tuple_target": 8160},
)

deleted_agents = sa.Table(
    "deleted_agents",
    metadata,
    key("tenant_id"),
    key("id"),
    sa.Column("version", sa.BigInteger, nullable=False),
    key("newest_revision"),
    moment("deleted_at"),
    sa.PrimaryKeyConstraint("tenant_id", "id", name="deleted_agents_pkey"),
    belongs_to_tenant("deleted_agents"),
)

agent_history = sa.Table(
    "agent_history",
    metadata,
    key("tenant_id"),
    key("agent_id"),
    moment("recorded_at"),
    sa.Column("version", sa.BigInteger),  # null where something was announced without a change
    sa.Column("type", sa.String(100)),  # what was announced; null for a change
    sa.Column("revision", UUID(as_uuid=True), nullable=False),
    sa.Column("belief_state", sa.LargeBinary),
    sa.Column("energy_level", sa.Integer),
    sa.Column("free_energy", sa.Double),
    sa.Column("belief_entropy", sa.Double),
    sa.Column("max_belief", sa.Double),
    sa.Column("belief_variance", sa.Double),
    sa.PrimaryKeyConstraint("tenant_id", "agent_id", "recorded_at", "revision", name="agent_history_pkey"),
    postgresql_partition_by="RANGE (recorded_at)",
)
