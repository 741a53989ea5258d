"""Reads of agents and of their beliefs by id in one call.

Revision: 0010
Follows: 0009

Both run with the caller's rights under row-level security, and enter the tenant first, so that a read is one round trip
instead of four. They say nothing of ids that do not exist, and keep no order.
"""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# nothing is known of the array's length when the plan is made; with these it is the primary key's index at any length
READ_BELIEFS = """
CREATE FUNCTION read_beliefs(tenant uuid, ids uuid[])
RETURNS TABLE (id uuid, version bigint, revision uuid, belief_state bytea)
LANGUAGE plpgsql SET work_mem = '64MB' SET plan_cache_mode = 'force_generic_plan' SET enable_seqscan = off
AS $$
BEGIN
    PERFORM enter_tenant(tenant);
    RETURN QUERY
    SELECT a.id, a.version, a.revision, a.belief_state FROM agents a WHERE a.tenant_id = tenant AND a.id = ANY (ids);
END
$$
"""

READ_AGENTS = """
CREATE FUNCTION read_agents(tenant uuid, ids uuid[])
RETURNS SETOF agents
LANGUAGE plpgsql SET work_mem = '64MB' SET plan_cache_mode = 'force_generic_plan' SET enable_seqscan = off
AS $$
BEGIN
    PERFORM enter_tenant(tenant);
    RETURN QUERY SELECT a.* FROM agents a WHERE a.tenant_id = tenant AND a.id = ANY (ids);
END
$$
"""

FUNCTIONS = {"read_beliefs(uuid, uuid[])": READ_BELIEFS, "read_agents(uuid, uuid[])": READ_AGENTS}


def upgrade() -> None:
    for signature, function in FUNCTIONS.items():
        op.execute(function)
        op.execute(f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {signature} TO freeagentics_app")


def downgrade() -> None:
    for signature in reversed(FUNCTIONS):
        op.execute(f"DROP FUNCTION {signature}")
