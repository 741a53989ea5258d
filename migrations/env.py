"""Runs migrations on the connection that MigrationManager hands over, or writes their SQL with --sql."""

from __future__ import annotations

from alembic import context

from freeagentics_persistence.database.models import metadata
from freeagentics_persistence.database.partitions import is_partition

config = context.config


def include_object(_object: object, name: str | None, kind: str, _reflected: bool, _compare_to: object) -> bool:
    """Partitions are made by a function, not by migrations."""
    return not (kind == "table" and name is not None and is_partition(name))


def run() -> None:
    """Run on the given connection; without one, print SQL."""
    connection = config.attributes.get("connection")
    if connection is None:
        # named parameters, as a driver that marks them by % would have every % doubled
        options = {"paramstyle": "named"}
        context.configure(dialect_name="postgresql", target_metadata=metadata, literal_binds=True, dialect_opts=options)
    else:
        context.configure(
            connection=connection,
            target_metadata=metadata,
            include_object=include_object,
            compare_server_default=True,
            transaction_per_migration=True,
        )
    with context.begin_transaction():
        context.run_migrations()


run()
