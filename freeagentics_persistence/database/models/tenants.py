"""Tenants, their data keys, and epochs."""

from __future__ import annotations

import sqlalchemy as sa

from freeagentics_persistence.database.models.base import key, metadata, moment

tenants = sa.Table(
    "tenants",
    metadata,
    key("id"),
    sa.Column("name", sa.String(255), nullable=False),
    moment("created_at", default="now()"),
    sa.PrimaryKeyConstraint("id", name="tenants_pkey"),
    sa.UniqueConstraint("name", name="tenants_name_key"),
)

keyring = sa.Table(
    "keyring",
    metadata,
    key("tenant_id"),
    key("key_id"),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("wrapped_key", sa.LargeBinary),
    sa.Column("kek_reference", sa.Text, nullable=False),
    moment("created_at", default="now()"),
    moment("changed_at", default="now()"),
    sa.PrimaryKeyConstraint("tenant_id", "key_id", name="keyring_pkey"),
    sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="keyring_tenant_id_fkey", ondelete="CASCADE"),
    sa.CheckConstraint(
        "state IN ('pending', 'primary', 'decrypt', 'disabled', 'destroyed')", name="keyring_state_check"
    ),
    sa.CheckConstraint("(wrapped_key IS NULL) = (state = 'destroyed')", name="keyring_wrapped_check"),
    sa.Index("keyring_primary_key", "tenant_id", unique=True, postgresql_where=sa.text("state = 'primary'")),
)

epochs = sa.Table(
    "epochs",
    metadata,
    sa.Column("number", sa.BigInteger, sa.Identity(always=True), nullable=False),  # clocks differ after a failover
    key("id"),
    sa.Column("system_identifier", sa.BigInteger, nullable=False),
    sa.Column("timeline", sa.Integer, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    moment("started_at", default="clock_timestamp()"),
    sa.PrimaryKeyConstraint("id", name="epochs_pkey"),
    sa.UniqueConstraint("number", name="epochs_number_key"),
)
