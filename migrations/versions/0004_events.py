"""The outbox, and how far each sink has been served.

Revision: 0004
Follows: 0003
"""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TENANT = "(SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid)"

UPGRADE = [
    # the id first, as the relay reads all tenants in its order; it is taken under the agent's row lock, so one
    # agent's events have ids in the order of its versions (hence no sequence cache); of a change that history keeps,
    # the envelope and the scalars are there alone, under the same moment and revision
    """
    CREATE TABLE events (
        id bigint GENERATED ALWAYS AS IDENTITY (CACHE 1),
        tenant_id uuid NOT NULL,
        xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
        subject_id uuid NOT NULL,
        type varchar(100) NOT NULL,
        version bigint NOT NULL,
        revision uuid NOT NULL,
        recorded_at timestamptz NOT NULL,
        kept boolean NOT NULL DEFAULT false,
        envelope bytea,
        free_energy double precision,
        belief_entropy double precision,
        max_belief double precision,
        belief_variance double precision,
        data jsonb,
        CONSTRAINT events_pkey PRIMARY KEY (id, tenant_id)
    ) WITH (
        toast_tuple_target = 8160,
        autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0,
        autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000
    )
    """,
    "ALTER TABLE events ALTER COLUMN envelope SET STORAGE EXTERNAL",
    """
    CREATE TABLE relay_positions (
        sink varchar(50) NOT NULL,
        epoch uuid NOT NULL,
        done_snapshot pg_snapshot NOT NULL,
        open_snapshot pg_snapshot,
        open_round bigint NOT NULL DEFAULT 0,
        open_id bigint NOT NULL DEFAULT 0,
        last_round bigint NOT NULL DEFAULT 0,
        last_id bigint NOT NULL DEFAULT 0,
        delivered bigint NOT NULL DEFAULT 0,
        left_out bigint NOT NULL DEFAULT 0,
        missed bigint NOT NULL DEFAULT 0,
        retired boolean NOT NULL DEFAULT false,
        watermark timestamptz,
        wanted_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT relay_positions_pkey PRIMARY KEY (sink)
    )
    """,
    "ALTER TABLE events ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE events FORCE ROW LEVEL SECURITY",
    f"CREATE POLICY tenant_isolation ON events TO freeagentics_app "
    f"USING (tenant_id = {TENANT}) WITH CHECK (tenant_id = {TENANT})",
    "CREATE POLICY every_tenant ON events TO freeagentics_relay USING (true)",
    # not id and xid: the order of the feed, which every tenant shares, is the server's to give
    "GRANT INSERT (tenant_id, subject_id, type, version, revision, recorded_at, kept, envelope, free_energy, "
    "belief_entropy, max_belief, belief_variance, data) ON events TO freeagentics_app",
    "GRANT SELECT, DELETE ON events TO freeagentics_relay",
    "GRANT SELECT, INSERT, UPDATE ON relay_positions TO freeagentics_relay",
    "GRANT SELECT ON relay_positions TO freeagentics_app, freeagentics_backup",
]
DOWNGRADE = [
    "DROP TABLE relay_positions",
    "DROP TABLE events",
]


def upgrade() -> None:
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWNGRADE:
        op.execute(statement)
