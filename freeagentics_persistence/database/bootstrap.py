"""Sets up a database for migrations: group roles, ownership and grants. Needs a login that may make roles."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import random
from collections.abc import Sequence
from urllib.parse import quote, unquote

import asyncpg

from freeagentics_persistence.database.engine import Database, DatabaseOptions
from freeagentics_persistence.database.urls import split_url
from freeagentics_persistence.errors import ConfigurationError

OWNER = "freeagentics_owner"
MIGRATOR = "freeagentics_migrator"
APP = "freeagentics_app"
RELAY = "freeagentics_relay"
BACKUP = "freeagentics_backup"
ROLES = (OWNER, MIGRATOR, APP, RELAY, BACKUP)
MAX_ATTEMPTS = 10
_CHANGED_MEANWHILE = "XX000"  # "tuple concurrently updated", an internal error to PostgreSQL
_DUPLICATE = ("42710", "23505", _CHANGED_MEANWHILE)
_SCRAM_ITERATIONS = 4096


def database_name(url: str) -> str:
    """Which database a URL means."""
    parts = split_url(url)
    return unquote(parts.path.lstrip("/")) or unquote(parts.username or "postgres")


def in_database(url: str, name: str) -> str:
    """The same server and login, another database."""
    return split_url(url)._replace(path=f"/{quote(name, safe='')}").geturl()


async def create_database(url: str, options: DatabaseOptions | None = None) -> bool:
    """Make the database that ``url`` names if it does not exist; whether it was made."""
    name = database_name(url)
    maintenance = Database(in_database(url, "postgres"), options, pooled=False)
    connection = await maintenance.connect()
    try:
        with maintenance.translated():
            if await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", name):
                return False
            quoted = await connection.fetchval("SELECT quote_ident($1)", name)
            try:
                await connection.execute(f"CREATE DATABASE {quoted} ENCODING 'UTF8' TEMPLATE template0")
            except asyncpg.PostgresError as error:
                if error.sqlstate not in ("42P04", "23505"):  # another process made it at the same moment
                    raise
                return False
            return True
    finally:
        await connection.close()


async def create_logins(
    url: str, logins: Sequence[tuple[str, str | None]], options: DatabaseOptions | None = None
) -> list[str]:
    """Make the logins (name, password) that do not exist; the names of those that were made.

    What is sent, and so what a server may log, is never the password but what it is verified with. An existing login
    keeps its password. Raises ConfigurationError for a password that is not ASCII.
    """
    database = Database(url, options, pooled=False)
    connection = await database.connect()
    made = []
    try:
        with database.translated():
            for login, password in dict(reversed(logins)).items():
                if await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", login):
                    continue
                verifier = None if password is None else scram_verifier(login, password)
                statement = await connection.fetchval(
                    "SELECT format('CREATE ROLE %I LOGIN PASSWORD %L', $1::text, $2::text)", login, verifier
                )
                try:
                    await connection.execute(statement)
                except asyncpg.PostgresError as error:
                    if error.sqlstate not in _DUPLICATE:
                        raise
                    continue
                made.append(login)
    finally:
        await connection.close()
    return made


def scram_verifier(login: str, password: str) -> str:
    """What PostgreSQL keeps of a password: SCRAM-SHA-256 (RFC 7677, by the steps of RFC 5802 section 3)."""
    if not password.isascii() or not password.isprintable():
        raise ConfigurationError(f"the password of {login} is not printable ASCII. Choose another one in its URL.")
    salt = os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _SCRAM_ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored = base64.b64encode(hashlib.sha256(client_key).digest()).decode()
    server = base64.b64encode(hmac.digest(salted, b"Server Key", "sha256")).decode()
    return f"SCRAM-SHA-256${_SCRAM_ITERATIONS}:{base64.b64encode(salt).decode()}${stored}:{server}"


async def bootstrap(url: str, logins: Sequence[tuple[str, str]] = (), options: DatabaseOptions | None = None) -> None:
    """Make the group roles and hand them the database; idempotent and safe to run twice at once.

    ``logins`` are (login, group role): each login becomes a member of its group. Logins must exist.
    """
    database = Database(url, options, pooled=False)
    connection = await database.connect()
    try:
        with database.translated():
            for attempt in range(MAX_ATTEMPTS):
                try:
                    await _grant_all(connection, logins)
                    return
                except asyncpg.PostgresError as error:
                    # rows of the catalogue take no locks: of two who change one at once, one is told to try again
                    if error.sqlstate != _CHANGED_MEANWHILE or attempt == MAX_ATTEMPTS - 1:
                        raise
                    await asyncio.sleep(random.uniform(0.01, 0.1))  # noqa: S311 - jitter
    finally:
        await connection.close()


async def _grant_all(connection: asyncpg.Connection, logins: Sequence[tuple[str, str]]) -> None:
    for role in ROLES:
        await _ensure_role(connection, role)
    await connection.execute(_GRANTS)
    for login, role in logins:
        await _grant(connection, role, login)
    name = await connection.fetchval("SELECT quote_ident(current_database())")
    await connection.execute(f"GRANT CONNECT ON DATABASE {name} TO {', '.join(ROLES)}")
    await connection.execute(f"GRANT CREATE ON DATABASE {name} TO {OWNER}")
    # temporary objects could shadow what functions with the owner's rights name
    await connection.execute(f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC")


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


async def refuse_unrestricted(database: Database, *, login_too: bool) -> None:
    """Raise ConfigurationError where the session passes row-level security; with ``login_too`` also where the login
    behind it could, by leaving the application's role."""
    rows = await database.fetch(_POWERS)
    name, free, login, could_be_free = rows[0]
    if free or (login_too and could_be_free):
        raise ConfigurationError(
            f"the login {login if could_be_free else name} can pass row-level security, so tenants would not be kept "
            f"apart. Use a login that is a member of {APP} alone, as `freeagentics-db init` makes it."
        )


_POWERS = """
SELECT current_user, mine.rolsuper OR mine.rolbypassrls, session_user,
    login.rolsuper OR login.rolbypassrls OR pg_has_role(session_user, 'freeagentics_owner', 'MEMBER')
FROM pg_roles AS mine, pg_roles AS login
WHERE mine.rolname = current_user AND login.rolname = session_user
"""
