"""Indexes for reads of many agents, and of coalitions by the places of their members.

Revision: 0006
Follows: 0005

None is on a column that belief updates change, but for last_active_at, which is indexed already and moves at most
once a minute: updates stay on their page (HOT). Built concurrently, so writers go on meanwhile.
"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

INDEXES = {
    # agents that take part, by last activity
    "idx_agents_composite": "agents (tenant_id, status, last_active_at) WHERE status = 'active'",
    # those that take part, by place: all that a search by place needs
    "idx_agents_active_location": "agents (tenant_id, location_h3, id) WHERE status = 'active'",
    # the few that do not, in the order of pages
    "idx_agents_resting": "agents (tenant_id, status, id) WHERE status <> 'active'",
    # from an agent to its coalitions without a look at the table
    "idx_coalition_members_of_agent": "coalition_members (tenant_id, agent_id, coalition_id)",
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for name, definition in INDEXES.items():
            # one that was broken off is left invalid under its name
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {definition}")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        for name in INDEXES:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
