"""Time series in InfluxDB 2: windowed queries, batched writes, and the bucket they go to."""

from __future__ import annotations

import asyncio
import importlib
import logging
import time
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from freeagentics_persistence.domain.server_urls import has_host, split_server_url
from freeagentics_persistence.errors import AuthenticationFailed, ConfigurationError, MetricsUnavailable, StoreClosed
from freeagentics_persistence.metrics.flux_answer import points_by_field
from freeagentics_persistence.metrics.influx_errors import (
    blames_points,
    message_of,
    points_dropped,
    status_of,
    translated,
)
from freeagentics_persistence.ports.metrics import MetricPoint, MetricsWindow

RETENTION = timedelta(days=365)
MAX_BATCH_POINTS = 5000
MAX_BATCH_BYTES = 1_000_000  # a larger body would hold up the event loop while it is sent

_log = logging.getLogger(__name__)

# Only names of parameters and constants of ours become text of a query; every value is bound to a parameter. The
# fields are compared one by one, as the storage engine answers that itself, and does not answer contains().
_FLUX = """
from(bucket: bucket_name)
    |> range(start: range_start, stop: range_stop)
    |> filter(fn: (r) => r._measurement == measurement_name and r.tenant_id == tenant and r.{tag} == subject)
    |> filter(fn: (r) => {fields})
    |> aggregateWindow(every: window_length, fn: mean, createEmpty: false, timeSrc: "_start")
    |> keep(columns: ["_time", "_field", "_value"])
"""


@dataclass(frozen=True, slots=True)
class ServerVersion:
    """Which version answered, and after how many seconds."""

    version: str
    latency: float


class InfluxMetricsStore:
    """One bucket of one InfluxDB 2 server. Connects on first use, in the event loop that uses it.

    Raises ConfigurationError where the address, token or names cannot be right. Every method raises
    AuthenticationFailed, TimedOut, MetricsUnavailable (not reached, no such bucket or organisation, refused) and
    StoreClosed after close(). ``timeout`` (seconds) bounds each request.
    """

    def __init__(self, url: str, token: str, org: str, bucket: str, timeout: float = 10.0) -> None:
        self._url = _checked_url(url)
        self._token = _checked_token(token)
        self.bucket, self._org, self._timeout = bucket, org, timeout
        self._opened: Any = None
        self._closed = False
        self.where = f"InfluxDB at {self._url}"

    async def query_agent(self, tenant_id: UUID, agent_id: UUID, window: MetricsWindow) -> list[MetricPoint]:
        """Means of an agent's fields over windows, by field as asked, then time."""
        return await self._query("agent_beliefs", "agent_id", tenant_id, agent_id, window)

    async def query_coalition(self, tenant_id: UUID, coalition_id: UUID, window: MetricsWindow) -> list[MetricPoint]:
        """Means of a coalition's fields over windows, by field as asked, then time."""
        return await self._query("coalition_performance", "coalition_id", tenant_id, coalition_id, window)

    async def write(self, lines: Iterable[str]) -> int:
        """Write points in line protocol, times in microseconds; in batches, each one request.

        A point with the tags and the time of an earlier one replaces its fields. Points that are already past the
        bucket's retention are let go of, as the server would drop them anyway. How many others the server refused for
        what they are, as where others wrote a field of the same name as text; the log names one of each batch.
        """
        refused = 0
        for batch in _batches(lines):
            refused += await self._write(batch)
        return refused

    async def _write(self, batch: Sequence[bytes]) -> int:
        """Write a batch, in halves where the server refuses it as a whole; how many points it refused."""
        client = await self._client()
        try:
            with self._translated():
                await client.write_api().write(self.bucket, record=b"\n".join(batch), write_precision="us")
            return 0
        except MetricsUnavailable as error:
            if not blames_points(error.__cause__):
                raise
            refused = points_dropped(error.__cause__)
            if refused is None and len(batch) > 1:
                middle = len(batch) // 2
                return await self._write(batch[:middle]) + await self._write(batch[middle:])
            if refused != 0:
                _log.warning("points are left out (%d of %d): %s", refused or 1, len(batch), error)
            return 1 if refused is None else refused

    async def ensure_bucket(self) -> bool:
        """Make the bucket if it is missing, with a retention of one year; whether it was made."""
        client, library = await self._client(), importlib.import_module("influxdb_client")
        with self._translated():
            buckets = library.BucketsService(client.api_client)
            known = await _unless(404, "bucket", buckets.get_buckets_async(name=self.bucket, org=self._org))
            if known is not None:
                return False
            found = (await library.OrganizationsService(client.api_client).get_orgs_async(org=self._org)).orgs
            if not found:  # the token may not see the organisation, so it may not make buckets either
                raise AuthenticationFailed(
                    f"{self.where} has no bucket {self.bucket!r}, and the token may not make one. "
                    "Correct INFLUXDB_BUCKET, or put a token into INFLUXDB_TOKEN that may."
                )
            rules = [library.BucketRetentionRules(type="expire", every_seconds=int(RETENTION.total_seconds()))]
            wanted = library.PostBucketRequest(org_id=found[0].id, name=self.bucket, retention_rules=rules)
            # it exists where another process made it at the same moment
            return await _unless(422, "already exists", buckets.post_buckets_async(wanted)) is not None

    async def ping(self) -> ServerVersion:
        """The server's version and how long it took to answer. Needs no token."""
        client, library = await self._client(), importlib.import_module("influxdb_client")
        started = time.perf_counter()
        with self._translated():
            service = library.PingService(client.api_client)
            answer = await _unless(404, "", service.get_ping_async(_return_http_data_only=False))
        version = None if answer is None else answer[2].get("X-Influxdb-Version")
        if version is None:
            raise MetricsUnavailable(f"{self.where}: another kind of server answers there. Correct INFLUXDB_URL.")
        return ServerVersion(version.removeprefix("v"), time.perf_counter() - started)

    async def close(self) -> None:
        """Close all connections."""
        self._closed = True
        client, self._opened = self._opened, None
        if client is not None:
            await client.close()

    async def _client(self) -> Any:
        # imported here as it takes most of a second, which those without InfluxDB need not spend
        library = await asyncio.to_thread(importlib.import_module, "influxdb_client.client.influxdb_client_async")
        if self._closed:
            raise StoreClosed(f"{self.where}: the metrics store is closed. Open a new one.")
        if self._opened is None:
            milliseconds = max(1, round(self._timeout * 1000))
            self._opened = library.InfluxDBClientAsync(self._url, self._token, org=self._org, timeout=milliseconds)
        return self._opened

    def _translated(self) -> AbstractContextManager[None]:
        return translated(self.where, self._timeout)

    async def _query(
        self, measurement: str, tag: str, tenant_id: UUID, subject_id: UUID, window: MetricsWindow
    ) -> list[MetricPoint]:
        fields = {f"field_{i}": name for i, name in enumerate(dict.fromkeys(window.fields))}
        if not fields:
            return []
        flux = _FLUX.format(tag=tag, fields=" or ".join(f"r._field == {parameter}" for parameter in fields))
        values: dict[str, Any] = {
            "bucket_name": self.bucket,
            "range_start": window.start,
            "range_stop": window.stop,
            "measurement_name": measurement,
            "tenant": str(tenant_id),
            "subject": str(subject_id),
            "window_length": window.every,
            **fields,
        }
        client, library = await self._client(), importlib.import_module("influxdb_client")
        dialect = library.Dialect(header=True, annotations=[], date_time_format="RFC3339")
        with self._translated():
            answer = await client.query_api().query_raw(flux, params=values, dialect=dialect)
        found = await asyncio.to_thread(points_by_field, answer, self.where)
        return [point for name in fields.values() for point in found.get(name, ())]


def _batches(lines: Iterable[str]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for line in lines:
        encoded = line.encode()
        if batch and (len(batch) == MAX_BATCH_POINTS or size + len(encoded) >= MAX_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(encoded)
        size += len(encoded) + 1
    if batch:
        yield batch


async def _unless(status: int, words: str, request: Awaitable[Any]) -> Any:
    """What a request gives, None where the server refuses it with that status and these words."""
    try:
        return await request
    except Exception as error:
        if status_of(error) != status or words not in message_of(error):
            raise
        return None


def _checked_url(url: str) -> str:
    if any(mark in url for mark in "@?#"):
        raise ConfigurationError("INFLUXDB_URL must hold the address alone: put the token into INFLUXDB_TOKEN.")
    parts = split_server_url("INFLUXDB_URL", url)
    if parts.scheme not in ("http", "https") or not has_host(parts):
        raise ConfigurationError("INFLUXDB_URL must be an http:// or https:// address, such as http://localhost:8086.")
    return url.rstrip("/")


def _checked_token(token: str) -> str:
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigurationError("INFLUXDB_TOKEN is empty, or holds characters that no token has: copy it again.")
    return token
