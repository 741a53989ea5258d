"""Sets up a database for migrations: group roles, ownership and grants. Needs a login that may make roles."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

import asyncpg

from freeagentics_persistence.database.engine import Database, DatabaseOptions, checked_dsn
from freeagentics_persistence.errors import ConfigurationError

OWNER = "freeagentics_owner"
MIGRATOR = "freeagentics_migrator"
APP = "freeagentics_app"
RELAY = "freeagentics_relay"
BACKUP = "freeagentics_backup"
ROLES = (OWNER, MIGRATOR, APP, RELAY, BACKUP)
_DUPLICATE = ("42710", "23505", "XX000")


async def create_database(url: str, options: DatabaseOptions | None = None) -> bool:
    """Make the database that ``url`` names if it does not exist; whether it was made."""
    parts = urlsplit(checked_dsn(url))
    name = unquote(parts.path.lstrip("/")) or unquote(parts.username or "postgres")
    maintenance = Database(parts._replace(path="/postgres").geturl(), options, pooled=False)
    connection = await maintenance.connect()
    try:
        with maintenance.translated():
            if await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", name):
                return False
            quoted = await connection.fetchval("SELECT quote_ident($1)", name)
            await connection.execute(f"CREATE DATABASE {quoted} ENCODING 'UTF8' TEMPLATE template0")
            return True
    finally:
        await connection.close()


async def bootstrap(url: str, logins: Sequence[tuple[str, str]] = (), options: DatabaseOptions | None = None) -> None:
    """Make the group roles and hand them the database; idempotent and safe to run twice at once.

    ``logins`` are (login, group role): each login becomes a member of its group. Logins must exist.
    """
    database = Database(url, options, pooled=False)
    connection = await database.connect()
    try:
        with database.translated():
            for role in ROLES:
                await _ensure_role(connection, role)
            await connection.execute(_GRANTS)
            for login, role in logins:
                await _grant(connection, role, login)
            name = await connection.fetchval("SELECT quote_ident(current_database())")
            await connection.execute(f"GRANT CONNECT ON DATABASE {name} TO {', '.join(ROLES)}")
            await connection.execute(f"GRANT CREATE ON DATABASE {name} TO {OWNER}")
    finally:
        await connection.close()


_GRANTS = f"""
GRANT {OWNER} TO {MIGRATOR};
GRANT pg_read_all_stats TO {RELAY};
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO {OWNER};
GRANT USAGE ON SCHEMA public TO {APP}, {RELAY}, {BACKUP};
"""


async def _ensure_role(connection: asyncpg.Connection, role: str) -> None:
    if await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", role):
        return
    try:
        await connection.execute(f"CREATE ROLE {role} NOLOGIN NOSUPERUSER NOBYPASSRLS")
    except asyncpg.PostgresError as error:
        if error.sqlstate not in _DUPLICATE:  # another process made it at the same moment
            raise


async def _grant(connection: asyncpg.Connection, role: str, login: str) -> None:
    quoted = await connection.fetchval("SELECT quote_ident($1)", login)
    await connection.execute(f"GRANT {role} TO {quoted}")


async def refuse_unrestricted(database: Database) -> None:
    """Raise ConfigurationError where the session could pass row-level security."""
    rows = await database.fetch(
        "SELECT current_user AS name, rolsuper OR rolbypassrls AS free FROM pg_roles WHERE rolname = current_user"
    )
    if rows[0]["free"]:
        raise ConfigurationError(
            f"the login {rows[0]['name']} passes row-level security, so tenants would not be kept apart. Use a login "
            f"that is a member of {APP}, as `freeagentics-db init` makes it."
        )
