"""Coalitions: neighbours who agree pool what they believe, and are paid for how well it fits the demand."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import softmax

from freeagentics_persistence.demo.city import NOWHERE
from freeagentics_persistence.demo.generative_model import entropy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from freeagentics_persistence.demo.swarm import Swarm

    Floats = NDArray[np.float64]

PRICE, STAKE = Decimal("12.50"), Decimal("10.00")
"""What a cell pays for each level of demand that is foreseen, and what each founder puts in."""
CENT = Decimal("0.01")
FOUNDERS, SMALLEST, LARGEST = 5, 3, 16
"""How many it takes to form a coalition, to keep it, and how many it takes in."""
SIMILAR = 0.1
"""Largest Jensen-Shannon divergence (nats) between a founder and one who joins."""
PROBATION = 2
POOR = 0.35
"""Efficiency below which a coalition is given up, once it has played as many rounds as ``PROBATION``."""


@dataclass(eq=False)
class Coalition:
    """Agents who work together.

    ``members``: numbers of the agents, the founder first. ``seat``: number of the cell where it was founded.
    ``stake``: what its founders put in. ``revenue``: all it has earned. ``efficiency``: how well it predicted in its
    last round, in (0, 1].
    """

    number: int
    seat: int
    members: list[int]
    stake: Decimal = Decimal("0.00")
    revenue: Decimal = Decimal("0.00")
    efficiency: float = 1.0
    rounds: int = 0


@dataclass(frozen=True)
class Earning:
    """What one coalition earned in one round. ``scores``: what each member contributed, by its number."""

    coalition: Coalition
    revenue: Decimal
    efficiency: float
    scores: dict[int, Decimal]


@dataclass
class Round:
    """What happened to the coalitions in one round, in this order."""

    earnings: list[Earning] = field(default_factory=list)
    left: list[tuple[Coalition, list[int]]] = field(default_factory=list)
    dissolved: list[Coalition] = field(default_factory=list)
    formed: list[Coalition] = field(default_factory=list)


class Coalitions:
    """All coalitions of a swarm. ``revenue``: what they earned together, those that have ended too."""

    def __init__(self, swarm: Swarm, rng: np.random.Generator) -> None:
        self._swarm = swarm
        self._rng = rng
        self._founded = 0
        self.active: list[Coalition] = []
        self.revenue = Decimal("0.00")

    def play_round(self) -> Round:
        """Earn, let go who walked away, dissolve what failed, and form anew among those who are free."""
        done = Round()
        for coalition in self.active:
            done.earnings.append(self._earn(coalition))
            gone = self._out_of_sight(coalition)
            failed = len(coalition.members) - len(gone) < SMALLEST
            poor = coalition.rounds >= PROBATION and coalition.efficiency < POOR
            if failed or poor:
                done.dissolved.append(coalition)
            elif gone:
                coalition.members = [member for member in coalition.members if member not in gone]
                done.left.append((coalition, gone))
        self.active = [coalition for coalition in self.active if coalition not in done.dissolved]
        done.formed = self._form()
        self.active += done.formed
        return done

    def _earn(self, coalition: Coalition) -> Earning:
        """Each cell with a member on it pays its level times the probability that the pool gave to it.

        Efficiency is the geometric mean of those probabilities, the exponential of the mean log score
        (Good 1952, "Rational decisions", J. Royal Statistical Society B 14).
        """
        levels = self._swarm.world.levels
        cells = np.unique(self._swarm.positions[coalition.members])
        hits = np.array([self.pool(coalition.members, cell)[levels[cell]] for cell in cells])
        paid = (PRICE * Decimal(float(levels[cells] @ hits))).quantize(CENT)
        coalition.revenue += paid
        self.revenue += paid
        coalition.efficiency = float(np.exp(np.log(hits).mean()))
        coalition.rounds += 1
        return Earning(coalition, paid, coalition.efficiency, self._scores(coalition.members))

    def _scores(self, members: list[int]) -> dict[int, Decimal]:
        """How probable each member held the true level of its own cell, in percent."""
        levels = self._swarm.world.levels[self._swarm.positions[members]]
        percent = 100 * self._swarm.qs[members, 0, levels]
        return {member: Decimal(p).quantize(CENT) for member, p in zip(members, percent.tolist(), strict=True)}

    def pool(self, members: list[int], cell: int) -> Floats:
        """What members who have a cell in view believe of it together: (K,) logarithmic opinion pool.

        The normalised geometric mean of their beliefs (Genest & Zidek 1986, Statistical Science 1).
        """
        who, where = np.nonzero(self._swarm.windows[members] == cell)
        return np.asarray(softmax(np.log(self._swarm.qs[members][who, where]).mean(axis=0)))

    def _out_of_sight(self, coalition: Coalition) -> list[int]:
        """Members who no longer have a common cell in view with the founder: more than two steps away."""
        windows = self._swarm.windows[coalition.members]
        view = windows[0][windows[0] != NOWHERE]
        near = np.asarray(np.isin(windows, view).any(axis=1))
        return [member for member, stays in zip(coalition.members, near, strict=True) if not stays]

    def _form(self) -> list[Coalition]:
        """Each free agent, in random order, founds a coalition if enough free neighbours agree with it."""
        free = np.ones(len(self._swarm), dtype=bool)
        for coalition in self.active:
            free[coalition.members] = False
        formed = []
        residents = self._residents()
        for founder in self._rng.permutation(np.flatnonzero(free)).tolist():
            if not free[founder]:
                continue
            members = self._who_agrees(founder, free, residents)
            if len(members) >= FOUNDERS:
                free[members] = False
                seat, stake = int(self._swarm.positions[founder]), STAKE * len(members)
                formed.append(Coalition(self._founded, seat, members, stake))
                self._founded += 1
        return formed

    def _residents(self) -> list[list[int]]:
        residents: list[list[int]] = [[] for _ in self._swarm.world.city.cells]
        for agent, position in enumerate(self._swarm.positions.tolist()):
            residents[position].append(agent)
        return residents

    def _who_agrees(self, founder: int, free: NDArray[np.bool_], residents: list[list[int]]) -> list[int]:
        """The founder, then free agents on its cell or beside it who believe most nearly the same of that cell."""
        cell = self._swarm.positions[founder]
        cells = self._swarm.windows[founder]
        near = np.array([agent for c in cells[cells != NOWHERE] for agent in residents[c]], dtype=np.int64)
        near = near[free[near] & (near != founder)]
        slot = (self._swarm.windows[near] == cell).argmax(axis=1)
        theirs = self._swarm.qs[near, slot]
        distance = jensen_shannon(theirs, self._swarm.qs[founder, 0])
        order = np.argsort(distance, kind="stable")[: LARGEST - 1]
        return [founder, *near[order[distance[order] <= SIMILAR]].tolist()]


def jensen_shannon(p: Floats, q: Floats) -> Floats:
    """Jensen-Shannon divergence in nats over the last axis, from 0 to ln 2 (Lin 1991, IEEE Trans. IT 37)."""
    return np.asarray(entropy((p + q) / 2) - (entropy(p) + entropy(np.broadcast_to(q, p.shape))) / 2)
