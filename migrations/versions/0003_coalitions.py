"""Coalitions, their members and their performance.

Revision: 0003
Follows: 0002
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TENANT = "(SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid)"

UPGRADE = [
    """
    CREATE TABLE coalitions (
        tenant_id uuid NOT NULL,
        id uuid NOT NULL,
        name varchar(255) NOT NULL,
        business_model varchar(100) NOT NULL,
        formation_criteria jsonb NOT NULL DEFAULT '{}',
        business_config jsonb NOT NULL DEFAULT '{}',
        initial_capital numeric(15, 2) NOT NULL DEFAULT 0,
        current_capital numeric(15, 2) NOT NULL DEFAULT 0,
        total_revenue numeric(15, 2) NOT NULL DEFAULT 0,
        status varchar(20) NOT NULL DEFAULT 'forming',
        version bigint NOT NULL DEFAULT 1,
        revision uuid NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        dissolved_at timestamptz,
        CONSTRAINT coalitions_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT coalitions_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants (id),
        CONSTRAINT valid_coalition_status CHECK (status IN ('forming', 'active', 'profitable', 'dissolved')),
        CONSTRAINT dissolved_has_time CHECK ((status = 'dissolved') = (dissolved_at IS NOT NULL))
    )
    """,
    "CREATE INDEX idx_coalitions_model ON coalitions (tenant_id, business_model, id)",
    """
    CREATE TABLE coalition_members (
        tenant_id uuid NOT NULL,
        coalition_id uuid NOT NULL,
        agent_id uuid NOT NULL,
        joined_at timestamptz NOT NULL DEFAULT now(),
        role varchar(50) NOT NULL DEFAULT 'member',
        contribution_score numeric(5, 2) NOT NULL DEFAULT 0,
        CONSTRAINT coalition_members_pkey PRIMARY KEY (tenant_id, coalition_id, agent_id),
        CONSTRAINT coalition_members_coalition_fkey FOREIGN KEY (tenant_id, coalition_id)
            REFERENCES coalitions (tenant_id, id) ON DELETE CASCADE,
        CONSTRAINT coalition_members_agent_fkey FOREIGN KEY (tenant_id, agent_id)
            REFERENCES agents (tenant_id, id) ON DELETE CASCADE
    )
    """,
    "CREATE INDEX idx_coalition_members_agent ON coalition_members (tenant_id, agent_id)",
    """
    CREATE INDEX idx_coalition_members_performance
    ON coalition_members (tenant_id, coalition_id, contribution_score DESC)
    """,
    """
    CREATE TABLE coalition_performance (
        tenant_id uuid NOT NULL,
        coalition_id uuid NOT NULL,
        recorded_at timestamptz NOT NULL,
        revision uuid NOT NULL,
        member_count integer NOT NULL,
        revenue double precision NOT NULL,
        efficiency double precision,
        revenue_per_member double precision NOT NULL,
        booked numeric(15, 2),
        CONSTRAINT coalition_performance_pkey PRIMARY KEY (tenant_id, coalition_id, revision),
        CONSTRAINT coalition_performance_coalition_fkey FOREIGN KEY (tenant_id, coalition_id)
            REFERENCES coalitions (tenant_id, id) ON DELETE CASCADE
    )
    """,
    "CREATE INDEX idx_coalition_performance_time ON coalition_performance (tenant_id, coalition_id, recorded_at)",
    *[
        statement
        for table in ("coalitions", "coalition_members", "coalition_performance")
        for statement in (
            f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
            f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
            f"CREATE POLICY tenant_isolation ON {table} TO freeagentics_app "
            f"USING (tenant_id = {TENANT}) WITH CHECK (tenant_id = {TENANT})",
            f"CREATE POLICY every_tenant ON {table} FOR SELECT TO freeagentics_backup USING (true)",
            f"GRANT SELECT ON {table} TO freeagentics_backup",
        )
    ],
    "GRANT SELECT, INSERT, UPDATE ON coalitions TO freeagentics_app",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON coalition_members TO freeagentics_app",
    "GRANT SELECT, INSERT ON coalition_performance TO freeagentics_app",
]
DOWNGRADE = [
    "DROP TABLE coalition_performance",
    "DROP TABLE coalition_members",
    "DROP TABLE coalitions",
]


def upgrade() -> None:
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWNGRADE:
        op.execute(statement)
