"""URLs of servers. They hold passwords, so what is wrong with one is told without showing any part of it."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

from freeagentics_persistence.errors import ConfigurationError

_ENCODE = "Percent-encode the password in it: @ is %40, / is %2F, ? is %3F, # is %23, [ is %5B, ] is %5D, % is %25."


def split_server_url(setting: str, url: str) -> SplitResult:
    """The parts of a URL. Raises ConfigurationError, which names the setting.

    A password that is not percent-encoded ends at its first ``/``, ``?`` or ``#``, and the rest of it would pass for
    a path or a parameter; it shows by the ``@`` that then comes too late.
    """
    server, mark, rest = _cut(url.partition("://")[2])
    if server.count("@") > 1 or "@" in rest or "#" in mark + rest:
        raise ConfigurationError(f"{setting} has @ or # where none can be. {_ENCODE}")
    parts = _split(url)
    if parts is None:
        raise ConfigurationError(f"{setting} has no valid host. Put an IPv6 address into brackets. {_ENCODE}")
    return parts


def is_host(text: str) -> bool:
    """Whether this can be a host's name or address (IPv6 without brackets)."""
    try:
        text.encode("idna")
    except UnicodeError:
        return False
    return re.fullmatch(r"[\w.:%-]+", text) is not None


def has_host(parts: SplitResult) -> bool:
    """Whether a URL names one host, with a port that can be one or with none."""
    try:
        port = parts.port
    except ValueError:
        return False
    return port != 0 and is_host(parts.hostname or "")


def _cut(text: str) -> tuple[str, str, str]:
    end = re.search("[/?#]", text)
    return (text, "", "") if end is None else (text[: end.start()], end.group(), text[end.end() :])


def _split(url: str) -> SplitResult | None:
    # outside the except clause nothing of the message, which quotes the URL, stays with the error that is raised
    try:
        return urlsplit(url)
    except ValueError:
        return None
