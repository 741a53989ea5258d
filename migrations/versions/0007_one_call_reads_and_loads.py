"""Searches by place in one call, and the load of many new agents.

Revision: 0007
Follows: 0006

All run with the caller's rights under row-level security, and set the tenant first: a read is one round trip instead of
four. ``load_agents`` only inserts, which takes half the time of ``save_agents``; its statuses are those of
freeagentics_persistence.domain.results.RowStatus.
"""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# The cells of all rings are one array; rings come in the order that is asked for, so that sorting goes on ring by ring,
# and no ring is looked up once those within it gave enough agents. The answer is one row of long strings, as thousands
# of rows of small values take longer to send and to read than to find.
FIND_PLACES = """
CREATE FUNCTION find_places(
    tenant uuid, cells bigint[], steps integer[], firsts integer[], lasts integer[],
    after_distance integer, after_id uuid, page integer,
    OUT ids bytea, OUT places bytea, OUT distances bytea
)
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM enter_tenant(tenant);
    SELECT string_agg(uuid_send(f.id), ''::bytea), string_agg(int8send(f.location_h3), ''::bytea),
        string_agg(int4send(f.distance), ''::bytea)
    INTO ids, places, distances
    FROM (
        SELECT a.id, a.location_h3, ring.distance FROM (
            SELECT r.distance, r.first, r.last FROM unnest(steps, firsts, lasts) AS r (distance, first, last)
            ORDER BY r.distance
        ) AS ring
        JOIN agents a ON a.tenant_id = tenant AND a.location_h3 = ANY (cells[ring.first : ring.last])
            AND a.status = 'active' AND (ring.distance > after_distance OR a.id > after_id)
        ORDER BY ring.distance, a.id LIMIT page
    ) AS f;
END
$$
"""

FIND_COALITIONS = """
CREATE FUNCTION find_coalitions(
    tenant uuid, cells bigint[], model text, statuses text[], min_members integer, after_id uuid, page integer
)
RETURNS SETOF coalitions LANGUAGE plpgsql
-- from the places to the agents, to their memberships, to the coalitions, each by its index; planned once
SET plan_cache_mode = 'force_generic_plan' SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off
AS $$
BEGIN
    PERFORM enter_tenant(tenant);
    RETURN QUERY
    SELECT c.* FROM (
        SELECT m.coalition_id
        FROM agents a JOIN coalition_members m ON m.tenant_id = tenant AND m.agent_id = a.id
        WHERE a.tenant_id = tenant AND a.location_h3 = ANY (cells) AND a.status = 'active'
        GROUP BY m.coalition_id HAVING count(*) >= min_members
    ) AS near
    JOIN coalitions c ON c.tenant_id = tenant AND c.id = near.coalition_id
    WHERE c.business_model = model AND c.status = ANY (statuses) AND c.id > after_id
    ORDER BY c.id LIMIT page;
END
$$
"""

LOAD_AGENTS = """
CREATE FUNCTION load_agents(
    tenant uuid, ids uuid[], revisions uuid[], names text[], types text[], traits jsonb[], energies integer[],
    locations bigint[], agent_statuses text[], envelopes bytea[],
    entropies double precision[], maxima double precision[], variances double precision[], revision_memory interval,
    OUT statuses smallint[], OUT versions bigint[]
)
LANGUAGE plpgsql SET work_mem = '64MB'
SET plan_cache_mode = 'force_generic_plan' SET enable_nestloop = off SET enable_mergejoin = off SET enable_seqscan = off
AS $$
DECLARE
    now_here timestamptz;
    fresh bigint[];
    gone uuid[];
BEGIN
    PERFORM enter_tenant(tenant);
    -- one that was deleted goes on counting its versions, which is left to save_agents
    SELECT coalesce(array_agg(d.id), '{}') INTO gone
    FROM deleted_agents d WHERE d.tenant_id = tenant AND d.id = ANY (ids);
    now_here := clock_timestamp();
    WITH input AS MATERIALIZED (
        SELECT * FROM unnest(ids, revisions, energies, envelopes, entropies, maxima, variances)
            WITH ORDINALITY AS i (id, revision, energy, envelope, entropy, maximum, variance, n)
    ),
    written AS (
        INSERT INTO agents (
            tenant_id, id, name, agent_type, personality_traits, energy_level, location_h3, status,
            created_at, updated_at, last_active_at, version, revision, newest_revision, belief_state)
        SELECT tenant, i.id, i.name, i.type, i.traits, i.energy, i.location, i.status,
            now_here, now_here, now_here, 1, i.revision, i.revision, i.envelope
        FROM unnest(ids, revisions, names, types, traits, energies, locations, agent_statuses, envelopes)
            AS i (id, revision, name, type, traits, energy, location, status, envelope)
        WHERE i.id <> ALL (gone)
        ORDER BY i.id
        ON CONFLICT (tenant_id, id) DO NOTHING
        RETURNING id
    ),
    history AS (
        INSERT INTO agent_history (
            tenant_id, agent_id, recorded_at, version, revision, belief_state, energy_level,
            belief_entropy, max_belief, belief_variance)
        SELECT tenant, i.id, now_here, 1, i.revision, i.envelope, i.energy, i.entropy, i.maximum, i.variance
        FROM written w JOIN input i USING (id)
    ),
    outbox AS (
        INSERT INTO events (tenant_id, subject_id, type, version, revision, recorded_at, kept, data)
        SELECT tenant, i.id, 'agent.saved', 1, i.revision, now_here, true,
            jsonb_build_object('name', i.name, 'agent_type', i.type, 'status', i.status,
                'energy', i.energy, 'location', to_hex(i.location))
        FROM written w
        JOIN unnest(ids, revisions, names, types, energies, locations, agent_statuses)
            AS i (id, revision, name, type, energy, location, status) USING (id)
    )
    SELECT array_agg(i.n ORDER BY i.n) INTO fresh FROM written w JOIN input i USING (id);

    -- asked again only now, as the insertion may have waited for a deletion to end; made again, the call knows of it
    IF EXISTS (SELECT FROM deleted_agents d WHERE d.tenant_id = tenant AND d.id = ANY (ids) AND d.id <> ALL (gone)) THEN
        RAISE EXCEPTION 'agents were deleted meanwhile' USING ERRCODE = 'serialization_failure';
    END IF;
    IF cardinality(fresh) = cardinality(ids) THEN
        statuses := array_fill(0::smallint, ARRAY[cardinality(ids)]);
        versions := array_fill(1::bigint, ARRAY[cardinality(ids)]);
        RETURN;
    END IF;
    SELECT
        array_agg(CASE
            WHEN i.n = ANY (fresh) THEN 0
            WHEN h.version IS NOT NULL THEN 1
            WHEN a.id IS NULL THEN 3
            ELSE 5 END::smallint ORDER BY i.n),
        array_agg(CASE WHEN i.n = ANY (fresh) THEN 1 ELSE coalesce(h.version, a.version, 0) END ORDER BY i.n)
    INTO statuses, versions
    FROM unnest(ids, revisions) WITH ORDINALITY AS i (id, revision, n)
    LEFT JOIN agents a ON a.tenant_id = tenant AND a.id = i.id AND a.id = ANY (ids)
    LEFT JOIN agent_history h ON h.tenant_id = tenant AND h.agent_id = i.id AND h.agent_id = ANY (ids)
        AND h.revision = i.revision AND h.version IS NOT NULL
        AND h.recorded_at >= now_here - revision_memory - interval '10 minutes';
END
$$
"""

FUNCTIONS = {
    "find_places(uuid, bigint[], integer[], integer[], integer[], integer, uuid, integer)": FIND_PLACES,
    "find_coalitions(uuid, bigint[], text, text[], integer, uuid, integer)": FIND_COALITIONS,
    (
        "load_agents(uuid, uuid[], uuid[], text[], text[], jsonb[], integer[], bigint[], text[], bytea[], "
        "double precision[], double precision[], double precision[], interval)"
    ): LOAD_AGENTS,
}


def upgrade() -> None:
    for signature, function in FUNCTIONS.items():
        op.execute(function)
        op.execute(f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {signature} TO freeagentics_app")


def downgrade() -> None:
    for signature in reversed(FUNCTIONS):
        op.execute(f"DROP FUNCTION {signature}")
