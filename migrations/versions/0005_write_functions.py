"""The two writes that carry a whole swarm: each locks, compares, stores, and adds history and events in one call.

Revision: 0005
Follows: 0004

Both run with the caller's rights under row-level security, and set the tenant first. Input is one array per column,
ids distinct. Both return one array of statuses and one of versions in the order of the input; the statuses are those
of freeagentics_persistence.domain.results.RowStatus.
"""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

WRITE_BELIEFS = """
CREATE FUNCTION write_beliefs(
    tenant uuid, ids uuid[], expected bigint[], revisions uuid[], envelopes bytea[],
    free_energies double precision[], entropies double precision[], maxima double precision[],
    variances double precision[], revision_memory interval,
    OUT statuses smallint[], OUT versions bigint[], OUT recorded timestamptz[]
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
    written_rows bigint[];
BEGIN
    PERFORM enter_tenant(tenant);
    -- all writers lock in the order of ids, so they never deadlock; a revision newer than all that the agent has seen
    -- cannot be a retry, and only the others are looked up
    SELECT array_agg(i.n), array_agg(i.id) INTO late, late_ids
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
        JOIN agent_history h ON h.tenant_id = tenant AND h.agent_id = i.id AND h.revision = i.revision
            AND h.agent_id = ANY (late_ids)
            AND h.recorded_at >= now_here - revision_memory - interval '10 minutes' AND h.version IS NOT NULL
        WHERE i.n = ANY (late);
        SELECT array_agg(n) INTO late FROM unnest(late) AS n WHERE NOT repeated ? n::text;
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
                WHEN a.last_active_at < now_here - interval '1 minute' THEN now_here ELSE a.last_active_at END
        FROM unnest(
            ids, expected, revisions, envelopes, free_energies, entropies, maxima, variances
        ) WITH ORDINALITY AS i (id, expected, revision, envelope, free_energy, entropy, maximum, variance, n)
        WHERE a.tenant_id = tenant AND a.id = ANY (ids) AND a.id = i.id
            AND (i.expected IS NULL OR a.version = i.expected)
            AND (i.revision > a.newest_revision OR i.n = ANY (late))
            AND i.revision BETWEEN oldest AND newest
        RETURNING i.n, a.id, a.version, a.updated_at, a.energy_level,
            i.revision, i.envelope, i.free_energy, i.entropy, i.maximum, i.variance
    ),
    history AS (
        INSERT INTO agent_history (
            tenant_id, agent_id, recorded_at, version, revision, belief_state, energy_level,
            free_energy, belief_entropy, max_belief, belief_variance)
        SELECT tenant, w.id, w.updated_at, w.version, w.revision, w.envelope, w.energy_level,
            w.free_energy, w.entropy, w.maximum, w.variance
        FROM written w
    ),
    outbox AS (
        INSERT INTO events (tenant_id, subject_id, type, version, revision, recorded_at, kept)
        SELECT tenant, w.id, 'beliefs.updated', w.version, w.revision, w.updated_at, true
        FROM written w
    )
    SELECT array_agg(n ORDER BY n), array_agg(version ORDER BY n), array_agg(updated_at ORDER BY n)
    INTO written_rows, versions, recorded FROM written;
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

SAVE_AGENTS = """
CREATE FUNCTION save_agents(
    tenant uuid, ids uuid[], expected bigint[], revisions uuid[], names text[], types text[], traits jsonb[],
    energies integer[], locations bigint[], agent_statuses text[], envelopes bytea[],
    entropies double precision[], maxima double precision[], variances double precision[], may_update boolean,
    OUT statuses smallint[], OUT versions bigint[], OUT created timestamptz[], OUT recorded timestamptz[],
    OUT active timestamptz[]
)
LANGUAGE plpgsql SET work_mem = '64MB'
SET plan_cache_mode = 'force_generic_plan' SET enable_nestloop = off SET enable_mergejoin = off SET enable_seqscan = off
AS $$
DECLARE
    now_here timestamptz;
BEGIN
    PERFORM enter_tenant(tenant);
    LOOP
        now_here := clock_timestamp();
        INSERT INTO agents (
            tenant_id, id, name, agent_type, personality_traits, energy_level, location_h3, status,
            created_at, updated_at, last_active_at, version, revision, newest_revision, belief_state)
        SELECT tenant, i.id, i.name, i.type, i.traits, i.energy, i.location, i.status,
            now_here, now_here, now_here, 1, i.revision, i.revision, i.envelope
        FROM unnest(ids, expected, revisions, names, types, traits, energies, locations, agent_statuses, envelopes)
            AS i (id, expected, revision, name, type, traits, energy, location, status, envelope)
        WHERE i.expected IS NULL OR i.expected = 0
        ORDER BY i.id
        ON CONFLICT (tenant_id, id) DO NOTHING;
        PERFORM 1 FROM agents a WHERE a.tenant_id = tenant AND a.id = ANY (ids) ORDER BY a.id FOR NO KEY UPDATE;
        -- an agent that was there for the insertion and was deleted before the lock is inserted now
        EXIT WHEN NOT EXISTS (
            SELECT FROM unnest(ids, expected) AS i (id, expected)
            LEFT JOIN agents a ON a.tenant_id = tenant AND a.id = i.id
            WHERE (i.expected IS NULL OR i.expected = 0) AND a.id IS NULL);
    END LOOP;
    -- an agent made again goes on counting; read only now, as the insertion may have waited for the deletion to end
    UPDATE agents a SET
        version = d.version + 1,
        newest_revision = greatest(a.newest_revision, d.newest_revision),
        created_at = greatest(a.created_at, d.deleted_at + interval '1 microsecond'),
        updated_at = greatest(a.updated_at, d.deleted_at + interval '1 microsecond')
    FROM deleted_agents d
    WHERE a.tenant_id = tenant AND a.id = ANY (ids) AND d.tenant_id = tenant AND d.id = a.id;
    DELETE FROM deleted_agents d USING agents a
    WHERE d.tenant_id = tenant AND d.id = ANY (ids) AND a.tenant_id = tenant AND a.id = d.id;
    now_here := clock_timestamp();
    -- rows inserted above carry this call's revision already; the others are updated where the caller allows
    UPDATE agents a SET
        name = i.name, agent_type = i.type, personality_traits = i.traits, energy_level = i.energy,
        location_h3 = i.location, status = i.status, belief_state = i.envelope,
        version = a.version + 1, revision = i.revision,
        newest_revision = greatest(a.newest_revision, i.revision),
        updated_at = greatest(now_here, a.updated_at + interval '1 microsecond'),
        last_active_at = now_here
    FROM unnest(ids, expected, revisions, names, types, traits, energies, locations, agent_statuses, envelopes)
        AS i (id, expected, revision, name, type, traits, energy, location, status, envelope)
    WHERE a.tenant_id = tenant AND a.id = i.id AND a.revision <> i.revision
        AND CASE WHEN i.expected IS NULL THEN may_update ELSE a.version = i.expected END;

    WITH input AS MATERIALIZED (
        SELECT * FROM unnest(ids, expected, revisions, entropies, maxima, variances)
            WITH ORDINALITY AS i (id, expected, revision, entropy, maximum, variance, n)
    ),
    written AS MATERIALIZED (
        SELECT i.n, a.id, a.version, a.revision, a.updated_at
        FROM input i JOIN agents a ON a.tenant_id = tenant AND a.id = i.id AND a.revision = i.revision
    ),
    history AS (
        INSERT INTO agent_history (
            tenant_id, agent_id, recorded_at, version, revision, belief_state, energy_level,
            belief_entropy, max_belief, belief_variance)
        SELECT tenant, a.id, a.updated_at, a.version, a.revision, a.belief_state, a.energy_level,
            i.entropy, i.maximum, i.variance
        FROM written w JOIN input i USING (n) JOIN agents a ON a.tenant_id = tenant AND a.id = w.id
    ),
    outbox AS (
        INSERT INTO events (tenant_id, subject_id, type, version, revision, recorded_at, kept, data)
        SELECT tenant, a.id, 'agent.saved', a.version, a.revision, a.updated_at, true,
            jsonb_build_object('name', a.name, 'agent_type', a.agent_type, 'status', a.status,
                'energy', a.energy_level, 'location', to_hex(a.location_h3))
        FROM written w JOIN agents a ON a.tenant_id = tenant AND a.id = w.id
    )
    SELECT
        array_agg(CASE
            WHEN w.n IS NOT NULL THEN 0
            WHEN a.id IS NULL THEN 3
            WHEN i.expected IS NULL THEN 5
            ELSE 2 END::smallint ORDER BY i.n),
        array_agg(coalesce(a.version, 0) ORDER BY i.n),
        array_agg(a.created_at ORDER BY i.n), array_agg(a.updated_at ORDER BY i.n),
        array_agg(a.last_active_at ORDER BY i.n)
    INTO statuses, versions, created, recorded, active
    FROM input i
    LEFT JOIN written w USING (n)
    LEFT JOIN agents a ON a.tenant_id = tenant AND a.id = i.id;
END
$$
"""

WRITE_SIGNATURE = (
    "write_beliefs(uuid, uuid[], bigint[], uuid[], bytea[], double precision[], double precision[], "
    "double precision[], double precision[], interval)"
)
SAVE_SIGNATURE = (
    "save_agents(uuid, uuid[], bigint[], uuid[], text[], text[], jsonb[], integer[], bigint[], text[], bytea[], "
    "double precision[], double precision[], double precision[], boolean)"
)


def upgrade() -> None:
    for function, signature in (
        (WRITE_BELIEFS, WRITE_SIGNATURE),
        (SAVE_AGENTS, SAVE_SIGNATURE),
    ):
        op.execute(function)
        op.execute(f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {signature} TO freeagentics_app")


def downgrade() -> None:
    op.execute(f"DROP FUNCTION {SAVE_SIGNATURE}")
    op.execute(f"DROP FUNCTION {WRITE_SIGNATURE}")
