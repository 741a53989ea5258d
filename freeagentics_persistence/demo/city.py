"""A city as H3 cells, and the demand that drifts on them.

The city is a disk of resolution-9 cells (about 0.1 km2 each). Every cell has a hidden *demand level*; nobody
sees it, agents only see noisy signs of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import h3
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

AMSTERDAM = (52.37, 4.90)
RESOLUTION = 9
HERE = 0
NOWHERE = -1

# The six neighbours of a cell in H3's local IJ coordinates, counter-clockwise from the east.
DIRECTIONS = ((0, -1), (1, 0), (1, 1), (0, 1), (-1, 0), (-1, -1))
# What an agent can see from where it stands: its own cell, then the six around it.
WINDOW = ((0, 0), *DIRECTIONS)


@dataclass(frozen=True, eq=False)
class City:
    """The cells of a city, numbered from 0, and how they touch.

    ``cells``: the C H3 cells. ``window``: (C, 7) numbers of the cell itself and its six neighbours in the
    order of ``WINDOW``, ``NOWHERE`` past the city's edge. ``grid``: (C, 2) row (north is 0) and column of each
    cell on a text map where neighbours in a row are two columns apart.
    """

    cells: tuple[str, ...]
    window: NDArray[np.int64]
    grid: NDArray[np.int64]

    @classmethod
    def around(cls, latitude: float, longitude: float, *, radius: int) -> City:
        """The disk of cells within ``radius`` steps of a place (degrees), ordered by cell."""
        centre = h3.latlng_to_cell(latitude, longitude, RESOLUTION)
        cells = tuple(sorted(h3.grid_disk(centre, radius)))
        coordinates = [h3.cell_to_local_ij(centre, cell) for cell in cells]
        number = {ij: index for index, ij in enumerate(coordinates)}
        window = [[number.get((i + di, j + dj), NOWHERE) for di, dj in WINDOW] for i, j in coordinates]
        grid = np.array([(-i, i - 2 * j) for i, j in coordinates], dtype=np.int64)
        return cls(cells, np.array(window, dtype=np.int64), grid - grid.min(axis=0))

    @classmethod
    def amsterdam(cls, agents: int) -> City:
        """Amsterdam, large enough that about two agents share a cell, with at least 19 cells."""
        radius = 2
        while 2 * (3 * radius * (radius + 1) + 1) < agents:
            radius += 1
        return cls.around(*AMSTERDAM, radius=radius)


class World:
    """The hidden demand on every cell: one Markov chain a cell, independent of the others.

    ``levels``: (C,) integers in 0..K-1. ``transition``: (K, K), column s is the distribution of the level that
    follows level s. The first levels are drawn from ``initial`` (K,).
    """

    def __init__(
        self,
        city: City,
        transition: NDArray[np.float64],
        initial: NDArray[np.float64],
        rng: np.random.Generator,
    ) -> None:
        self.city = city
        self._cumulative = np.cumsum(transition, axis=0).T
        self._rng = rng
        start = np.broadcast_to(np.cumsum(initial), (len(city.cells), len(initial)))
        self.levels: NDArray[np.int64] = draw(start, rng)

    def drift(self) -> None:
        """Let one step of time pass."""
        self.levels = draw(self._cumulative[self.levels], self._rng)


def draw(cumulative: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """One sample from each row of (N, K) cumulative probabilities: (N,) integers in 0..K-1.

    A last value a rounding below one never yields K.
    """
    u = rng.random((len(cumulative), 1)) * cumulative[:, -1:]
    return np.asarray((u >= cumulative).sum(axis=1), dtype=np.int64)
