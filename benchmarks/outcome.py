"""What a row found: slices of contenders, ratios between them, and whether these reach their targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from benchmarks.timing import VALUE, Sample

SLACK = 2.0  # how much a gate forgives: half of an "at least", twice an "at most"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A figure of ``of``, divided slice by slice by that of ``over`` where there is one, and its bound if it has one.

    Of several in ``over`` the best one by its median counts. ``least``: the bound is a lower one. ``reached``: what was
    measured where the bound was not reached, so that a gate notices when it gets worse.
    """

    of: str
    over: tuple[str, ...] = ()
    bound: float | None = None
    least: bool = True
    figure: str = VALUE
    reached: float | None = None

    @property
    def gated(self) -> bool:
        """Whether a gate looks at it: ratios alone, as absolute figures depend on the machine."""
        return bool(self.over) and self.bound is not None


def at_least(bound: float, of: str, *over: str, figure: str = VALUE, reached: float | None = None) -> Check:
    """A ratio that should not be smaller."""
    return Check(of=of, over=over, bound=bound, figure=figure, reached=reached)


def at_most(bound: float, of: str, *over: str, figure: str = VALUE) -> Check:
    """A ratio that should not be larger; of an absolute figure where nothing is divided by."""
    return Check(of=of, over=over, bound=bound, least=False, figure=figure)


def beside(of: str, *over: str, figure: str = VALUE) -> Check:
    """A ratio without a target."""
    return Check(of=of, over=over, figure=figure)


@dataclass(frozen=True, slots=True)
class Finding:
    """A check's median over the slices, its least and most, and which yardstick it was divided by."""

    check: Check
    value: float
    lowest: float
    highest: float
    over: str | None

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without one."""
        return self._within(self.check.bound)

    @property
    def passes(self) -> bool:
        """Whether a gate lets it through."""
        bound = self.check.bound if self.check.reached is None else self.check.reached
        if not self.check.gated or bound is None:
            return True
        return bool(self._within(bound / SLACK if self.check.least else bound * SLACK))

    def _within(self, bound: float | None) -> bool | None:
        if bound is None:
            return None
        return self.value >= bound if self.check.least else self.value <= bound


@dataclass(slots=True)
class Outcome:
    """One case of a row: the slices of each contender, as many of each where they are divided, and the checks."""

    case: str
    unit: str
    samples: Mapping[str, Sequence[Sample]]
    checks: Sequence[Check]
    notes: Sequence[str] = field(default_factory=tuple)

    def findings(self) -> list[Finding]:
        """Every check with its figures."""
        return [self._find(check) for check in self.checks]

    def figures(self, name: str, figure: str = VALUE) -> list[float]:
        """One figure of a contender, slice by slice."""
        return [sample.figure(figure) for sample in self.samples[name]]

    def _find(self, check: Check) -> Finding:
        own = self.figures(check.of, check.figure)
        if not check.over:
            return Finding(check, median(own), min(own), max(own), None)
        prefer = max if check.least or check.bound is None else min
        over = prefer(check.over, key=lambda name: median(self.figures(name, check.figure)))
        pairs = zip(own, self.figures(over, check.figure), strict=True)
        ratios = [mine / theirs for mine, theirs in pairs]
        return Finding(check, median(ratios), min(ratios), max(ratios), over)
