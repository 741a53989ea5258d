"""What a look at the servers found, for people and for scripts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from freeagentics_persistence.errors import PersistenceError

_COMMAND = re.compile(r"freeagentics-db (?:init|migrate)\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at: ``summary`` says how it is.

    ``remedy`` is the next command or step where it is not ``ok``. ``facts`` are its figures for a script, with
    durations in the unit that their names end with.
    """

    subject: str
    ok: bool
    summary: str
    remedy: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthReport:
    """All findings of one look."""

    findings: tuple[Finding, ...]
    checked_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return all(finding.ok for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        return {
            "ok": self.ok,
            "checked_at": self.checked_at.isoformat(),
            "findings": [asdict(finding) for finding in self.findings],
        }


def failure(subject: str, error: PersistenceError, remedy: str) -> Finding:
    """The finding for an error. A command that the error itself names is the better remedy."""
    named = _COMMAND.search(error.message)
    return Finding(subject=subject, ok=False, summary=error.message, remedy=named.group() if named else remedy)


def milliseconds(seconds: float) -> float:
    """Seconds in milliseconds, to a microsecond."""
    return round(seconds * 1000, 3)


def span(seconds: float) -> str:
    """A duration for people."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.0f} hours"
