"""Tenants, their data keys, and the epoch: one unbroken life of the database.

Revision: 0001
Follows: nothing
"""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

UPGRADE = [
    """
    CREATE TABLE tenants (
        id uuid NOT NULL,
        name varchar(255) NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT tenants_pkey PRIMARY KEY (id),
        CONSTRAINT tenants_name_key UNIQUE (name)
    )
    """,
    """
    CREATE TABLE keyring (
        tenant_id uuid NOT NULL,
        key_id uuid NOT NULL,
        state varchar(20) NOT NULL,
        wrapped_key bytea,
        kek_reference text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        changed_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT keyring_pkey PRIMARY KEY (tenant_id, key_id),
        CONSTRAINT keyring_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE,
        CONSTRAINT keyring_state_check CHECK (state IN ('pending', 'primary', 'decrypt', 'disabled', 'destroyed')),
        CONSTRAINT keyring_wrapped_check CHECK ((wrapped_key IS NULL) = (state = 'destroyed'))
    )
    """,
    "CREATE UNIQUE INDEX keyring_primary_key ON keyring (tenant_id) WHERE state = 'primary'",
    """
    CREATE TABLE epochs (
        number bigint GENERATED ALWAYS AS IDENTITY,
        id uuid NOT NULL,
        system_identifier bigint NOT NULL,
        timeline integer NOT NULL,
        reason text NOT NULL,
        started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT epochs_pkey PRIMARY KEY (id),
        CONSTRAINT epochs_number_key UNIQUE (number)
    )
    """,
    # runs with the owner's rights, as applications may neither write epochs nor read the control file; so every name
    # in it is qualified, and the caller's temporary objects come last
    """
    CREATE FUNCTION current_epoch() RETURNS uuid
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DECLARE
        here bigint := (SELECT system_identifier FROM pg_catalog.pg_control_system());
        line integer := ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::integer;
        last public.epochs%ROWTYPE;
    BEGIN
        SELECT * INTO last FROM public.epochs ORDER BY number DESC LIMIT 1;
        IF last.system_identifier = here AND last.timeline = line THEN
            RETURN last.id;
        END IF;
        LOCK TABLE public.epochs IN SHARE ROW EXCLUSIVE MODE;
        SELECT * INTO last FROM public.epochs ORDER BY number DESC LIMIT 1;
        IF last.system_identifier = here AND last.timeline = line THEN
            RETURN last.id;
        END IF;
        PERFORM set_config('synchronous_commit', 'on', true);
        INSERT INTO public.epochs (id, system_identifier, timeline, reason)
        VALUES (gen_random_uuid(), here, line, CASE
            WHEN last.id IS NULL THEN 'first start'
            WHEN last.system_identifier <> here THEN 'another server: restored or copied'
            ELSE 'another timeline: recovered or failed over' END)
        RETURNING * INTO last;
        RETURN last.id;
    END
    $$
    """,
    # for the owner alone, as it voids every cache and position
    """
    CREATE FUNCTION begin_epoch(reason text) RETURNS uuid LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
        LOCK TABLE public.epochs IN SHARE ROW EXCLUSIVE MODE;
        INSERT INTO public.epochs (id, system_identifier, timeline, reason)
        SELECT gen_random_uuid(), s.system_identifier,
            ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::integer, begin_epoch.reason
        FROM pg_catalog.pg_control_system() AS s
        RETURNING id
    $$
    """,
    "REVOKE ALL ON FUNCTION current_epoch() FROM PUBLIC",
    "REVOKE ALL ON FUNCTION begin_epoch(text) FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION current_epoch() TO freeagentics_app, freeagentics_relay, freeagentics_backup",
    "GRANT SELECT ON alembic_version TO freeagentics_app, freeagentics_backup",
    "GRANT SELECT ON epochs TO freeagentics_app, freeagentics_relay, freeagentics_backup",
    "ALTER TABLE tenants ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE tenants FORCE ROW LEVEL SECURITY",
    "ALTER TABLE keyring ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE keyring FORCE ROW LEVEL SECURITY",
    """
    CREATE POLICY tenant_isolation ON tenants TO freeagentics_app
    USING (id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid))
    WITH CHECK (id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid))
    """,
    """
    CREATE POLICY tenant_isolation ON keyring TO freeagentics_app
    USING (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid))
    WITH CHECK (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid))
    """,
    "CREATE POLICY every_tenant ON tenants FOR SELECT TO freeagentics_backup USING (true)",
    # the first statement of every transaction; row-level security shows the caller this tenant alone. What is
    # acknowledged is on disk whatever the server's default is, also where a pooler forgets what a session has set
    """
    CREATE FUNCTION enter_tenant(tenant uuid) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM set_config('app.tenant_id', tenant::text, true), set_config('synchronous_commit', 'on', true);
        IF NOT EXISTS (SELECT FROM tenants WHERE id = tenant) THEN
            RAISE EXCEPTION 'tenant does not exist' USING ERRCODE = 'FA404', DETAIL = tenant::text;
        END IF;
    END
    $$
    """,
    "REVOKE ALL ON FUNCTION enter_tenant(uuid) FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION enter_tenant(uuid) TO freeagentics_app",
    "GRANT SELECT, INSERT ON tenants TO freeagentics_app",
    "GRANT SELECT, INSERT ON keyring TO freeagentics_app",
    "GRANT SELECT ON tenants TO freeagentics_backup",
    # forced row-level security hides rows from the owner too, so the first tenant comes by a policy of its own
    "CREATE POLICY first_tenant ON tenants FOR INSERT TO freeagentics_owner WITH CHECK (name = 'default')",
    "INSERT INTO tenants (id, name) VALUES ('00000000-0000-7000-8000-000000000001', 'default')",
    "DROP POLICY first_tenant ON tenants",
]
DOWNGRADE = [
    "REVOKE SELECT ON alembic_version FROM freeagentics_app, freeagentics_backup",
    "DROP FUNCTION enter_tenant(uuid)",
    "DROP FUNCTION begin_epoch(text)",
    "DROP FUNCTION current_epoch()",
    "DROP TABLE epochs",
    "DROP TABLE keyring",
    "DROP TABLE tenants",
]


def upgrade() -> None:
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWNGRADE:
        op.execute(statement)
