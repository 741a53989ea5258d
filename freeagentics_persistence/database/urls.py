"""Database URLs: which the driver takes, and what of them may be shown."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qs, unquote

from freeagentics_persistence.domain.server_urls import is_host, split_server_url
from freeagentics_persistence.errors import ConfigurationError

SETTING = "the database URL"
DEFAULT_PORT = "5432"
_EXAMPLE = "as in postgresql://user:password@host:5432/db"
_HOST_AND_PORT = re.compile(r"(?:\[(?P<address>[^\[\]]+)\]|(?P<name>[^\[\]:]+))(?::(?P<port>.*))?")
_PLAIN_NAME = re.compile(r"[\w.$ -]+")


def checked_dsn(url: str) -> str:
    """The URL as the driver takes it. Raises ConfigurationError, which shows nothing of it."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.partition("+")[0] not in ("postgresql", "postgres"):
        raise ConfigurationError(f"{SETTING} must start with postgresql://, {_EXAMPLE}")
    dsn = f"postgresql://{rest}"
    _servers(split_server_url(SETTING, dsn))
    return dsn


def describe(url: str) -> str:
    """Which servers and which database a URL means, without user, password and parameters."""
    parts = split_url(url)
    name = unquote(parts.path[1:])
    return f"PostgreSQL at {','.join(_servers(parts))}" + (f"/{name}" if _PLAIN_NAME.fullmatch(name) else "")


def split_url(url: str) -> SplitResult:
    """The parts of a URL, as checked_dsn() gives it."""
    return split_server_url(SETTING, checked_dsn(url))


def login_of(url: str) -> tuple[str, str | None]:
    """User name, empty where there is none, and password."""
    parts = split_url(url)
    return unquote(parts.username or ""), None if parts.password is None else unquote(parts.password)


def _servers(parts: SplitResult) -> list[str]:
    """The servers that a URL names as ``host:port``, in the order in which they are tried."""
    query = _parameters(parts.query)
    given = parts.netloc.rpartition("@")[2]
    hosts = (given or query.get("host", "localhost")).split(",")
    ports = [""] if given else query.get("port", "").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    if len(ports) != len(hosts):
        raise ConfigurationError(
            f"{SETTING} names {len(hosts)} hosts and {len(ports)} ports. Name as many, or one port."
        )
    return [_server(host, port) for host, port in zip(hosts, ports, strict=True)]


def _server(text: str, port: str) -> str:
    if text.startswith("/"):  # the folder of a socket
        return f"{text}:{_checked_port(port or DEFAULT_PORT)}"
    found = _HOST_AND_PORT.fullmatch(text)
    host = unquote(found["name"] or found["address"]) if found else ""
    if found is None or not (host.startswith("/") or is_host(host)):
        raise ConfigurationError(f"{SETTING} has no valid host. Write it {_EXAMPLE}")
    shown = f"[{host}]" if found["address"] else host
    return f"{shown}:{_checked_port(port or found['port'] or DEFAULT_PORT)}"


def _checked_port(text: str) -> str:
    if re.fullmatch(r"[0-9]{1,5}", text) is None or not 0 < int(text) < 65536:
        raise ConfigurationError(f"{SETTING} has no valid port. Write it {_EXAMPLE}")
    return text


def _parameters(query: str) -> dict[str, str]:
    """Of a parameter that is given twice the last, as the driver reads it."""
    try:
        return {name: values[-1] for name, values in parse_qs(query, strict_parsing=bool(query)).items()}
    except ValueError:
        pass
    raise ConfigurationError(f"{SETTING} has parameters that cannot be read. Write them as ?name=value&name=value")
