"""What each process notes: one line of JSON for every write and every read, in the order in which they ended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal
from uuid import UUID

Outcome = Literal["acknowledged", "repeated", "refused", "unknown"]


@dataclass(frozen=True, slots=True)
class Write:
    """One write of one agent. ``version`` is what was acknowledged, ``expected`` what was demanded, else None.

    refused: the store said that it is not stored. unknown: it may be, as the caller gave up or was told so.
    """

    agent: str
    revision: str
    outcome: Outcome
    version: int | None = None
    expected: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """A read or an update of the feed: version and revision of an agent. ``floor`` is what had been seen before."""

    agent: str
    version: int
    revision: str
    floor: int
    how: str


class Journal:
    """Appends to one file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1 << 16)

    def note(self, entry: Write | Seen) -> None:
        """Write down what happened."""
        self._file.write(json.dumps({"kind": type(entry).__name__, **asdict(entry)}) + "\n")

    def close(self) -> None:
        """Write out what is buffered."""
        self._file.close()


def entries(path: Path) -> Iterator[Write | Seen]:
    """What a journal holds."""
    kinds = {"Write": Write, "Seen": Seen}
    with path.open() as lines:
        for line in lines:
            found = json.loads(line)
            yield kinds[found.pop("kind")](**found)


def number_of(revision: UUID) -> float:
    """What a write of this revision has its agent believe, so that a value tells whose it is: in [0, 1)."""
    return (revision.int & ((1 << 52) - 1)) / (1 << 52)
