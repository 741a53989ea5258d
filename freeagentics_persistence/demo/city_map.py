"""A map of the city's cells in coloured text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rich.style import Style
from rich.text import Text

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.console import Console

    from freeagentics_persistence.demo.city import City

# From sure (blue) through green and yellow to unsure (red).
COLOURS = ("#3b4cc0", "#5a78e4", "#7b9ff9", "#9fd0b4", "#c9d87a", "#f2c84b", "#ee8f3c", "#d1493f")
FIGURES_WIDTH = 42
LEGEND = "sure {} unsure of its demand"


class CityMap:
    """Draws each cell by how unsure those on it are; a dot where nobody stands."""

    def __init__(self, city: City, *, ascii_only: bool = False) -> None:
        self._cell, self._nobody = ("o", ".") if ascii_only else ("⬢", "·")
        self._height, self._width = (int(size) + 1 for size in city.grid.max(axis=0))
        self._number = {(int(row), int(column)): number for number, (row, column) in enumerate(city.grid)}

    @classmethod
    def that_fits(cls, city: City, console: Console) -> CityMap | None:
        """A map, or None where ``console`` is too small for it and the figures beside it."""
        drawn = cls(city, ascii_only=console.options.ascii_only)
        fits = drawn._height + 3 < console.height and drawn._width + FIGURES_WIDTH < console.width
        return drawn if fits else None

    def draw(self, doubt: NDArray[np.float64]) -> Text:
        """The map for (C,) doubts from 0 to 1, NaN where nobody stands, and its legend."""
        shade = np.clip(doubt * len(COLOURS), 0, len(COLOURS) - 1)
        text = Text(no_wrap=True)
        for row in range(self._height):
            for column in range(self._width):
                self._put(text, self._number.get((row, column)), shade)
            text.append("\n")
        before, after = LEGEND.split("{}")
        text.append(before, "dim")
        for colour in COLOURS:
            text.append(self._cell, Style(color=colour))
        return text.append(after, "dim")

    def _put(self, text: Text, number: int | None, shade: NDArray[np.float64]) -> None:
        if number is None:
            text.append(" ")
        elif np.isnan(shade[number]):
            text.append(self._nobody, "dim")
        else:
            text.append(self._cell, Style(color=COLOURS[int(shade[number])]))
