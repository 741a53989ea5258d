"""One update of beliefs by the short way: three plain statements instead of a batch of one.

Revision: 0012
Follows: 0011

``update_one_belief`` takes what any agent's update usually is: the agent exists, no version is demanded that it is not
at, its revision is newer than all before, and its tenant has no history policies. Whatever is not so it leaves to
``update_beliefs``, which alone knows the rules, with the answer that this one would give.
"""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# the columns take the moment under the row lock: where the update waits for another one, PostgreSQL works them out anew
UPDATE_ONE_BELIEF = """
CREATE FUNCTION update_one_belief(
    tenant uuid, agent uuid, expected bigint, revision uuid, envelope bytea, free_energy double precision,
    entropy double precision, maximum double precision, variance double precision, divergence double precision,
    known bigint, revision_memory interval,
    OUT statuses smallint[], OUT versions bigint[], OUT recorded timestamptz[], OUT kept bigint[]
)
LANGUAGE plpgsql
-- planned once, by the primary key also while tables are small: a plan outlives their growth
SET plan_cache_mode = 'force_generic_plan' SET enable_seqscan = off
AS $$
#variable_conflict use_variable
DECLARE
    now_here timestamptz := clock_timestamp();
    -- the first 48 bits of a UUIDv7 are milliseconds since 1970, so its bounds are UUIDs
    oldest uuid := (lpad(to_hex((extract(epoch FROM now_here - revision_memory) * 1000)::bigint), 12, '0')
        || repeat('0', 20))::uuid;
    newest uuid := (lpad(to_hex((extract(epoch FROM now_here + interval '5 minutes') * 1000)::bigint), 12, '0')
        || repeat('f', 20))::uuid;
    written record;
BEGIN
    PERFORM enter_tenant(tenant);
    UPDATE agents AS a SET
        belief_state = envelope,
        version = a.version + 1,
        revision = revision,
        newest_revision = revision,
        updated_at = greatest(clock_timestamp(), a.updated_at + interval '1 microsecond'),
        -- indexed, so it moves at most once a minute to keep the other updates on their page
        last_active_at = CASE
            WHEN a.last_active_at < now_here - interval '1 minute' THEN now_here ELSE a.last_active_at END,
        kept_version = NULL,
        kept_at = NULL,
        skipped_version = NULL
    WHERE a.tenant_id = tenant AND a.id = agent AND (expected IS NULL OR a.version = expected)
        AND revision > a.newest_revision AND revision BETWEEN oldest AND newest
        AND NOT EXISTS (SELECT FROM history_policies AS p WHERE p.tenant_id = tenant)
    RETURNING a.version, a.updated_at, a.energy_level INTO written;
    IF NOT FOUND THEN
        SELECT w.statuses, w.versions, w.recorded, w.kept INTO statuses, versions, recorded, kept
        FROM update_beliefs(
            tenant, ARRAY[agent], ARRAY[expected], ARRAY[revision], ARRAY[envelope], ARRAY[free_energy],
            ARRAY[entropy], ARRAY[maximum], ARRAY[variance], ARRAY[divergence], ARRAY[known], revision_memory) AS w;
        RETURN;
    END IF;
    INSERT INTO agent_history (
        tenant_id, agent_id, recorded_at, version, revision, belief_state, energy_level,
        free_energy, belief_entropy, max_belief, belief_variance)
    VALUES (
        tenant, agent, written.updated_at, written.version, revision, envelope, written.energy_level,
        free_energy, entropy, maximum, variance);
    INSERT INTO events (tenant_id, subject_id, type, version, revision, recorded_at, kept)
    VALUES (tenant, agent, 'beliefs.updated', written.version, revision, written.updated_at, true);
    statuses := ARRAY[0::smallint];
    versions := ARRAY[written.version];
    recorded := ARRAY[written.updated_at];
END
$$
"""
SIGNATURE = (
    "update_one_belief(uuid, uuid, bigint, uuid, bytea, double precision, double precision, double precision, "
    "double precision, double precision, bigint, interval)"
)


def upgrade() -> None:
    op.execute(UPDATE_ONE_BELIEF)
    op.execute(f"REVOKE ALL ON FUNCTION {SIGNATURE} FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION {SIGNATURE} TO freeagentics_app")


def downgrade() -> None:
    op.execute(f"DROP FUNCTION {SIGNATURE}")
