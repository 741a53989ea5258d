"""Levels of consistency: how old an answer may be."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from freeagentics_persistence.errors import InvalidInput

Level = Literal["strong", "session", "bounded"]


@dataclass(frozen=True, slots=True)
class Consistency:
    """``strong``: PostgreSQL now. ``session``: never older than what this store wrote or saw itself.

    ``bounded``: at most ``max_staleness`` behind, proved by the relay's watermark; else PostgreSQL answers.
    """

    level: Level
    max_staleness: timedelta | None = None

    def __post_init__(self) -> None:
        if self.level not in ("strong", "session", "bounded"):
            raise InvalidInput("consistency", f"{self.level!r} is unknown", "Use strong, session or bounded.")
        if (self.level == "bounded") != (self.max_staleness is not None):
            raise InvalidInput(
                "max_staleness", f"does not fit consistency {self.level!r}", "Pass it with 'bounded', and only there."
            )
        if self.max_staleness is not None and (
            not isinstance(self.max_staleness, timedelta) or self.max_staleness <= timedelta(0)
        ):
            raise InvalidInput("max_staleness", f"is {self.max_staleness!r}", "Pass a positive datetime.timedelta.")


STRONG, SESSION = Consistency("strong"), Consistency("session")


def consistency_of(level: Level, max_staleness: timedelta | None) -> Consistency:
    """The level of these arguments of a call. Raises InvalidInput."""
    if max_staleness is None:  # the common ones are not made anew for each call
        if level == "session":
            return SESSION
        if level == "strong":
            return STRONG
    return Consistency(level, max_staleness)
