"""Windows of a series, checked: which part, how wide, which fields."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from freeagentics_persistence.domain.validation import require_aware, require_finite, require_text
from freeagentics_persistence.errors import InvalidInput
from freeagentics_persistence.ports.metrics import MetricsWindow

MAX_WINDOWS = 100_000
MAX_POINTS = 400_000
MAX_HOURS = 24 * 366 * 50
MAX_FIELD_LENGTH = 1024

_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
_UNITS = {"s": timedelta(seconds=1), "m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_EVERY = re.compile(r"([0-9]{1,9})([smhd])", re.ASCII)
_DIMENSION = re.compile(r"belief_(.*_)?[0-9]+", re.ASCII | re.DOTALL)


def checked_window(
    hours: float,
    start: datetime | None,
    stop: datetime | None,
    every: str | timedelta,
    fields: Sequence[str],
) -> MetricsWindow:
    """The window from ``start`` (``hours`` before ``stop`` where it is None) to ``stop`` (now where it is None)."""
    end = datetime.now(UTC) if stop is None else _checked_moment("stop", stop)
    begin = end - _checked_hours(hours) if start is None else _checked_moment("start", start)
    if begin < _FIRST:
        raise InvalidInput("hours", "reach back before 1970", "Ask for fewer hours.")
    if begin >= end:
        raise InvalidInput("start", f"{begin.isoformat()} is not before stop {end.isoformat()}", "Pass start < stop.")
    width = checked_every(every)
    count = -((begin - end) // width)
    if count > MAX_WINDOWS or count * len(fields) > MAX_POINTS:
        raise InvalidInput(
            "every",
            f"gives {count} windows of {len(fields)} fields",
            f"At most {MAX_WINDOWS} windows and {MAX_POINTS} points: pass wider windows, or a shorter time.",
        )
    return MetricsWindow(start=begin, stop=end, every=width, fields=fields)


def checked_every(every: str | timedelta) -> timedelta:
    """The length of a window: a timedelta, or text such as 30s, 5m, 1h, 1d."""
    if isinstance(every, timedelta):
        width = every
    else:
        match = _EVERY.fullmatch(every) if isinstance(every, str) else None
        if match is None:
            raise InvalidInput("every", f"{every!r} is not a length of time", "Pass 30s, 5m, 1h, 1d or a timedelta.")
        width = int(match[1]) * _UNITS[match[2]]
    if not timedelta(0) < width <= _LAST - _FIRST:
        raise InvalidInput("every", f"{every!r} is out of range", "Pass a length above 0, such as 1h.")
    return width


def checked_fields(fields: Sequence[str] | None, known: tuple[str, ...], *, dimensions: bool) -> list[str]:
    """The fields asked for, all ``known`` ones where None; with ``dimensions`` also single probabilities."""
    if fields is None:
        return list(known)
    if isinstance(fields, str) or not isinstance(fields, Sequence) or not fields:
        raise InvalidInput("fields", f"{fields!r} is not a list of names", f"Pass some of {', '.join(known)}, or None.")
    names = list(dict.fromkeys(require_text("fields", name, limit=MAX_FIELD_LENGTH) for name in fields))
    for name in names:
        if name not in known and not (dimensions and _DIMENSION.fullmatch(name)):
            also = ", and belief_0, belief_1 ..." if dimensions else ""
            raise InvalidInput("fields", f"{name!r} is not kept", f"Use {', '.join(known)}{also}.")
    return names


def _checked_moment(field: str, value: datetime) -> datetime:
    moment = require_aware(field, value)
    if not _FIRST <= moment <= _LAST:
        raise InvalidInput(field, f"{moment.isoformat()} is out of range", "Pass a time between 1970 and 2200.")
    return moment.astimezone(UTC)


def _checked_hours(hours: float) -> timedelta:
    number = require_finite("hours", hours)
    if not 0 < number <= MAX_HOURS:
        raise InvalidInput("hours", f"{number:g} is out of range", f"Pass a number above 0, up to {MAX_HOURS}.")
    return timedelta(hours=number)
