-- The yardstick: the store's three writes, done inside the server from rows that are there already. There are several
-- steps of them, as an update that writes what is there already logs much less.
DROP SCHEMA IF EXISTS benchmark CASCADE;
CREATE SCHEMA benchmark;

CREATE TABLE benchmark.staged (
    step integer NOT NULL,
    n integer NOT NULL,
    id uuid NOT NULL,
    revision uuid NOT NULL,
    envelope bytea STORAGE EXTERNAL NOT NULL,
    free_energy double precision,
    belief_entropy double precision,
    max_belief double precision,
    belief_variance double precision,
    PRIMARY KEY (step, n)
) WITH (toast_tuple_target = 8160);

-- with repeat, the event repeats the envelope and the scalars, as in an outbox that needs no history; else it points at
-- history, as the store's own do
CREATE FUNCTION benchmark.write_staged(tenant uuid, at_step integer, first integer, last integer, repeat boolean)
RETURNS bigint
LANGUAGE plpgsql SET work_mem = '64MB'
SET plan_cache_mode = 'force_generic_plan' SET enable_nestloop = off SET enable_mergejoin = off SET enable_seqscan = off
AS $$
DECLARE
    now_here timestamptz;
    ids uuid[];
    written bigint;
BEGIN
    PERFORM set_config('app.tenant_id', tenant::text, true);
    SELECT array_agg(s.id) INTO ids FROM benchmark.staged s WHERE s.step = at_step AND s.n BETWEEN first AND last;
    PERFORM 1 FROM agents a WHERE a.tenant_id = tenant AND a.id = ANY (ids) ORDER BY a.id FOR NO KEY UPDATE;
    now_here := clock_timestamp();
    WITH written AS (
        UPDATE agents a SET
            belief_state = s.envelope,
            version = a.version + 1,
            revision = s.revision,
            newest_revision = greatest(a.newest_revision, s.revision),
            updated_at = greatest(now_here, a.updated_at + interval '1 microsecond'),
            last_active_at = CASE
                WHEN a.last_active_at < now_here - interval '1 minute' THEN now_here ELSE a.last_active_at END
        FROM benchmark.staged s
        WHERE s.step = at_step AND s.n BETWEEN first AND last AND a.tenant_id = tenant AND a.id = ANY (ids)
            AND a.id = s.id
        RETURNING a.id, a.version, a.updated_at, a.energy_level, s.revision, s.envelope,
            s.free_energy, s.belief_entropy, s.max_belief, s.belief_variance
    ),
    history AS (
        INSERT INTO agent_history (
            tenant_id, agent_id, recorded_at, version, revision, belief_state, energy_level,
            free_energy, belief_entropy, max_belief, belief_variance)
        SELECT tenant, w.id, w.updated_at, w.version, w.revision, w.envelope, w.energy_level,
            w.free_energy, w.belief_entropy, w.max_belief, w.belief_variance
        FROM written w
    ),
    outbox AS (
        INSERT INTO events (
            tenant_id, subject_id, type, version, revision, recorded_at, kept, envelope,
            free_energy, belief_entropy, max_belief, belief_variance)
        SELECT tenant, w.id, 'beliefs.updated', w.version, w.revision, w.updated_at, NOT repeat,
            CASE WHEN repeat THEN w.envelope END, CASE WHEN repeat THEN w.free_energy END,
            CASE WHEN repeat THEN w.belief_entropy END, CASE WHEN repeat THEN w.max_belief END,
            CASE WHEN repeat THEN w.belief_variance END
        FROM written w
    )
    SELECT count(*) INTO written FROM written;
    RETURN written;
END
$$;

GRANT USAGE ON SCHEMA benchmark TO freeagentics_app;
GRANT SELECT ON benchmark.staged TO freeagentics_app;
GRANT EXECUTE ON FUNCTION benchmark.write_staged(uuid, integer, integer, integer, boolean) TO freeagentics_app;
