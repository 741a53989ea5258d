"""How far each sink has come, for writers to see how many events wait for it.

Revision: 0011
Follows: 0010

A relay of an older version leaves both columns as they are, so that writers do not count on it.
"""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

UPGRADE = [
    "ALTER TABLE relay_positions ADD COLUMN reached_id bigint, ADD COLUMN reached_at timestamptz",
    "GRANT SELECT ON SEQUENCE events_id_seq TO freeagentics_app, freeagentics_relay",
]
DOWNGRADE = [
    "REVOKE SELECT ON SEQUENCE events_id_seq FROM freeagentics_app, freeagentics_relay",
    "ALTER TABLE relay_positions DROP COLUMN reached_id, DROP COLUMN reached_at",
]


def upgrade() -> None:
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWNGRADE:
        op.execute(statement)
