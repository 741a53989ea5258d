"""Looks at PostgreSQL: reached, restricted, migrated, in time, with keys, partitions and a feed that moves."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC

from freeagentics_persistence.database import bootstrap
from freeagentics_persistence.database.engine import Database
from freeagentics_persistence.database.partitions import list_partitions, next_partition
from freeagentics_persistence.database.repositories.tenants import TenantRepository
from freeagentics_persistence.domain.identifiers import DEFAULT_TENANT_ID
from freeagentics_persistence.encryption.keyring import KeyringSealer
from freeagentics_persistence.errors import PersistenceError
from freeagentics_persistence.operations.findings import Finding, failure, milliseconds
from freeagentics_persistence.operations.migration_manager import MigrationManager
from freeagentics_persistence.operations.relay_health import look_at_relay
from freeagentics_persistence.operations.servers import ServerUrls, database_options, key_provider
from freeagentics_persistence.settings import Environment, Settings

OLDEST_VERSION = 15
CLOCK_SECONDS = 60.0
_FACTS = """
SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int / 10000 AS major,
    pg_is_in_recovery() AS standby
"""


async def look_at_database(settings: Settings, urls: ServerUrls) -> Sequence[Finding]:
    """All findings about PostgreSQL; only the first where it cannot be reached."""
    subject = "PostgreSQL"
    try:
        async with _opened(settings, urls.app, bootstrap.APP) as database:
            found = [await _reached(settings, subject, database)]
            found.append(await _clock(database))
            migrated = await _migrations(database)
            found.append(migrated)
            if migrated.ok:
                found.append(await _keyring(settings, database))
                found.append(await _partitions(database))
                async with _opened(settings, urls.relay, bootstrap.RELAY) as relay_database:
                    found.extend(await look_at_relay(settings, database, relay_database))
            return found
    except PersistenceError as error:
        return [failure(subject, error, "start it, or correct DATABASE_URL, then: freeagentics-db check")]


@asynccontextmanager
async def _opened(settings: Settings, url: str, role: str) -> AsyncIterator[Database]:
    database = Database(url, database_options(settings, role))
    try:
        yield database
    finally:
        await database.close()


async def _reached(settings: Settings, subject: str, database: Database) -> Finding:
    row = (await database.fetch(_FACTS))[0]
    started = time.perf_counter()
    await database.fetch("SELECT 1")
    latency = milliseconds(time.perf_counter() - started)
    facts = {"version": row["version"], "where": database.where, "latency_ms": latency}
    summary = f"{row['version']} at {database.where.removeprefix('PostgreSQL at ')}, {latency:.1f} ms"
    wrong: tuple[str, str] | None = None
    if row["major"] < OLDEST_VERSION:
        wrong = f"is older than {OLDEST_VERSION}", f"upgrade PostgreSQL to {OLDEST_VERSION} or newer"
    elif row["standby"]:
        wrong = "is a standby that takes no writes", "name the primary server in DATABASE_URL"
    else:
        try:
            await bootstrap.refuse_unrestricted(database, login_too=settings.env is Environment.PRODUCTION)
        except PersistenceError as error:
            wrong = error.message, "freeagentics-db init, with a restricted login in DATABASE_URL"
    if wrong is None:
        return Finding(subject=subject, ok=True, summary=summary, facts=facts)
    return Finding(subject=subject, ok=False, summary=f"{summary}: {wrong[0]}", remedy=wrong[1], facts=facts)


async def _clock(database: Database) -> Finding:
    await database.measure_clock()
    offset = database.clock_offset.total_seconds()
    return Finding(
        subject="clock",
        ok=abs(offset) <= CLOCK_SECONDS,
        summary=f"PostgreSQL's clock is {abs(offset):.3f} s {'ahead of' if offset > 0 else 'behind'} this machine's",
        remedy=None if abs(offset) <= CLOCK_SECONDS else "set both clocks by NTP, as writes are refused by their time",
        facts={"offset_ms": milliseconds(offset)},
    )


async def _migrations(database: Database) -> Finding:
    subject = "migrations"
    try:
        status = await MigrationManager(database).status()
    except PersistenceError as error:
        return failure(subject, error, "freeagentics-db status")
    facts = {"current": status.current, "head": status.head, "pending": list(status.pending)}
    if status.is_current:
        return Finding(subject=subject, ok=True, summary=f"at {status.head}, the newest", facts=facts)
    if status.current is not None and not status.pending:
        summary = f"at {status.current}, which this version does not know: it knows {status.head} and older"
        return Finding(
            subject=subject, ok=False, summary=summary, remedy="upgrade freeagentics-persistence", facts=facts
        )
    summary = f"at {status.current or 'none'}, {len(status.pending)} behind {status.head}"
    return Finding(subject=subject, ok=False, summary=summary, remedy="freeagentics-db migrate", facts=facts)


async def _keyring(settings: Settings, database: Database) -> Finding:
    subject, tenants = "keyring", TenantRepository(database)
    try:
        provider = key_provider(settings)
        keys = await tenants.load_keys(DEFAULT_TENANT_ID)
        references = sorted({key.kek_reference for key in keys})
        facts = {"data_keys": len(keys), "kek_references": references}
        if not keys:
            if settings.env is not Environment.EMBEDDED:
                await provider.current()
            return Finding(subject=subject, ok=True, summary="empty: the first use makes a key", facts=facts)
        await KeyringSealer(provider, tenants).ensure_tenant(DEFAULT_TENANT_ID)
    except PersistenceError as error:
        return failure(subject, error, "give the key that the data was sealed with in ENCRYPTION_KEY_FILE")
    plural = "" if len(keys) == 1 else "s"
    summary = f"opens: {len(keys)} data key{plural} under {', '.join(references)}"
    return Finding(subject=subject, ok=True, summary=summary, facts=facts)


async def _partitions(database: Database) -> Finding:
    connection = await database.connect()
    try:
        with database.translated():
            begins, partition = next_partition(await list_partitions(connection))
    finally:
        await connection.close()
    facts = {"partition": partition and partition.name, "begins": begins.isoformat(), "made": partition is not None}
    if partition is not None:
        return Finding(
            subject="history", ok=True, summary=f"the next partition, {partition.name}, is made", facts=facts
        )
    summary = f"the next partition, for what comes from {begins.astimezone(UTC):%Y-%m-%d} on, is missing"
    return Finding(subject="history", ok=False, summary=summary, remedy="freeagentics-db partitions keep", facts=facts)
