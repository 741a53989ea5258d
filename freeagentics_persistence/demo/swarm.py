"""A swarm of agents that walk a city and infer its demand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from freeagentics_persistence.demo.city import HERE, NOWHERE, World, draw
from freeagentics_persistence.demo.generative_model import GenerativeModel, entropy

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Swarm:
    """N agents with one generative model, stepped together.

    ``positions`` (N,): the number of the cell where each stands. ``qs`` (N, 7, K): what each believes of the
    cells in its window. ``free_energy`` (N,): F of the last observation in nats, zeros before the first.
    """

    def __init__(self, agents: int, world: World, model: GenerativeModel, rng: np.random.Generator) -> None:
        self.world = world
        self.model = model
        self._rng = rng
        self.positions: NDArray[np.int64] = rng.integers(len(world.city.cells), size=agents)
        self.qs = model.unseen(agents)
        self.free_energy = np.zeros(agents)

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def windows(self) -> NDArray[np.int64]:
        """(N, 7) numbers of the cells that each agent models, ``NOWHERE`` past the city's edge."""
        return self.world.city.window[self.positions]

    @property
    def entropy(self) -> NDArray[np.float64]:
        """(N,) entropy of each agent's beliefs in nats, the sum over its seven factors."""
        return np.asarray(entropy(self.qs).sum(axis=1))

    def step(self) -> None:
        """Act, let the world drift, look, and update what is believed."""
        windows = self.windows
        actions = draw(np.cumsum(self.model.policy(self.qs, windows != NOWHERE), axis=1), self._rng)
        self.positions = windows[np.arange(len(self)), actions]
        self.world.drift()
        prior = self.model.predict(self.qs, actions)
        self.qs, self.free_energy = self.model.infer_states(prior, self._look())

    def belief_in_truth(self) -> NDArray[np.float64]:
        """(N,) probability that each agent gives to the true level of the cell it stands on."""
        return np.asarray(self.qs[np.arange(len(self)), HERE, self.world.levels[self.positions]])

    def doubt_by_cell(self) -> NDArray[np.float64]:
        """(C,) how unsure those who stand on a cell are of it, NaN where nobody stands.

        The mean entropy of their beliefs relative to that of the prior D: 1 is to know no more than D.
        """
        cells = len(self.world.city.cells)
        count = np.bincount(self.positions, minlength=cells)
        total = np.bincount(self.positions, weights=entropy(self.qs[:, HERE]), minlength=cells)
        doubt = total / np.maximum(count, 1) / entropy(self.model.D)
        return np.where(count > 0, doubt, np.nan)

    def _look(self) -> NDArray[np.int64]:
        likelihood = self.model.A.T[self.world.levels[self.positions]]
        return draw(np.cumsum(likelihood, axis=1), self._rng)
