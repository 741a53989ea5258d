"""What all tables share."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import UUID

metadata = sa.MetaData()


def key(name: str) -> sa.Column[object]:
    """A UUID column that may not be null."""
    return sa.Column(name, UUID(as_uuid=True), nullable=False)


def moment(name: str, *, nullable: bool = False, default: str | None = None) -> sa.Column[object]:
    """A time with time zone."""
    return sa.Column(
        name, sa.TIMESTAMP(timezone=True), nullable=nullable, server_default=sa.text(default) if default else None
    )


def belongs_to_tenant(table: str) -> sa.ForeignKeyConstraint:
    """Rows of this table are owned by a tenant."""
    return sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=f"{table}_tenant_id_fkey")
