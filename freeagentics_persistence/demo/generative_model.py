"""A discrete generative model of demand, and exact inference with it for a whole swarm at once.

Symbols are those of Da Costa et al. (2020), "Active inference on discrete state-spaces: a synthesis", J. Math.
Psychol. 99, and of Parr, Pezzulo & Friston (2022), "Active Inference", chapters 4 and 7:

- ``A`` (K, K): likelihood P(o | s), one column a state.
- ``B`` (K, K): transition P(s' | s) of a cell's level, one column a state. The action does not change levels;
  it moves the window of seven cells that the agent models (``SHIFT``), the action-dependent part of B.
- ``C`` (K,): log preferences ln P(o | C) over observations, in nats.
- ``D`` (K,): prior over the level of a cell that has just come into view, the stationary distribution of B.

The hidden state of an agent is the level of each cell in its window: seven factors of K levels. Levels of
different cells are independent a priori, and one step shows a sign of one known cell, so the exact posterior
stays a product of seven factors. It is computed exactly (Bayesian filtering), with no variational gap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import log_softmax, softmax, xlogy

from freeagentics_persistence.demo.city import HERE, WINDOW

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

FACTORS = len(WINDOW)
ACTIONS = len(WINDOW)
LEVELS = 5
UNSEEN = -1


def _shift_table() -> Integers:
    """(actions, factors): which factor of the old window each factor of the new one was, or ``UNSEEN``."""
    old = {offset: factor for factor, offset in enumerate(WINDOW)}
    return np.array([[old.get((mi + i, mj + j), UNSEEN) for i, j in WINDOW] for mi, mj in WINDOW])


SHIFT = _shift_table()


@dataclass(frozen=True, eq=False)
class GenerativeModel:
    """What every agent of the demo believes about how demand moves, shows and matters.

    ``gamma``: precision (inverse temperature) of the choice between actions.
    """

    A: Floats
    B: Floats
    C: Floats
    D: Floats
    gamma: float

    @classmethod
    def of_demand(cls, *, noise: float = 0.3, drift: float = 0.03, gamma: float = 4.0) -> GenerativeModel:
        """A sign is off by about one level with probability ``noise``; a level moves with ``drift`` per step.

        Levels fall a little more often than they rise, so that high demand is rare; agents prefer to see it.
        """
        levels = np.arange(LEVELS)
        distance = np.abs(levels[:, None] - levels[None, :])
        likelihood = np.where(distance == 0, 1 - noise, (noise / 2) ** distance)
        falls, rises = np.full(LEVELS - 1, 1.4 * drift), np.full(LEVELS - 1, 0.6 * drift)
        transition = np.diag(falls, k=1) + np.diag(rises, k=-1)
        transition += np.diag(1 - transition.sum(axis=0))
        return cls(
            A=likelihood / likelihood.sum(axis=0),
            B=transition,
            C=log_softmax(0.6 * levels),
            D=stationary(transition),
            gamma=gamma,
        )

    def unseen(self, agents: int) -> Floats:
        """Beliefs (N, 7, K) of agents that have seen nothing yet: D for every cell."""
        return np.tile(self.D, (agents, FACTORS, 1))

    def predict(self, qs: Floats, actions: Integers) -> Floats:
        """Prior of the next step, Q(s') = B(u) Q(s): the window moves by the action (N,), then levels drift.

        ``qs`` and the result are (N, 7, K). Cells that come into view start from D.
        """
        source = SHIFT[actions]
        moved = np.take_along_axis(qs, np.maximum(source, 0)[:, :, None], axis=1)
        moved = np.where((source == UNSEEN)[:, :, None], self.D, moved)
        return np.asarray(moved @ self.B.T)

    def infer_states(self, prior: Floats, observations: Integers) -> tuple[Floats, Floats]:
        """Exact posterior Q(s) = P(s | o) after a sign (N,) of the agent's own cell, and its free energy.

        Only the factor of the observed cell changes (Bayes' rule). Returns ``qs`` (N, 7, K) and F (N,).
        """
        joint = self.A[observations] * prior[:, HERE]
        posterior = joint / joint.sum(axis=1, keepdims=True)
        qs = prior.copy()
        qs[:, HERE] = posterior
        return qs, variational_free_energy(posterior, prior[:, HERE], self.A[observations])

    def expected_free_energy(self, qs: Floats) -> Floats:
        """G(u) (N, 7) in nats of going to (or staying on) each cell of the window and looking there.

        G = - E_Q(o|u)[ln P(o | C)] - I(s; o | u): minus pragmatic value, minus information gain, one step
        deep (Parr et al. 2022, eq. 2.6; as risk plus ambiguity in Da Costa et al. 2020).
        """
        states = qs @ self.B.T
        signs = states @ self.A.T
        ambiguity = states @ entropy(self.A.T)
        return np.asarray(-(signs @ self.C) - (entropy(signs) - ambiguity))

    def policy(self, qs: Floats, possible: NDArray[np.bool_]) -> Floats:
        """Q(u) = softmax(-gamma G) (N, 7) over the actions that are ``possible`` (N, 7)."""
        score = np.where(possible, -self.gamma * self.expected_free_energy(qs), -np.inf)
        return np.asarray(softmax(score, axis=1))


def variational_free_energy(q: Floats, prior: Floats, likelihood: Floats) -> Floats:
    """F = E_q[ln q(s) - ln p(o, s)] in nats, over the last axis (Parr et al. 2022, eq. 2.5).

    ``likelihood`` is P(o | s) of what was observed. With the exact posterior, F = -ln p(o).
    """
    return np.asarray((xlogy(q, q) - xlogy(q, prior * likelihood)).sum(axis=-1))


def entropy(p: Floats) -> Floats:
    """Shannon entropy in nats over the last axis; 0 ln 0 is 0."""
    return np.asarray(-xlogy(p, p).sum(axis=-1))


def stationary(transition: Floats) -> Floats:
    """The distribution that a birth-death chain (one column a state) leaves unchanged, by detailed balance."""
    rise, fall = np.diag(transition, k=-1), np.diag(transition, k=1)
    weight = np.concatenate(([1.0], np.cumprod(rise / fall)))
    return np.asarray(weight / weight.sum())
