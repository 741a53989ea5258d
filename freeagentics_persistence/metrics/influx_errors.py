"""The one boundary where InfluxDB's errors become ours, by HTTP status; the cause is kept."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from freeagentics_persistence.errors import (
    AuthenticationFailed,
    MetricsUnavailable,
    PersistenceError,
    TimedOut,
)

_DROPPED = re.compile(r"dropped=(\d+)")


@contextmanager
def translated(where: str, timeout: float) -> Iterator[None]:
    """Turn what the client raises into our errors. ``where`` names the server, ``timeout`` is in seconds."""
    try:
        yield
    except _library("influxdb_client.rest").ApiException as error:
        raise _refusal(error, where) from error
    except TimeoutError as error:
        raise TimedOut(
            f"{where} did not answer within {timeout:g} s. Repeat the call, or raise INFLUXDB_TIMEOUT."
        ) from error
    except (_library("aiohttp").ClientError, OSError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise MetricsUnavailable(
            f"{where} cannot be reached ({text}). Start it, or correct INFLUXDB_URL; freeagentics-db check tells more."
        ) from error


def status_of(error: BaseException | None) -> int | None:
    """The HTTP status with which the server refused; None for errors of another kind."""
    status = getattr(error, "status", None)
    return status if isinstance(status, int) else None


def message_of(error: Any) -> str:
    """What the server said when it refused."""
    body = getattr(error, "body", None) or b""
    try:
        said = json.loads(body)["message"]
    except (ValueError, KeyError, TypeError):
        said = body.decode(errors="replace") if isinstance(body, bytes) else body
    return " ".join(str(said).split())[:500] or str(getattr(error, "reason", error))


def blames_points(error: BaseException | None) -> bool:
    """Whether the server refused a write for its points, so that repeating it would change nothing."""
    status = status_of(error)
    return status in (400, 413, 422) and not _names_organisation(message_of(error))


def points_dropped(error: BaseException | None) -> int | None:
    """How many points of a write were refused while the others were kept, save for those past the retention.

    None where the server kept nothing.
    """
    said = message_of(error)
    if "outside retention policy" in said:
        return 0
    dropped = _DROPPED.search(said) if "partial write" in said else None
    return int(dropped[1]) if dropped else None


def _names_organisation(said: str) -> bool:
    return "organization name" in said


def _library(name: str) -> Any:
    # named when an error is to be told apart, and not before: importing the client takes most of a second
    return importlib.import_module(name)


def _refusal(error: Any, where: str) -> PersistenceError:
    status, said = error.status, message_of(error)
    if status in (401, 403):
        return AuthenticationFailed(
            f"{where} refused the token ({said}). Put one into INFLUXDB_TOKEN that may read and write the bucket."
        )
    if status == 404 or _names_organisation(said):
        return MetricsUnavailable(
            f"{where}: {said}. Check INFLUXDB_ORG and INFLUXDB_BUCKET, and that the token may use that bucket; "
            "freeagentics-db init makes a missing one."
        )
    if status == 429 or status >= 500:
        return MetricsUnavailable(f"{where} cannot do it now ({status}: {said}). Repeat the call later.")
    return MetricsUnavailable(f"{where} refused the request ({status}: {said}). freeagentics-db check tells more.")
