"""The outbox and the positions of its sinks."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import UserDefinedType

from freeagentics_persistence.database.models.base import key, metadata, moment


class Xid8(UserDefinedType[str]):
    """A 64-bit transaction id."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        """Its name in SQL."""
        return "xid8"


class Snapshot(UserDefinedType[str]):
    """Which transactions had ended at one moment."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        """Its name in SQL."""
        return "pg_snapshot"


UNKNOWN_TO_SQLALCHEMY = {"xid8": Xid8, "pg_snapshot": Snapshot}


events = sa.Table(
    "events",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True, cache=1), nullable=False),
    key("tenant_id"),
    sa.Column("xid", Xid8, nullable=False, server_default=sa.text("pg_current_xact_id()")),
    key("subject_id"),
    sa.Column("type", sa.String(100), nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    key("revision"),
    moment("recorded_at"),
    sa.Column("kept", sa.Boolean, nullable=False, server_default=sa.text("false")),
    sa.Column("envelope", sa.LargeBinary),
    sa.Column("free_energy", sa.Double),
    sa.Column("belief_entropy", sa.Double),
    sa.Column("max_belief", sa.Double),
    sa.Column("belief_variance", sa.Double),
    sa.Column("data", JSONB),
    sa.PrimaryKeyConstraint("id", "tenant_id", name="events_pkey"),
    implicit_returning=False,  # applications may write events and not read them
)

relay_positions = sa.Table(
    "relay_positions",
    metadata,
    sa.Column("sink", sa.String(50), nullable=False),
    key("epoch"),
    sa.Column("done_snapshot", Snapshot, nullable=False),
    sa.Column("open_snapshot", Snapshot),
    *(
        sa.Column(name, sa.BigInteger, nullable=False, server_default=sa.text("0"))
        for name in ("open_round", "open_id", "last_round", "last_id", "delivered", "left_out", "missed")
    ),
    sa.Column("retired", sa.Boolean, nullable=False, server_default=sa.text("false")),
    moment("watermark", nullable=True),
    moment("wanted_at", default="now()"),
    moment("updated_at", default="now()"),
    sa.Column("reached_id", sa.BigInteger),
    moment("reached_at", nullable=True),
    sa.PrimaryKeyConstraint("sink", name="relay_positions_pkey"),
)
