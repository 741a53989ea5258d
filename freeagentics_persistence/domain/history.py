"""Which belief updates history keeps, and how beliefs differ between two moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import numpy as np
import numpy.typing as npt

from freeagentics_persistence.domain.validation import require_finite, require_int
from freeagentics_persistence.errors import InvalidInput

MAX_UPDATES = 2**31
MAX_INTERVAL = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class HistoryPolicy:
    """Which belief updates of an agent type history keeps; make one by a class method.

    An agent's present beliefs are always stored, and every update reaches cache, subscribers and metrics, also where
    history skips it. Whole agents that are saved are always kept. Raises InvalidInput for what is out of bounds.

    >>> HistoryPolicy.every(10)
    HistoryPolicy.every(10)
    >>> HistoryPolicy.interval(timedelta(minutes=1))
    HistoryPolicy.interval(datetime.timedelta(seconds=60))
    >>> HistoryPolicy.divergence(0.05) == HistoryPolicy.divergence(0.05)
    True
    """

    every_updates: int | None = None
    min_interval: timedelta | None = None
    min_divergence: float | None = None

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.every_updates, self.min_interval, self.min_divergence)) != 1:
            raise InvalidInput("policy", "names not just one rule", "Make it with HistoryPolicy.every(10) or the like.")
        if self.every_updates is not None:
            require_int("n", self.every_updates, low=1, high=MAX_UPDATES)
        if self.min_divergence is not None and require_finite("nats", self.min_divergence) < 0:
            raise InvalidInput("nats", f"is {self.min_divergence}", "Divergences are 0 or more.")
        if self.min_interval is not None and not (
            isinstance(self.min_interval, timedelta) and timedelta(0) < self.min_interval <= MAX_INTERVAL
        ):
            raise InvalidInput("interval", "is no time of 1 us to 3,650 days", "Pass a datetime.timedelta.")

    @classmethod
    def every(cls, n: int) -> HistoryPolicy:
        """Every n-th update: one that is n versions or more after the last one kept; with 1 all of them."""
        return cls(every_updates=n)

    @classmethod
    def interval(cls, interval: timedelta) -> HistoryPolicy:
        """At most one update in each interval: one that comes so long or longer after the last one kept."""
        return cls(min_interval=interval)

    @classmethod
    def divergence(cls, nats: float) -> HistoryPolicy:
        """Updates whose D_KL(new || last kept) exceeds ``nats``, summed over factors.

        Beliefs of another layout, and raw factors that changed, are infinitely far. As the server cannot open beliefs,
        the writing process compares with what it remembers (``HISTORY_MEMORY_MEGABYTES``) of beliefs that it wrote
        itself; an update that nobody can compare is kept.
        """
        return cls(min_divergence=nats)

    @property
    def keeps_all(self) -> bool:
        """Whether it skips nothing."""
        return self.every_updates == 1

    def __repr__(self) -> str:
        if self.every_updates is not None:
            return f"HistoryPolicy.every({self.every_updates})"
        if self.min_interval is not None:
            return f"HistoryPolicy.interval({self.min_interval!r})"
        return f"HistoryPolicy.divergence({self.min_divergence})"


@dataclass(frozen=True, slots=True, kw_only=True)
class BeliefChanges:
    """How the beliefs of N agents differ between two moments, in nats; arrays of shape (N,).

    ``divergence`` is D_KL(stop || start), infinite where start rules out what stop allows, or the factors differ.
    ``entropy`` is that at stop minus that at start. Both are NaN where every factor is raw, and where ``present`` is
    False: the agent had no beliefs at one of the moments. Versions are 0 where there was no agent.
    """

    ids: Sequence[UUID]
    divergence: npt.NDArray[np.float64]
    entropy: npt.NDArray[np.float64]
    start_versions: npt.NDArray[np.int64]
    stop_versions: npt.NDArray[np.int64]
    present: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ids)
