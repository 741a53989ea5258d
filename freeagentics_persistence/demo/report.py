"""What a demo run shows while it goes on, and what it reports at its end."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np

if TYPE_CHECKING:
    from decimal import Decimal

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Spread:
    """Percentiles of a duration, in milliseconds."""

    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, seconds: NDArray[np.float64]) -> Spread:
        """The percentiles of some durations in seconds; NaN where there are none."""
        if len(seconds) == 0:
            return cls(*[float("nan")] * 3)
        return cls(*(float(value) for value in np.percentile(seconds * 1000, (50, 95, 99))))

    def __str__(self) -> str:
        named = (("p50", self.p50), ("p95", self.p95), ("p99", self.p99))
        return " ".join(f"{name} {value:.{0 if value >= 100 else 1}f}" for name, value in named) + " ms"


@dataclass(frozen=True, slots=True)
class Reads:
    """Agents read in the mix, and how many of them the cache answered."""

    agents: int = 0
    hits: int = 0

    def __str__(self) -> str:
        share = f"{self.hits / self.agents:.1%}" if self.agents else "none yet"
        return f"{share} of {self.agents:,} reads"


@dataclass(frozen=True, slots=True)
class Figures:
    """The state of a run after a step.

    ``updates``: belief updates acknowledged, ``received``: messages that the subscriber got, ``busy``: seconds spent
    in the calls that stored the updates. ``latency``: from commit to subscriber. Entropy and free energy are means
    over agents in nats; ``truth`` is the mean probability given to the true demand level of the own cell.
    """

    step: int
    updates: int
    received: int
    busy: float
    call: Spread
    latency: Spread
    reads: Reads
    entropy: float
    free_energy: float
    truth: float
    coalitions: int
    members: int
    formed: int
    dissolved: int
    revenue: Decimal

    @property
    def updates_per_second(self) -> float:
        """Belief updates stored per second of the calls that stored them."""
        return self.updates / self.busy if self.busy else float("nan")


@dataclass(frozen=True, slots=True)
class Check:
    """One store read back and compared with what the agents believe.

    ``compared`` counts values that were compared; ``differences`` says each one that was not as it should be.
    """

    store: str
    what: str
    compared: int
    differences: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether all was as it should be."""
        return not self.differences


@dataclass(frozen=True, slots=True)
class DemoReport:
    """The outcome of a run. ``seconds``: from opening the store to the end of the checks.

    ``entropy_at_start``: mean entropy in nats of the agents before their first step.
    """

    agents: int
    steps: int
    seed: int
    tenant_id: UUID
    figures: Figures
    checks: tuple[Check, ...]
    entropy_at_start: float
    seconds: float
    opening_seconds: float

    @property
    def ok(self) -> bool:
        """Whether every store holds exactly what the agents believe."""
        return bool(self.checks) and all(check.ok for check in self.checks)

    def to_json(self) -> str:
        """The report as a JSON object; figures that do not exist are null."""
        report = asdict(self) | {"ok": self.ok}
        report["figures"]["updates_per_second"] = self.figures.updates_per_second
        return json.dumps(_without_nan(report), default=str, indent=2)


def _without_nan(value: object) -> object:
    match value:
        case dict():
            return {key: _without_nan(item) for key, item in value.items()}
        case list() | tuple():
            return [_without_nan(item) for item in value]
        case float() if not np.isfinite(value):
            return None
        case _:
            return value
