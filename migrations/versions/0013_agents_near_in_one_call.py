"""Whole agents by distance in one call.

Revision: 0013
Follows: 0012

Runs with the caller's rights under row-level security, and enters the tenant first, so that a page is one round trip
instead of four. It is planned once, from the cells to the page's agents, each by its index.
"""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

# The cells of all rings are one array; rings come in the order that is asked for, so that sorting goes on ring by ring,
# and no ring is looked up once those within it gave enough agents. Whole rows are read of those alone that are on the
# page.
FIND_AGENTS = """
CREATE FUNCTION find_agents(
    tenant uuid, cells bigint[], steps integer[], firsts integer[], lasts integer[],
    after_distance integer, after_id uuid, page integer, with_beliefs boolean
)
RETURNS TABLE (
    id uuid, name text, agent_type text, personality_traits jsonb, energy_level integer, location_h3 bigint,
    status text, version bigint, revision uuid, created_at timestamptz, updated_at timestamptz,
    last_active_at timestamptz, belief_state bytea, distance integer
)
LANGUAGE plpgsql SET work_mem = '64MB'
SET plan_cache_mode = 'force_generic_plan' SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off
AS $$
BEGIN
    PERFORM enter_tenant(tenant);
    RETURN QUERY
    SELECT a.id, a.name::text, a.agent_type::text, a.personality_traits, a.energy_level, a.location_h3,
        a.status::text, a.version, a.revision, a.created_at, a.updated_at, a.last_active_at,
        CASE WHEN with_beliefs THEN a.belief_state END, near.distance
    FROM (
        SELECT b.id, ring.distance FROM (
            SELECT r.distance, r.first, r.last FROM unnest(steps, firsts, lasts) AS r (distance, first, last)
            ORDER BY r.distance
        ) AS ring
        JOIN agents b ON b.tenant_id = tenant AND b.location_h3 = ANY (cells[ring.first : ring.last])
            AND b.status = 'active' AND (ring.distance > after_distance OR b.id > after_id)
        ORDER BY ring.distance, b.id LIMIT page
    ) AS near
    JOIN agents a ON a.tenant_id = tenant AND a.id = near.id
    ORDER BY near.distance, a.id;
END
$$
"""

SIGNATURE = "find_agents(uuid, bigint[], integer[], integer[], integer[], integer, uuid, integer, boolean)"


def upgrade() -> None:
    op.execute(FIND_AGENTS)
    op.execute(f"REVOKE ALL ON FUNCTION {SIGNATURE} FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION {SIGNATURE} TO freeagentics_app")


def downgrade() -> None:
    op.execute(f"DROP FUNCTION {SIGNATURE}")
