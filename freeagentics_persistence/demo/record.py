"""What the agents believed at every version: the reference that each store is compared with."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

import h3
import numpy as np

from freeagentics_persistence.demo.city import NOWHERE, City
from freeagentics_persistence.domain.beliefs.batch import BeliefBatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from freeagentics_persistence.demo.swarm import Swarm

MAX_KEPT_BYTES = 256 * 1024 * 1024
MAX_LISTED = 20


@dataclass(frozen=True, slots=True, eq=False)
class Write:
    """One write of the whole swarm. ``beliefs`` is None where they were not kept; F is None where none was given."""

    step: int
    entropy: NDArray[np.float64]
    free_energy: NDArray[np.float64] | None
    beliefs: BeliefBatch | None


class Record:
    """Every write of a swarm of agents ``ids``. All agents are written together: write i gave them version i + 1.

    Beliefs are kept of every write, or of evenly spaced ones where that would take more than a quarter of a GiB.
    """

    def __init__(self, ids: Sequence[UUID], writes: int, bytes_a_write: int) -> None:
        self.ids = list(ids)
        self.number = {agent_id: number for number, agent_id in enumerate(ids)}
        self.writes: list[Write] = []
        self.sent: list[float] = []
        self.acknowledged: list[float] = []
        self._every = -(-writes * bytes_a_write // MAX_KEPT_BYTES)

    def __len__(self) -> int:
        return len(self.writes)

    def announce(self, step: int, swarm: Swarm, beliefs: BeliefBatch, *, last: bool, inferred: bool) -> None:
        """Note a write that is about to be sent. ``inferred``: free energies are written with it."""
        kept = last or len(self.writes) % self._every == 0
        free_energy = swarm.free_energy if inferred else None
        self.writes.append(Write(step, swarm.entropy, free_energy, beliefs if kept else None))

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Note by this machine's clock when the write that was announced was sent, and when acknowledged."""
        self.sent.append(time.time())
        yield
        self.acknowledged.append(time.time())

    def beliefs_of_version(self, version: int) -> BeliefBatch | None:
        """What all agents believed at a version, if that was kept."""
        return self.writes[version - 1].beliefs if 1 <= version <= len(self.writes) else None

    def kept_versions(self) -> list[int]:
        """The versions whose beliefs were kept, in order."""
        return [version for version, write in enumerate(self.writes, 1) if write.beliefs is not None]


def batch_of(swarm: Swarm, cells: NDArray[np.int64]) -> BeliefBatch:
    """What the swarm stores: what each agent believes of its window, and which cells that is about.

    ``cells`` (C,): the city's H3 cells as integers; 0 stands for a place past its edge.
    """
    windows = swarm.windows
    seen = np.where(windows == NOWHERE, 0, cells[windows])
    return BeliefBatch([swarm.qs, seen], families=["categorical", "raw"], names=["demand", "window"])


def cell_numbers(city: City) -> NDArray[np.int64]:
    """The city's cells as 64-bit integers."""
    return np.array([h3.str_to_int(cell) for cell in city.cells], dtype=np.int64)


class Differences:
    """Collects differences: the first twenty in words, then how many more there are."""

    def __init__(self) -> None:
        self._listed: list[str] = []
        self._more = 0

    def add(self, text: str) -> None:
        """Note one."""
        if len(self._listed) < MAX_LISTED:
            self._listed.append(text)
        else:
            self._more += 1

    def found(self) -> tuple[str, ...]:
        """All of them."""
        return (*self._listed, *([f"and {self._more:,} more"] if self._more else []))


def compare_batches(
    found: BeliefBatch, expected: BeliefBatch, ids: Sequence[UUID], rows: Sequence[int], where: str
) -> tuple[int, Differences]:
    """How many rows were compared, and which are not equal to the last bit.

    Row i of ``found`` belongs to row ``rows[i]`` of ``expected`` and to agent ``ids[rows[i]]``.
    """
    differences = Differences()
    for i, row in enumerate(rows):
        if not found.present[i]:
            differences.add(f"{where}: agent {ids[row]} is missing")
        elif found[i] != expected[row]:
            differences.add(f"{where}: agent {ids[row]} has other beliefs than it holds")
    return len(rows), differences
