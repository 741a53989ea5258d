"""What a row of the table is, who takes part in it, and the order in which they are measured."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from benchmarks.timing import Sample

if TYPE_CHECKING:
    from benchmarks.outcome import Outcome
    from benchmarks.scene import Scene


class CannotRunError(Exception):
    """A row that cannot run here: the message says why, and what would help."""


class Contender(Protocol):
    """Who is measured."""

    @property
    def name(self) -> str:
        """As the tables call it."""

    async def run(self, seconds: float) -> Sample:
        """Warm up, then work for about that long."""


class Row(Protocol):
    """A row of the table: how much is measured are its fields."""

    @property
    def rounds(self) -> int:
        """How often each contender is measured."""

    async def measure(self, scene: Scene) -> Sequence[Outcome]:
        """Measure every case. Raises CannotRunError."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A row in the registry, with what it measures in the full plan and in the quick one."""

    name: str
    title: str
    full: Row
    quick: Row


@dataclass(frozen=True, slots=True)
class Slices:
    """Measures contenders in turn, round by round: ours, limit, baseline, ours, ...

    ``level`` brings everything to the same state before each slice. ``say`` is told of every slice.
    """

    rounds: int
    seconds: float
    say: Callable[[str], None]
    level: Callable[[], Awaitable[None]] | None = None
    label: str = ""
    samples: dict[str, list[Sample]] = field(default_factory=dict)

    async def take(self, contenders: Sequence[Contender]) -> dict[str, list[Sample]]:
        """The slices of each contender."""
        for number in range(1, self.rounds + 1):
            for contender in contenders:
                if self.level is not None:
                    await self.level()
                sample = await contender.run(self.seconds)
                self.samples.setdefault(contender.name, []).append(sample)
                self.say(f"{self.label} {number}/{self.rounds} {contender.name}: {sample.value:,.4g}")
        return self.samples
