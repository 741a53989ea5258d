"""The life of coalitions: what is final, ranked members, and the performance of every change.

Revision: 0009
Follows: 0008

Every write of version 0.1.0 is still accepted: of what is dissolved it changes nothing but the version, where a member
is deleted, and it never sets a score. The index keeps its name and its order.
Broken off anywhere, the migration is run again from its beginning.
"""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

RANKING = "coalition_members (tenant_id, coalition_id, rank_key, agent_id)"
PERFORMANCE = "coalition_members (tenant_id, coalition_id, contribution_score DESC)"

COLUMNS = {
    "version": "bigint",
    "status": "varchar(20)",
    "total_revenue": "numeric(15, 2)",
    "current_capital": "numeric(15, 2)",
}

KEEP_DISSOLVED = """
CREATE OR REPLACE FUNCTION keep_dissolved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'coalition % is dissolved', OLD.id
        USING ERRCODE = 'check_violation', CONSTRAINT = 'dissolved_is_final', DETAIL = OLD.id::text;
END
$$
"""
KEPT = "status, dissolved_at, initial_capital, current_capital, total_revenue"
ON_COALITIONS = f"""
CREATE OR REPLACE TRIGGER dissolved_is_final BEFORE UPDATE ON coalitions FOR EACH ROW
WHEN (OLD.status = 'dissolved' AND
    ({", ".join(f"NEW.{name}" for name in KEPT.split(", "))}) IS DISTINCT FROM
    ({", ".join(f"OLD.{name}" for name in KEPT.split(", "))}))
EXECUTE FUNCTION keep_dissolved()
"""

# The locks wait for a dissolution that is under way; who locked the coalition before joining it holds more already.
REFUSE_JOINING = """
CREATE OR REPLACE FUNCTION refuse_joining_dissolved() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    ended uuid;
BEGIN
    PERFORM FROM coalitions c
    WHERE (c.tenant_id, c.id) IN (SELECT DISTINCT j.tenant_id, j.coalition_id FROM joined j) FOR SHARE;
    SELECT c.id INTO ended FROM coalitions c
    WHERE (c.tenant_id, c.id) IN (SELECT DISTINCT j.tenant_id, j.coalition_id FROM joined j)
    AND c.status = 'dissolved' LIMIT 1;
    IF ended IS NOT NULL THEN
        RAISE EXCEPTION 'coalition % is dissolved', ended
            USING ERRCODE = 'check_violation', CONSTRAINT = 'dissolved_is_final', DETAIL = ended::text;
    END IF;
    RETURN NULL;
END
$$
"""
ON_MEMBERS = """
CREATE OR REPLACE TRIGGER dissolved_is_final AFTER INSERT ON coalition_members REFERENCING NEW TABLE AS joined
FOR EACH STATEMENT EXECUTE FUNCTION refuse_joining_dissolved()
"""

CHECKS = {
    "money_is_a_number": ("coalitions", "'NaN' NOT IN (initial_capital, current_capital, total_revenue)"),
    "valid_contribution_score": ("coalition_members", "contribution_score BETWEEN 0 AND 999.99"),
    "rank_key_is_of_score": ("coalition_members", "rank_key = - contribution_score * 100"),
}

UPGRADE = [
    "ALTER TABLE coalition_members ADD COLUMN IF NOT EXISTS rank_key integer NOT NULL DEFAULT 0",
    # scores that were set by hand; the owner sees them only unforced
    "-- squawk-ignore prefer-robust-stmts\nALTER TABLE coalition_members NO FORCE ROW LEVEL SECURITY",
    "UPDATE coalition_members SET rank_key = - contribution_score * 100 WHERE contribution_score <> 0",
    "-- squawk-ignore prefer-robust-stmts\nALTER TABLE coalition_members FORCE ROW LEVEL SECURITY",
    *[f"ALTER TABLE coalition_performance ADD COLUMN IF NOT EXISTS {name} {kind}" for name, kind in COLUMNS.items()],
    # version 0.1.0 always writes a revenue, and reads means alone
    *[
        "-- squawk-ignore ban-drop-not-null, prefer-robust-stmts\n"
        f"ALTER TABLE coalition_performance ALTER COLUMN {name} DROP NOT NULL"
        for name in ("revenue", "revenue_per_member")
    ],
    *[
        statement
        for name, (table, condition) in CHECKS.items()
        for statement in (
            f"-- squawk-ignore ban-drop-constraint\nALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name}",
            f"ALTER TABLE {table} ADD CONSTRAINT {name} CHECK ({condition}) NOT VALID",
        )
    ],
    KEEP_DISSOLVED,
    "REVOKE ALL ON FUNCTION keep_dissolved() FROM PUBLIC",
    ON_COALITIONS,
    REFUSE_JOINING,
    "REVOKE ALL ON FUNCTION refuse_joining_dissolved() FROM PUBLIC",
    ON_MEMBERS,
]
VALIDATION = [f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}" for name, (table, _) in CHECKS.items()]
DOWNGRADE = [
    "DROP TRIGGER dissolved_is_final ON coalition_members",
    "DROP FUNCTION refuse_joining_dissolved()",
    "DROP TRIGGER dissolved_is_final ON coalitions",
    "DROP FUNCTION keep_dissolved()",
    *[f"ALTER TABLE {table} DROP CONSTRAINT {name}" for name, (table, _) in CHECKS.items()],
    # changes without revenue, which version 0.1.0 does not record
    "ALTER TABLE coalition_performance NO FORCE ROW LEVEL SECURITY",
    "DELETE FROM coalition_performance WHERE revenue IS NULL",
    "ALTER TABLE coalition_performance FORCE ROW LEVEL SECURITY",
    "ALTER TABLE coalition_performance ALTER COLUMN revenue_per_member SET NOT NULL",
    "ALTER TABLE coalition_performance ALTER COLUMN revenue SET NOT NULL",
    "ALTER TABLE coalition_members DROP COLUMN rank_key",
    *[f"ALTER TABLE coalition_performance DROP COLUMN {name}" for name in reversed(COLUMNS)],
]


def replace_index(definition: str) -> None:
    """Put an index in the place of idx_coalition_members_performance while writers go on."""
    # one that was broken off is left invalid under its name
    op.execute("DROP INDEX CONCURRENTLY IF EXISTS idx_coalition_members_new")
    op.execute(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_coalition_members_new ON {definition}")
    op.execute("DROP INDEX CONCURRENTLY IF EXISTS idx_coalition_members_performance")
    op.execute(
        "-- squawk-ignore renaming-object\n"
        "ALTER INDEX idx_coalition_members_new RENAME TO idx_coalition_members_performance"
    )


def upgrade() -> None:
    for statement in UPGRADE:
        op.execute(statement)
    with op.get_context().autocommit_block():
        for statement in VALIDATION:
            op.execute(statement)
        replace_index(RANKING)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        replace_index(PERFORMANCE)
    for statement in DOWNGRADE:
        op.execute(statement)
