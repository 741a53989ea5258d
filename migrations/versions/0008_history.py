"""Which updates history keeps, and partitions that are made and dropped while writers go on.

Revision: 0008
Follows: 0007

``update_beliefs`` is ``write_beliefs`` with policies; code of 0.1.0 goes on calling the latter. An update that history
does not keep leaves its envelope in its event and its revision in ``accepted_revisions``, which is kept for days. The
present version of an agent is in history unless ``skipped_version`` names it, so what knows nothing of policies, such
as ``save_agents``, need not touch these columns.
"""

from __future__ import annotations

from alembic import context, op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TENANT = "(SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid)"

TABLES = [
    """
    CREATE TABLE history_policies (
        tenant_id uuid NOT NULL,
        agent_type varchar(50) NOT NULL,
        every_updates bigint,
        min_interval interval,
        min_divergence double precision,
        CONSTRAINT history_policies_pkey PRIMARY KEY (tenant_id, agent_type),
        CONSTRAINT history_policies_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants (id),
        CONSTRAINT one_history_policy CHECK (num_nonnulls(every_updates, min_interval, min_divergence) = 1)
    )
    """,
    """
    CREATE TABLE accepted_revisions (
        tenant_id uuid NOT NULL,
        agent_id uuid NOT NULL,
        recorded_at timestamptz NOT NULL,
        revision uuid NOT NULL,
        version bigint NOT NULL,
        CONSTRAINT accepted_revisions_pkey PRIMARY KEY (tenant_id, agent_id, recorded_at, revision)
    ) PARTITION BY RANGE (recorded_at)
    """,
    # the newest version that history keeps, and when it was recorded, where history skipped the version named last
    "ALTER TABLE agents ADD COLUMN kept_version bigint",
    "ALTER TABLE agents ADD COLUMN kept_at timestamptz",
    "ALTER TABLE agents ADD COLUMN skipped_version bigint",
    *[
        statement
        for table in ("history_policies", "accepted_revisions")
        for statement in (
            f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
            f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
            f"CREATE POLICY tenant_isolation ON {table} TO freeagentics_app "
            f"USING (tenant_id = {TENANT}) WITH CHECK (tenant_id = {TENANT})",
            f"CREATE POLICY every_tenant ON {table} FOR SELECT TO freeagentics_backup USING (true)",
            f"GRANT SELECT ON {table} TO freeagentics_backup",
        )
    ],
    "GRANT SELECT, INSERT, UPDATE, DELETE ON history_policies TO freeagentics_app",
    "GRANT SELECT, INSERT ON accepted_revisions TO freeagentics_app",
]

UPDATE_BELIEFS = """
CREATE FUNCTION update_beliefs(
    tenant uuid, ids uuid[], expected bigint[], revisions uuid[], envelopes bytea[],
    free_energies double precision[], entropies double precision[], maxima double precision[],
    variances double precision[], divergences double precision[], known bigint[], revision_memory interval,
    OUT statuses smallint[], OUT versions bigint[], OUT recorded timestamptz[], OUT kept bigint[]
)
LANGUAGE plpgsql SET work_mem = '64MB'
-- nothing is known of the arrays' lengths when plans are made, so a plan could pair all rows with all rows; with these
-- there is one plan for every length and size of the tables: look up all ids in the index, then join by hash
SET plan_cache_mode = 'force_generic_plan' SET enable_nestloop = off SET enable_mergejoin = off SET enable_seqscan = off
AS $$
DECLARE
    now_here timestamptz;
    late bigint[];
    late_ids uuid[];
    repeated jsonb := '{}';
    oldest uuid;
    newest uuid;
    has_policies boolean;
    skips boolean[];
    by_divergence boolean;
    written_rows bigint[];
BEGIN
    PERFORM enter_tenant(tenant);
    -- all writers lock in the order of ids, so they never deadlock; a revision newer than all that the agent has seen
    -- cannot be a retry, and only the others are looked up
    SELECT array_agg(i.n), array_agg(i.id), EXISTS (SELECT FROM history_policies WHERE tenant_id = tenant)
    INTO late, late_ids, has_policies
    FROM (
        SELECT a.id, a.newest_revision FROM agents a
        WHERE a.tenant_id = tenant AND a.id = ANY (ids) ORDER BY a.id FOR NO KEY UPDATE
    ) AS locked
    JOIN unnest(ids, revisions) WITH ORDINALITY AS i (id, revision, n) USING (id)
    WHERE i.revision <= locked.newest_revision;
    now_here := clock_timestamp();
    IF late IS NOT NULL THEN
        SELECT coalesce(jsonb_object_agg(i.n, jsonb_build_array(h.version, h.recorded_at)), '{}') INTO repeated
        FROM unnest(ids, revisions) WITH ORDINALITY AS i (id, revision, n)
        JOIN (
            SELECT agent_id, revision, version, recorded_at FROM agent_history
            WHERE tenant_id = tenant AND agent_id = ANY (late_ids) AND version IS NOT NULL
                AND recorded_at >= now_here - revision_memory - interval '10 minutes'
            UNION ALL
            SELECT agent_id, revision, version, recorded_at FROM accepted_revisions
            WHERE tenant_id = tenant AND agent_id = ANY (late_ids)
                AND recorded_at >= now_here - revision_memory - interval '10 minutes'
        ) AS h ON h.agent_id = i.id AND h.revision = i.revision
        WHERE i.n = ANY (late);
        SELECT array_agg(n) INTO late FROM unnest(late) AS n WHERE NOT repeated ? n::text;
    END IF;
    -- what cannot be proved to lie within its policy is kept
    IF has_policies THEN
        SELECT bool_or(p.min_divergence IS NOT NULL), array_agg(coalesce(CASE
            WHEN p.every_updates IS NOT NULL THEN a.version + 1 - a.kept_version < p.every_updates
            WHEN p.min_interval IS NOT NULL
                THEN greatest(now_here, a.updated_at + interval '1 microsecond') - a.kept_at < p.min_interval
            ELSE i.known = a.kept_version AND i.divergence <= p.min_divergence END, false) ORDER BY i.n)
        INTO by_divergence, skips
        FROM unnest(ids, divergences, known) WITH ORDINALITY AS i (id, divergence, known, n)
        LEFT JOIN (
            SELECT id, agent_type, version, updated_at,
                CASE WHEN skipped_version = version THEN kept_version ELSE version END AS kept_version,
                CASE WHEN skipped_version = version THEN kept_at ELSE updated_at END AS kept_at
            FROM agents WHERE tenant_id = tenant AND id = ANY (ids)
        ) AS a USING (id)
        LEFT JOIN history_policies p ON p.tenant_id = tenant AND p.agent_type = a.agent_type;
    END IF;

    -- the first 48 bits of a UUIDv7 are milliseconds since 1970, so its bounds are UUIDs
    oldest := (lpad(to_hex((extract(epoch FROM now_here - revision_memory) * 1000)::bigint), 12, '0')
        || repeat('0', 20))::uuid;
    newest := (lpad(to_hex((extract(epoch FROM now_here + interval '5 minutes') * 1000)::bigint), 12, '0')
        || repeat('f', 20))::uuid;
    WITH written AS (
        UPDATE agents a SET
            belief_state = i.envelope,
            version = a.version + 1,
            revision = i.revision,
            newest_revision = greatest(a.newest_revision, i.revision),
            updated_at = greatest(now_here, a.updated_at + interval '1 microsecond'),
            -- indexed, so it moves at most once a minute to keep the other updates on their page
            last_active_at = CASE
                WHEN a.last_active_at < now_here - interval '1 minute' THEN now_here ELSE a.last_active_at END,
            kept_version = CASE WHEN i.skip THEN
                CASE WHEN a.skipped_version = a.version THEN a.kept_version ELSE a.version END END,
            kept_at = CASE WHEN i.skip THEN
                CASE WHEN a.skipped_version = a.version THEN a.kept_at ELSE a.updated_at END END,
            skipped_version = CASE WHEN i.skip THEN a.version + 1 END
        FROM unnest(
            ids, expected, revisions, envelopes, free_energies, entropies, maxima, variances, skips
        ) WITH ORDINALITY AS i (id, expected, revision, envelope, free_energy, entropy, maximum, variance, skip, n)
        WHERE a.tenant_id = tenant AND a.id = ANY (ids) AND a.id = i.id
            AND (i.expected IS NULL OR a.version = i.expected)
            AND (i.revision > a.newest_revision OR i.n = ANY (late))
            AND i.revision BETWEEN oldest AND newest
        RETURNING i.n, a.id, a.version, a.updated_at, a.energy_level, a.skipped_version IS NULL AS keep,
            i.revision, i.envelope, i.free_energy, i.entropy, i.maximum, i.variance
    ),
    history AS (
        INSERT INTO agent_history (
            tenant_id, agent_id, recorded_at, version, revision, belief_state, energy_level,
            free_energy, belief_entropy, max_belief, belief_variance)
        SELECT tenant, w.id, w.updated_at, w.version, w.revision, w.envelope, w.energy_level,
            w.free_energy, w.entropy, w.maximum, w.variance
        FROM written w WHERE w.keep
    ),
    outbox AS (
        INSERT INTO events (tenant_id, subject_id, type, version, revision, recorded_at, kept, envelope,
            free_energy, belief_entropy, max_belief, belief_variance)
        SELECT tenant, w.id, 'beliefs.updated', w.version, w.revision, w.updated_at, w.keep,
            CASE WHEN NOT w.keep THEN w.envelope END, CASE WHEN NOT w.keep THEN w.free_energy END,
            CASE WHEN NOT w.keep THEN w.entropy END, CASE WHEN NOT w.keep THEN w.maximum END,
            CASE WHEN NOT w.keep THEN w.variance END
        FROM written w
    )
    SELECT array_agg(n ORDER BY n), array_agg(version ORDER BY n), array_agg(updated_at ORDER BY n)
    INTO written_rows, versions, recorded FROM written;
    IF skips IS NOT NULL THEN
        INSERT INTO accepted_revisions (tenant_id, agent_id, recorded_at, revision, version)
        SELECT tenant, ids[w.n], w.recorded, revisions[w.n], w.version
        FROM unnest(written_rows, versions, recorded) AS w (n, version, recorded) WHERE skips[w.n];
    END IF;
    IF by_divergence THEN
        SELECT array_agg(CASE WHEN p.min_divergence IS NOT NULL THEN
            CASE WHEN a.skipped_version = a.version THEN a.kept_version ELSE a.version END END ORDER BY i.n) INTO kept
        FROM unnest(ids) WITH ORDINALITY AS i (id, n)
        LEFT JOIN agents a ON a.tenant_id = tenant AND a.id = i.id AND a.id = ANY (ids)
        LEFT JOIN history_policies p ON p.tenant_id = tenant AND p.agent_type = a.agent_type;
    END IF;
    IF cardinality(written_rows) = cardinality(ids) THEN
        statuses := array_fill(0::smallint, ARRAY[cardinality(ids)]);
        RETURN;
    END IF;

    SELECT
        array_agg(CASE
            WHEN w.n IS NOT NULL THEN 0
            WHEN a.id IS NULL THEN 3
            WHEN repeated ? i.n::text THEN 1
            WHEN i.revision < oldest THEN 4
            WHEN i.revision > newest THEN 6
            WHEN i.expected IS NULL THEN 3  -- it came into being while this ran
            ELSE 2 END::smallint ORDER BY i.n),
        array_agg(CASE
            WHEN w.n IS NOT NULL THEN w.version
            WHEN repeated ? i.n::text THEN (repeated -> i.n::text ->> 0)::bigint
            ELSE coalesce(a.version, 0) END ORDER BY i.n),
        array_agg(CASE
            WHEN w.n IS NOT NULL THEN w.updated_at
            WHEN repeated ? i.n::text THEN (repeated -> i.n::text ->> 1)::timestamptz
            ELSE now_here END ORDER BY i.n)
    INTO statuses, versions, recorded
    FROM unnest(ids, expected, revisions) WITH ORDINALITY AS i (id, expected, revision, n)
    LEFT JOIN unnest(written_rows, versions, recorded) AS w (n, version, updated_at) USING (n)
    LEFT JOIN agents a ON a.tenant_id = tenant AND a.id = i.id AND a.id = ANY (ids);
END
$$
"""
# what 0.1.0 calls: it knows no divergences, so a policy by divergence keeps all that it writes
WRITE_BELIEFS = """
CREATE OR REPLACE FUNCTION write_beliefs(
    tenant uuid, ids uuid[], expected bigint[], revisions uuid[], envelopes bytea[],
    free_energies double precision[], entropies double precision[], maxima double precision[],
    variances double precision[], revision_memory interval,
    OUT statuses smallint[], OUT versions bigint[], OUT recorded timestamptz[]
)
LANGUAGE plpgsql AS $$
BEGIN
    SELECT w.statuses, w.versions, w.recorded INTO statuses, versions, recorded
    FROM update_beliefs(tenant, ids, expected, revisions, envelopes, free_energies, entropies, maxima, variances,
        NULL, NULL, revision_memory) AS w;
END
$$
"""
UPDATE_SIGNATURE = (
    "update_beliefs(uuid, uuid[], bigint[], uuid[], bytea[], double precision[], double precision[], "
    "double precision[], double precision[], double precision[], bigint[], interval)"
)

# the bounds of partitions are written and read as text, so their functions fix what that depends on
PARTITION_RANGES = """
CREATE FUNCTION partition_ranges(parent text) RETURNS TABLE (partition text, starts timestamptz, ends timestamptz)
LANGUAGE sql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO' AS $$
    SELECT c.relname::text, bounds[1]::timestamptz, bounds[2]::timestamptz
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    CROSS JOIN LATERAL
        regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \\(''(.*)''\\) TO \\(''(.*)''\\)') AS bounds
    WHERE i.inhparent = ('public.' || parent)::regclass AND NOT i.inhdetachpending
$$
"""
# attached, not created as a partition: that would lock out everybody who reads or writes the parent
FILL_PARTITIONS = """
CREATE FUNCTION fill_partitions(parent text, unit text, first timestamptz, stop timestamptz) RETURNS SETOF text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO' AS $$
DECLARE
    step interval := ('1 ' || unit)::interval;
    moment timestamptz := date_trunc(unit, first);
    until timestamptz;
    made text;
BEGIN
    WHILE moment < stop LOOP
        until := (SELECT r.ends FROM public.partition_ranges(parent) AS r WHERE moment >= r.starts AND moment < r.ends);
        IF until IS NULL THEN
            PERFORM pg_advisory_xact_lock(hashtext('freeagentics partitions'));
            SELECT max(r.ends) FILTER (WHERE moment >= r.starts AND moment < r.ends) INTO until
            FROM public.partition_ranges(parent) AS r;
        END IF;
        IF until IS NULL THEN
            SELECT least(date_trunc(unit, moment) + step, min(r.starts)) INTO until
            FROM public.partition_ranges(parent) AS r WHERE r.starts > moment;
            made := parent || to_char(moment,
                CASE WHEN unit = 'month' AND until = moment + step THEN '_YYYY_MM' ELSE '_YYYY_MM_DD' END);
            IF to_regclass('public.' || made) IS NULL THEN
                EXECUTE format('CREATE TABLE public.%I (LIKE public.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS '
                    'INCLUDING INDEXES INCLUDING STORAGE) WITH (toast_tuple_target = 8160)', made, parent);
                EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
                    parent, made, moment, until);
                RETURN NEXT made;
            END IF;
        END IF;
        moment := until;
    END LOOP;
END
$$
"""
MAKE_PARTITIONS = """
CREATE FUNCTION make_partitions(unit text, months_ahead integer DEFAULT 3) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO' SET lock_timeout = '2s' AS $$
DECLARE
    today timestamptz := date_trunc('day', clock_timestamp());
    month timestamptz := date_trunc('month', clock_timestamp());
    wide text;
    filled boolean;
BEGIN
    IF unit IS NULL OR unit NOT IN ('month', 'day') THEN
        RAISE EXCEPTION 'unit is %, not month or day', unit USING ERRCODE = '22023';
    END IF;
    IF unit = 'day' THEN
        PERFORM pg_advisory_xact_lock(hashtext('freeagentics partitions'));
        -- months to come that were made before days were wanted make way for them
        FOR wide IN
            SELECT r.partition FROM public.partition_ranges('agent_history') AS r
            WHERE r.starts > clock_timestamp() AND r.ends - r.starts > interval '1 day'
        LOOP
            LOCK TABLE ONLY public.agent_history IN ACCESS EXCLUSIVE MODE;
            EXECUTE format('SELECT EXISTS (SELECT FROM public.%I)', wide) INTO filled;
            IF NOT filled THEN
                EXECUTE format('DROP TABLE public.%I', wide);
            END IF;
        END LOOP;
        -- at least one day past the present partition, which may be a month
        RETURN QUERY SELECT public.fill_partitions(
            'agent_history', unit, today - interval '1 day', greatest(today + interval '15 days', (
                SELECT r.ends + interval '1 day' FROM public.partition_ranges('agent_history') AS r
                WHERE clock_timestamp() >= r.starts AND clock_timestamp() < r.ends)));
    ELSE
        RETURN QUERY SELECT public.fill_partitions(
            'agent_history', unit, month - interval '1 month', month + make_interval(months => months_ahead + 1));
    END IF;
    RETURN QUERY SELECT public.fill_partitions(
        'accepted_revisions', 'day', today - interval '1 day', today + interval '8 days');
END
$$
"""
# for applications, which go on by months or days as the partition that comes next is one
ENSURE_PARTITIONS = """
CREATE OR REPLACE FUNCTION ensure_history_partitions(months_ahead integer DEFAULT 3) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO' AS $$
DECLARE
    unit text := (
        SELECT CASE WHEN r.ends - r.starts > interval '1 day' THEN 'month' ELSE 'day' END
        FROM public.partition_ranges('agent_history') AS r
        ORDER BY CASE WHEN r.starts > clock_timestamp() THEN r.starts END, r.starts DESC LIMIT 1);
    made integer;
BEGIN
    IF months_ahead NOT BETWEEN 0 AND 12 THEN
        RAISE EXCEPTION 'months_ahead is %, not 0 to 12', months_ahead USING ERRCODE = '22023';
    END IF;
    SELECT count(*) INTO made FROM public.make_partitions(coalesce(unit, 'month'), months_ahead) AS name
    WHERE name LIKE 'agent\\_history\\_%';
    RETURN made;
EXCEPTION WHEN lock_not_available THEN
    -- partitions are made ahead, so only that of the present moment is worth an error
    IF NOT EXISTS (
        SELECT FROM public.partition_ranges('agent_history') AS r
        WHERE clock_timestamp() >= r.starts AND clock_timestamp() < r.ends)
    THEN
        RAISE;
    END IF;
    RETURN 0;
END
$$
"""
# waits for its lock so briefly that nobody who comes after it notices
DROP_PARTITION = """
CREATE FUNCTION drop_partition(doomed text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO' SET lock_timeout = '200ms' AS $$
DECLARE
    last timestamptz;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('freeagentics partitions'));
    SELECT r.ends INTO last FROM unnest(ARRAY['agent_history', 'accepted_revisions']) AS p (parent)
    CROSS JOIN LATERAL public.partition_ranges(p.parent) AS r WHERE r.partition = doomed;
    IF last IS NULL THEN
        RETURN false;
    END IF;
    IF last > clock_timestamp() - interval '1 day' THEN
        RAISE EXCEPTION '% ended less than a day ago, or is still to come', doomed USING ERRCODE = '22023';
    END IF;
    EXECUTE format('DROP TABLE public.%I', doomed);
    RETURN true;
END
$$
"""
# a month of days becomes a month again
MERGE_DAYS = """
DO $$
DECLARE
    month timestamptz;
    part text;
    whole text;
BEGIN
    FOR month IN
        SELECT DISTINCT date_trunc('month', starts, 'UTC') FROM partition_ranges('agent_history')
        WHERE partition ~ '_\\d\\d_\\d\\d$' AND partition !~ '_\\d{4}_\\d\\d$'
    LOOP
        whole := 'agent_history_' || to_char(month AT TIME ZONE 'UTC', 'YYYY_MM');
        CREATE TABLE merged (LIKE agent_history INCLUDING ALL) WITH (toast_tuple_target = 8160);
        FOR part IN SELECT partition FROM partition_ranges('agent_history')
            WHERE date_trunc('month', starts, 'UTC') = month
        LOOP
            EXECUTE format('ALTER TABLE agent_history DETACH PARTITION %I', part);
            EXECUTE format('INSERT INTO merged SELECT * FROM %I', part);
            EXECUTE format('DROP TABLE %I', part);
        END LOOP;
        ALTER INDEX merged_pkey RENAME TO pkey_of_month;
        EXECUTE format('ALTER INDEX pkey_of_month RENAME TO %I', whole || '_pkey');
        EXECUTE format('ALTER TABLE merged RENAME TO %I', whole);
        EXECUTE format('ALTER TABLE agent_history ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', whole,
            month, (month AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC');
    END LOOP;
END
$$
"""
# what history skipped last is all that code without policies would miss, unless its partition is gone
KEEP_SKIPPED = [
    "CREATE POLICY going_down ON agents FOR SELECT TO freeagentics_owner USING (true)",
    "CREATE POLICY going_down ON agent_history FOR INSERT TO freeagentics_owner WITH CHECK (true)",
    """
    INSERT INTO agent_history (tenant_id, agent_id, recorded_at, version, revision, belief_state, energy_level)
    SELECT tenant_id, id, updated_at, version, revision, belief_state, energy_level
    FROM agents WHERE skipped_version = version AND EXISTS (
        SELECT FROM partition_ranges('agent_history') AS r WHERE updated_at >= r.starts AND updated_at < r.ends)
    """,
    "DROP POLICY going_down ON agent_history",
    "DROP POLICY going_down ON agents",
]
GRANTED = {
    UPDATE_SIGNATURE: "freeagentics_app",
    "partition_ranges(text)": "freeagentics_app, freeagentics_relay",
    "fill_partitions(text, text, timestamptz, timestamptz)": None,
    "make_partitions(text, integer)": "freeagentics_relay",
    "drop_partition(text)": "freeagentics_relay",
}


def upgrade() -> None:
    functions = [UPDATE_BELIEFS, WRITE_BELIEFS, PARTITION_RANGES, FILL_PARTITIONS, MAKE_PARTITIONS, DROP_PARTITION]
    for statement in (*TABLES, *functions, ENSURE_PARTITIONS):
        op.execute(statement)
    for signature, roles in GRANTED.items():
        op.execute(f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC")
        if roles is not None:
            op.execute(f"GRANT EXECUTE ON FUNCTION {signature} TO {roles}")
    op.execute("SELECT ensure_history_partitions(3)")


def downgrade() -> None:
    for statement in (*KEEP_SKIPPED, MERGE_DAYS, former("0005", "FUNCTION write_beliefs(")):
        op.execute(statement)
    op.execute(former("0002", "FUNCTION ensure_history_partitions(months_ahead"))
    for signature in reversed(GRANTED):
        op.execute(f"DROP FUNCTION {signature}")
    for column in ("kept_version", "kept_at", "skipped_version"):
        op.execute(f"ALTER TABLE agents DROP COLUMN {column}")
    op.execute("DROP TABLE accepted_revisions")
    op.execute("DROP TABLE history_policies")


def former(number: str, name: str) -> str:
    """The statement by which an earlier migration made a function, to put that in the place of a later one."""
    script = context.script.get_revision(number)
    assert script is not None  # noqa: S101 - this migration follows it
    values = vars(script.module)
    made = [values.get("WRITE_BELIEFS", ""), *values.get("UPGRADE", ())]
    return next(text for text in made if f"CREATE {name}" in text).replace("CREATE ", "CREATE OR REPLACE ", 1)
