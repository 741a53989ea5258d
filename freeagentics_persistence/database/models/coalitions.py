"""Coalitions, members and performance."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from freeagentics_persistence.database.models.base import belongs_to_tenant, key, metadata, moment

_ZERO = sa.text("0")


def _money(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.Numeric(15, 2), nullable=False, server_default=_ZERO)


def _of_coalition(name: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["tenant_id", "coalition_id"], ["coalitions.tenant_id", "coalitions.id"], name=name, ondelete="CASCADE"
    )


coalitions = sa.Table(
    "coalitions",
    metadata,
    key("tenant_id"),
    key("id"),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("business_model", sa.String(100), nullable=False),
    sa.Column("formation_criteria", JSONB, nullable=False, server_default=sa.text("'{}'")),
    sa.Column("business_config", JSONB, nullable=False, server_default=sa.text("'{}'")),
    _money("initial_capital"),
    _money("current_capital"),
    _money("total_revenue"),
    sa.Column("status", sa.String(20), nullable=False, server_default=sa.text("'forming'")),
    sa.Column("version", sa.BigInteger, nullable=False, server_default=sa.text("1")),
    key("revision"),
    moment("created_at", default="now()"),
    moment("updated_at", default="now()"),
    moment("dissolved_at", nullable=True),
    sa.PrimaryKeyConstraint("tenant_id", "id", name="coalitions_pkey"),
    belongs_to_tenant("coalitions"),
    sa.CheckConstraint("status IN ('forming', 'active', 'profitable', 'dissolved')", name="valid_coalition_status"),
    sa.CheckConstraint("(status = 'dissolved') = (dissolved_at IS NOT NULL)", name="dissolved_has_time"),
    sa.CheckConstraint("'NaN' NOT IN (initial_capital, current_capital, total_revenue)", name="money_is_a_number"),
    sa.Index("idx_coalitions_model", "tenant_id", "business_model", "id"),
)

coalition_members = sa.Table(
    "coalition_members",
    metadata,
    key("tenant_id"),
    key("coalition_id"),
    key("agent_id"),
    moment("joined_at", default="now()"),
    sa.Column("role", sa.String(50), nullable=False, server_default=sa.text("'member'")),
    sa.Column("contribution_score", sa.Numeric(5, 2), nullable=False, server_default=_ZERO),
    sa.PrimaryKeyConstraint("tenant_id", "coalition_id", "agent_id", name="coalition_members_pkey"),
    _of_coalition("coalition_members_coalition_fkey"),
    sa.ForeignKeyConstraint(
        ["tenant_id", "agent_id"],
        ["agents.tenant_id", "agents.id"],
        name="coalition_members_agent_fkey",
        ondelete="CASCADE",
    ),
    sa.Index("idx_coalition_members_agent", "tenant_id", "agent_id"),
    sa.Index("idx_coalition_members_of_agent", "tenant_id", "agent_id", "coalition_id"),
    # minus the score in hundredths: the order of the ranking, in integers, as row-level security keeps decimals from
    # being compared in an index
    sa.Column("rank_key", sa.Integer, nullable=False, server_default=_ZERO),
    sa.CheckConstraint("contribution_score BETWEEN 0 AND 999.99", name="valid_contribution_score"),
    sa.CheckConstraint("rank_key = - contribution_score * 100", name="rank_key_is_of_score"),
    sa.Index("idx_coalition_members_performance", "tenant_id", "coalition_id", "rank_key", "agent_id"),
)

coalition_performance = sa.Table(
    "coalition_performance",
    metadata,
    key("tenant_id"),
    key("coalition_id"),
    moment("recorded_at"),
    key("revision"),
    sa.Column("member_count", sa.Integer, nullable=False),
    sa.Column("revenue", sa.Double),  # NULL where a change booked none
    sa.Column("efficiency", sa.Double),
    sa.Column("revenue_per_member", sa.Double),
    sa.Column("booked", sa.Numeric(15, 2)),  # what record_revenue added to the coalition's money
    # the coalition after the change; NULL of what was only measured
    sa.Column("version", sa.BigInteger),
    sa.Column("status", sa.String(20)),
    sa.Column("total_revenue", sa.Numeric(15, 2)),
    sa.Column("current_capital", sa.Numeric(15, 2)),
    sa.PrimaryKeyConstraint("tenant_id", "coalition_id", "revision", name="coalition_performance_pkey"),
    _of_coalition("coalition_performance_coalition_fkey"),
    sa.Index("idx_coalition_performance_time", "tenant_id", "coalition_id", "recorded_at"),
)
