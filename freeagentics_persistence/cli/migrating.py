"""``freeagentics-db migrate``, ``rollback`` and ``status``."""

from __future__ import annotations

import io
import re
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError

from freeagentics_persistence.cli.terminal import note, print_json, say
from freeagentics_persistence.database import bootstrap
from freeagentics_persistence.database.engine import Database
from freeagentics_persistence.database.partitions import ensure_partitions
from freeagentics_persistence.errors import MigrationFailed, SchemaMismatch
from freeagentics_persistence.operations.migration_manager import MigrationManager, MigrationStatus, migrations_folder
from freeagentics_persistence.operations.servers import database_options, find_servers, migrator, set_up_roles
from freeagentics_persistence.settings import Environment, Settings

_DROPPED = re.compile(r"^DROP TABLE (?:IF EXISTS )?(\w+)", re.MULTILINE)
_SIZES = """
SELECT t.name, coalesce(sum(s.n_live_tup), 0)::bigint AS rows,
    coalesce(sum(pg_total_relation_size(r.relid)), 0)::bigint AS bytes
FROM unnest($1::text[]) WITH ORDINALITY AS t (name, n)
CROSS JOIN LATERAL (SELECT to_regclass('public.' || quote_ident(t.name)) AS relid) AS root
CROSS JOIN LATERAL (SELECT root.relid UNION SELECT p.relid FROM pg_partition_tree(root.relid) AS p) AS r
LEFT JOIN pg_stat_all_tables s ON s.relid = r.relid
GROUP BY t.name, t.n ORDER BY t.n
"""


@dataclass(frozen=True, slots=True)
class Step:
    """One migration."""

    revision: str
    title: str


@dataclass(frozen=True, slots=True)
class Removal:
    """What a rollback undoes: migrations, newest first, and the tables that go with (about) so many rows and bytes."""

    where: str
    current: str
    target: str
    steps: list[Step]
    tables: list[tuple[str, int, int]]


async def migrate_up(settings: Settings, to: str, *, as_json: bool) -> None:
    """Run pending migrations and say which."""
    async with AsyncExitStack() as stack:
        database = await _migrator(settings, stack)
        manager = MigrationManager(database)
        before = await manager.status()
        _refuse_unknown(database, before)
        _refuse_not_above(database, before, to)
        after = await manager.run_migrations(to)
        if after.is_current:
            await ensure_partitions(database)
    run = [step for step in _steps(before.pending) if step.revision not in after.pending]
    if as_json:
        print_json({"current": after.current, "head": after.head, "run": [asdict(step) for step in run]})
        return
    for step in run:
        say(f"ran {step.revision}  {step.title}")
    say(f"{database.where} is at {after.current}" + ("" if run else ", nothing was pending"))


async def print_sql(settings: Settings, to: str) -> None:
    """Print what migrate_up would run."""
    async with AsyncExitStack() as stack:
        database = await _migrator(settings, stack)
        status = await MigrationManager(database).status()
    _refuse_unknown(database, status)
    _refuse_not_above(database, status, to)
    if not status.pending:
        say(f"-- {database.where} is at {status.current}: nothing is pending")
        return
    sql = _offline(command.upgrade, f"{status.current or 'base'}:{to}")
    print(f"SET ROLE {bootstrap.OWNER};\n\n{sql}", end="", flush=True)  # noqa: T201 - the result


async def describe_rollback(settings: Settings, to: str) -> Removal:
    """What a rollback would undo and remove. Raises MigrationFailed where there is nothing to undo."""
    async with AsyncExitStack() as stack:
        database = await _migrator(settings, stack)
        status = await MigrationManager(database).status()
        _refuse_unknown(database, status)
        if status.current is None:
            raise MigrationFailed(f"{database.where} was never migrated, so there is nothing to undo.")
        target = _target(database, status.current, to)
        sql = _offline(command.downgrade, f"{status.current}:{target}")
        rows = await database.fetch(_SIZES, _DROPPED.findall(sql))
    steps = list(_scripts().iterate_revisions(status.current, target))
    return Removal(
        where=database.where,
        current=status.current,
        target=target,
        steps=_steps(tuple(step.revision for step in steps)),
        tables=[(row["name"], row["rows"], row["bytes"]) for row in rows],
    )


def print_removal(removal: Removal) -> None:
    """Say what would go."""
    say(f"{removal.where} goes from {removal.current} down to {removal.target}:")
    for step in removal.steps:
        say(f"  undo {step.revision}  {step.title}")
    for name, rows, size in removal.tables:
        say(f"  the table {name} goes, with about {rows:,} rows ({size / 2**20:,.1f} MiB)")


async def roll_back(settings: Settings, removal: Removal) -> None:
    """Undo just that. Raises MigrationFailed where the database has moved since it was described."""
    async with AsyncExitStack() as stack:
        database = await _migrator(settings, stack)
        manager = MigrationManager(database)
        if (await manager.status()).current != removal.current:
            raise MigrationFailed(f"{database.where} is no longer at {removal.current}. Run the rollback again.")
        after = await manager.rollback_migration(removal.target)
    say(f"{database.where} is at {after.current or 'base'}")


async def print_status(settings: Settings, *, as_json: bool) -> None:
    """Say where the database stands."""
    async with AsyncExitStack() as stack:
        urls = await find_servers(settings, stack, note)
        if settings.env is Environment.EMBEDDED:
            await set_up_roles(urls)
        database = Database(urls.app, database_options(settings, bootstrap.APP), pooled=False)
        try:
            status = await MigrationManager(database).status()
        except SchemaMismatch:
            # applications may not look where all was rolled back
            database = migrator(settings, urls)
            status = await MigrationManager(database).status()
    pending = _steps(status.pending)
    if as_json:
        steps = [asdict(step) for step in pending]
        print_json({"current": status.current, "head": status.head, "pending": steps, "ok": status.is_current})
        return
    say(f"{database.where} is at {status.current or 'no revision'}; this version needs {status.head}")
    for step in pending:
        say(f"pending {step.revision}  {step.title}")
    if pending:
        say("next: freeagentics-db migrate")
    _refuse_unknown(database, status)


async def _migrator(settings: Settings, stack: AsyncExitStack) -> Database:
    urls = await find_servers(settings, stack, note)
    if settings.env is Environment.EMBEDDED:
        await set_up_roles(urls)
    return migrator(settings, urls)


def _refuse_unknown(database: Database, status: MigrationStatus) -> None:
    if status.current is not None and not status.is_current and not status.pending:
        raise MigrationFailed(
            f"{database.where} is at {status.current}, which this version does not know: it knows {status.head} and "
            "older. Install the version of freeagentics-persistence that migrated it, or a newer one."
        )


def _refuse_not_above(database: Database, status: MigrationStatus, to: str) -> None:
    """A database that is past ``to`` must not look as if it had got there."""
    if to in ("head", status.current, *status.pending):
        return
    where = f"{database.where} is at {status.current or 'no revision'}"
    if status.current is not None and to in _below(status.current):
        raise MigrationFailed(
            f"{where}, and {to} is below it. To undo migrations, with their data, run: "
            f"freeagentics-db rollback --to {to}"
        )
    names = ", ".join([*status.pending, "head"])
    raise MigrationFailed(f"{where}, and {to!r} is not above it. Name one of: {names}. See: freeagentics-db status")


def _below(current: str) -> list[str]:
    above = [script.revision for script in _scripts().iterate_revisions(current, "base")]
    return [*above[1:], "base"]


def _target(database: Database, current: str, to: str) -> str:
    """The revision that ``to`` means: a name, ``base``, or ``-N`` for so many steps back."""
    line = _below(current)
    if re.fullmatch(r"-[1-9]\d*", to):
        found = line[int(to[1:]) - 1 :][:1]
    else:
        found = [revision for revision in line if revision == to]
    if not found:
        raise MigrationFailed(
            f"{database.where} is at {current}, and {to!r} is not below it. Name one of: {', '.join(line)}."
        )
    return found[0]


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(migrations_folder()))


def _steps(revisions: tuple[str, ...]) -> list[Step]:
    scripts = _scripts()
    return [Step(revision, str(scripts.get_revision(revision).doc).rstrip(".")) for revision in revisions]


def _offline(migrate: Any, revisions: str) -> str:
    output = io.StringIO()
    config = Config(output_buffer=output)
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    try:
        migrate(config, revisions, sql=True)
    except CommandError as error:
        raise MigrationFailed(f"{error}. See: freeagentics-db status") from error
    return output.getvalue()
