"""Looks at every server that the settings name, and says what is wrong and what to do about it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from uuid import UUID

from freeagentics_persistence.cache.connection import RedisConnection
from freeagentics_persistence.domain.identifiers import DEFAULT_TENANT_ID
from freeagentics_persistence.embedded import default_data_folder
from freeagentics_persistence.errors import PersistenceError
from freeagentics_persistence.metrics.influx_store import InfluxMetricsStore
from freeagentics_persistence.operations.database_health import look_at_database
from freeagentics_persistence.operations.findings import Finding, HealthReport, failure, milliseconds
from freeagentics_persistence.operations.servers import Progress, ServerUrls, find_servers
from freeagentics_persistence.ports.metrics import AGENT_FIELDS, MetricsWindow
from freeagentics_persistence.settings import Environment, Settings

_NO_AGENT = UUID(int=0)


async def check_health(settings: Settings, *, progress: Progress | None = None) -> HealthReport:
    """Look at the servers of these settings; embedded ones are started for it. Changes nothing.

    Raises ConfigurationError where the settings name no servers; everything else is a finding.
    """
    if settings.env is Environment.EMBEDDED:
        folder = settings.data_folder or default_data_folder()
        if not (folder / "postgres").exists():
            absent = f"nothing is set up yet in {folder}"
            return _only(Finding(subject="embedded servers", ok=False, summary=absent, remedy="freeagentics-db init"))
    async with AsyncExitStack() as stack:
        try:
            urls = await find_servers(settings, stack, progress)
        except PersistenceError as error:
            if settings.env is not Environment.EMBEDDED:
                raise
            return _only(failure("embedded servers", error, "do what it says, then: freeagentics-db check"))
        return await inspect_servers(settings, urls)


async def inspect_servers(settings: Settings, urls: ServerUrls) -> HealthReport:
    """Look at these servers, all at once."""
    parts = await asyncio.gather(look_at_database(settings, urls), _look_at_redis(settings, urls), _metrics(settings))
    return HealthReport(findings=tuple(finding for part in parts for finding in part))


def _only(finding: Finding) -> HealthReport:
    return HealthReport(findings=(finding,))


async def _look_at_redis(settings: Settings, urls: ServerUrls) -> Sequence[Finding]:
    subject = "Redis"
    try:
        async with RedisConnection(urls.redis, timeout=settings.redis.timeout, pool_size=1) as connection:
            await connection.ping()  # opens the connection, so that the next one measures the server
            server = await connection.ping()
            where = connection.server
    except PersistenceError as error:
        return [failure(subject, error, "start it, or correct REDIS_URL, then: freeagentics-db check")]
    latency = milliseconds(server.latency)
    return [
        Finding(
            subject=subject,
            ok=True,
            summary=f"{server.name} {server.version} at {where}, {latency:.1f} ms",
            facts={"server": server.name, "version": server.version, "where": where, "latency_ms": latency},
        )
    ]


async def _metrics(settings: Settings) -> Sequence[Finding]:
    subject, influx = "metrics", settings.influx
    if influx.url is None or influx.token is None:
        return [
            Finding(
                subject=subject,
                ok=True,
                summary="queries over PostgreSQL, as INFLUXDB_URL is not set",
                facts={"server": "PostgreSQL"},
            )
        ]
    store = None
    try:
        store = InfluxMetricsStore(
            influx.url, influx.token.get_secret_value(), org=influx.org, bucket=influx.bucket, timeout=influx.timeout
        )
        await store.ping()
        server = await store.ping()
        await store.query_agent(DEFAULT_TENANT_ID, _NO_AGENT, _last_minute())  # ping asks for no token
        latency = milliseconds(server.latency)
        return [
            Finding(
                subject=subject,
                ok=True,
                summary=f"{store.where}, version {server.version}, bucket {influx.bucket}, {latency:.1f} ms",
                facts={
                    "server": "InfluxDB",
                    "version": server.version,
                    "where": influx.url,
                    "bucket": influx.bucket,
                    "latency_ms": latency,
                },
            )
        ]
    except PersistenceError as error:
        return [failure(subject, error, "do what it says, then: freeagentics-db check")]
    finally:
        if store is not None:
            await store.close()


def _last_minute() -> MetricsWindow:
    now = datetime.now(UTC)
    every = timedelta(minutes=1)
    return MetricsWindow(start=now - every, stop=now, every=every, fields=AGENT_FIELDS[:1])
