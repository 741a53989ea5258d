"""Agents and their history, partitioned by month.

Revision: 0002
Follows: 0001
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TENANT = "(SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid)"

UPGRADE = [
    # half-filled pages and inline envelopes keep belief updates on their page (HOT), without index or TOAST writes
    """
    CREATE TABLE agents (
        tenant_id uuid NOT NULL,
        id uuid NOT NULL,
        name varchar(255) NOT NULL,
        agent_type varchar(50) NOT NULL,
        personality_traits jsonb NOT NULL DEFAULT '{}',
        energy_level integer NOT NULL DEFAULT 100,
        location_h3 bigint,
        status varchar(20) NOT NULL DEFAULT 'active',
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        last_active_at timestamptz NOT NULL DEFAULT now(),
        version bigint NOT NULL DEFAULT 1,
        revision uuid NOT NULL,
        newest_revision uuid NOT NULL,
        belief_state bytea,
        CONSTRAINT agents_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT agents_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants (id),
        CONSTRAINT valid_energy CHECK (energy_level >= 0 AND energy_level <= 100),
        CONSTRAINT valid_status CHECK (status IN ('active', 'inactive', 'suspended'))
    ) WITH (fillfactor = 50, toast_tuple_target = 8160)
    """,
    # envelopes do not compress
    "ALTER TABLE agents ALTER COLUMN belief_state SET STORAGE EXTERNAL",
    "CREATE INDEX idx_agents_tenant_type ON agents (tenant_id, agent_type, id)",
    "CREATE INDEX idx_agents_location ON agents (tenant_id, location_h3, id)",
    "CREATE INDEX idx_agents_last_active ON agents (tenant_id, last_active_at)",
    # a deleted agent that is made again goes on counting versions, so that no cache takes the old one for newer, and
    # still knows the revisions it accepted
    """
    CREATE TABLE deleted_agents (
        tenant_id uuid NOT NULL,
        id uuid NOT NULL,
        version bigint NOT NULL,
        newest_revision uuid NOT NULL,
        deleted_at timestamptz NOT NULL,
        CONSTRAINT deleted_agents_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT deleted_agents_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants (id)
    )
    """,
    """
    CREATE TABLE agent_history (
        tenant_id uuid NOT NULL,
        agent_id uuid NOT NULL,
        recorded_at timestamptz NOT NULL,
        version bigint,
        type varchar(100),
        revision uuid NOT NULL,
        belief_state bytea,
        energy_level integer,
        free_energy double precision,
        belief_entropy double precision,
        max_belief double precision,
        belief_variance double precision,
        CONSTRAINT agent_history_pkey PRIMARY KEY (tenant_id, agent_id, recorded_at, revision)
    ) PARTITION BY RANGE (recorded_at)
    """,
    "ALTER TABLE agent_history ALTER COLUMN belief_state SET STORAGE EXTERNAL",
    """
    CREATE FUNCTION ensure_history_partitions(months_ahead integer DEFAULT 3) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    -- a new partition locks out everybody who reads or writes history, also while it waits for its own turn
    SET lock_timeout = '2s' AS $$
    DECLARE
        first date := date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC')::date;
        month date;
        made integer := 0;
        wanted text;
    BEGIN
        IF months_ahead NOT BETWEEN 0 AND 12 THEN
            RAISE EXCEPTION 'months_ahead is %, not 0 to 12', months_ahead USING ERRCODE = '22023';
        END IF;
        FOR i IN -1..months_ahead LOOP
            month := first + make_interval(months => i);
            wanted := 'agent_history_' || to_char(month, 'YYYY_MM');
            IF to_regclass('public.' || wanted) IS NULL THEN
                PERFORM pg_advisory_xact_lock(hashtext('freeagentics partitions'));
                IF to_regclass('public.' || wanted) IS NULL THEN
                    EXECUTE format(
                        'CREATE TABLE public.%I PARTITION OF public.agent_history FOR VALUES FROM (%L) TO (%L) '
                        'WITH (toast_tuple_target = 8160)',
                        wanted, month || ' 00:00+00', (month + interval '1 month')::date || ' 00:00+00');
                    made := made + 1;
                END IF;
            END IF;
        END LOOP;
        RETURN made;
    EXCEPTION WHEN lock_not_available THEN
        -- partitions are made months ahead, so only that of the present month is worth an error
        IF to_regclass('public.agent_history_' || to_char(first, 'YYYY_MM')) IS NULL THEN
            RAISE;
        END IF;
        RETURN 0;
    END
    $$
    """,
    "REVOKE ALL ON FUNCTION ensure_history_partitions(integer) FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION ensure_history_partitions(integer) TO freeagentics_app",
    "SELECT ensure_history_partitions(3)",
    *[
        statement
        for table in ("agents", "deleted_agents", "agent_history")
        for statement in (
            f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
            f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
            f"CREATE POLICY tenant_isolation ON {table} TO freeagentics_app "
            f"USING (tenant_id = {TENANT}) WITH CHECK (tenant_id = {TENANT})",
            f"CREATE POLICY every_tenant ON {table} FOR SELECT TO freeagentics_backup USING (true)",
            f"GRANT SELECT ON {table} TO freeagentics_backup",
        )
    ],
    # events point at history; of everything else the relay sees nothing
    "CREATE POLICY of_events ON agent_history FOR SELECT TO freeagentics_relay USING (true)",
    "GRANT SELECT ON agent_history TO freeagentics_relay",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON agents TO freeagentics_app",
    "GRANT SELECT, INSERT, DELETE ON deleted_agents TO freeagentics_app",
    "GRANT SELECT, INSERT ON agent_history TO freeagentics_app",
]
DOWNGRADE = [
    "DROP FUNCTION ensure_history_partitions(integer)",
    "DROP TABLE agent_history",
    "DROP TABLE deleted_agents",
    "DROP TABLE agents",
]


def upgrade() -> None:
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWNGRADE:
        op.execute(statement)
