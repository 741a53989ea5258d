"""Schema migrations with Alembic, under an advisory lock."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy.ext.asyncio import AsyncConnection

from freeagentics_persistence.database.driver_errors import is_driver_error, sqlstate_of, translate
from freeagentics_persistence.database.engine import Database
from freeagentics_persistence.database.models import metadata
from freeagentics_persistence.database.models.events import UNKNOWN_TO_SQLALCHEMY
from freeagentics_persistence.database.partitions import is_partition
from freeagentics_persistence.errors import MigrationFailed

LOCK_ID = 0x66616D69  # "fami"
LOCK_TIMEOUT = "10s"
LOCK_POLL = 0.1  # seconds between two looks whether another runner has ended


@dataclass(frozen=True, slots=True)
class MigrationStatus:
    """Where the database stands: its revision (None: never migrated), this package's, and what lies between."""

    current: str | None
    head: str
    pending: tuple[str, ...]

    @property
    def is_current(self) -> bool:
        """Whether code and schema fit."""
        return self.current == self.head


class MigrationManager:
    """Runs, undoes and makes migrations on one database. Two runners at once are safe: the second waits."""

    def __init__(self, database: Database, *, script_folder: Path | None = None) -> None:
        self._database = database
        self._folder = script_folder or migrations_folder()
        self._scripts = ScriptDirectory(str(self._folder))

    async def status(self) -> MigrationStatus:
        """Where the database stands."""
        head = str(self._scripts.get_current_head())
        current = await self._with_connection(lambda c: MigrationContext.configure(c).get_current_revision())
        known = {script.revision for script in self._scripts.walk_revisions()}
        if current is not None and current not in known:
            return MigrationStatus(current, head, ())
        steps = self._scripts.iterate_revisions("head", current or "base")
        return MigrationStatus(current, head, tuple(reversed([script.revision for script in steps])))

    async def run_migrations(self, revision: str = "head") -> MigrationStatus:
        """Run pending migrations. Raises MigrationFailed, and what a lost server raises."""
        await self._with_connection(lambda c: command.upgrade(self._config(c), revision), locked=True)
        return await self.status()

    async def rollback_migration(self, revision: str = "-1") -> MigrationStatus:
        """Undo the last migration, or all down to ``revision`` (``base``: everything), with the data in them."""
        await self._with_connection(lambda c: command.downgrade(self._config(c), revision), locked=True)
        return await self.status()

    async def create_migration(self, message: str) -> Path:
        """Write a new migration from the difference between models and database; the file."""

        def create(connection: sa.Connection) -> Any:
            return command.revision(self._config(connection), message=message, autogenerate=True)

        script = await self._with_connection(create, locked=True)
        return Path(script.path)

    async def differences(self) -> list[Any]:
        """What differs between models and database; empty where they fit."""

        def compare(connection: sa.Connection) -> list[Any]:
            def ours(name: str | None, kind: str, _parents: object) -> bool:
                return not (kind == "table" and name is not None and is_partition(name))

            context = MigrationContext.configure(connection, opts={"include_name": ours})
            return list(compare_metadata(context, metadata))

        return list(await self._with_connection(compare))

    def _config(self, connection: sa.Connection) -> Config:
        config = Config()
        config.set_main_option("script_location", str(self._folder).replace("%", "%%"))
        config.attributes["connection"] = connection
        return config

    async def _with_connection(self, work: Any, *, locked: bool = False) -> Any:
        with self._database.translated():
            async with self._database.connection() as connection:
                if locked:
                    await _take_turn(connection)
                    await connection.execute(sa.text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
                    await connection.commit()
                try:
                    return await connection.run_sync(lambda sync: _run(work, sync, self._database.where))
                finally:
                    if locked:
                        await asyncio.shield(connection.invalidate())  # its lock and settings end with it


async def _take_turn(connection: AsyncConnection) -> None:
    # asked again and again: a statement that waits for the lock would hold a snapshot, which the building of an index
    # by the runner that has the lock waits for
    while not await connection.scalar(sa.text("SELECT pg_try_advisory_lock(:id)"), {"id": LOCK_ID}):
        await connection.rollback()
        await asyncio.sleep(LOCK_POLL)


def _run(work: Any, connection: sa.Connection, where: str) -> Any:
    dialect: Any = connection.dialect
    dialect.ischema_names = {**dialect.ischema_names, **UNKNOWN_TO_SQLALCHEMY}
    try:
        return work(connection)
    except CommandError as error:
        raise MigrationFailed(f"{where}: {error}. See: freeagentics-db status") from error
    except sa.exc.DBAPIError as error:
        if is_driver_error(error) and sqlstate_of(error) == "55P03":
            raise MigrationFailed(
                f"{where}: a table stayed locked for {LOCK_TIMEOUT}, and the migration gave way. Nothing was changed "
                "by it: run freeagentics-db migrate again, when long transactions have ended."
            ) from error
        raise translate(error, where) from error


def migrations_folder() -> Path:
    """Where the migrations are: inside the installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_migrations"
    return installed if installed.is_dir() else package.parent / "migrations"
