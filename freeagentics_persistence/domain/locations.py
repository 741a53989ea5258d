"""H3 cells: strings at the boundary, 64-bit integers where they are stored and compared."""

from __future__ import annotations

import re

import h3
import h3.api.basic_int as basic_int

from freeagentics_persistence.domain.validation import require_int, shown
from freeagentics_persistence.errors import InvalidInput

MAX_RADIUS = 50  # grid_disk(50) is 7,651 cells
_CELL_MODE = 1 << 59
_SPELLING = re.compile("[1-9a-fA-F][0-9a-fA-F]{14}")


def require_cell(field: str, value: object) -> str:
    """A valid H3 cell as its hexadecimal string, in the one spelling that h3 gives (lower case)."""
    # the parser of h3 also takes signs, blanks, underscores and 0x, and overflows beyond 64 bits
    if not isinstance(value, str) or not _SPELLING.fullmatch(value) or not h3.is_valid_cell(value):
        raise InvalidInput(
            field,
            f"{shown(value)} is not an H3 cell",
            "Make one with h3.latlng_to_cell(latitude, longitude, resolution).",
        )
    return value.lower()


def cell_to_int(cell: str) -> int:
    """The 64-bit integer of an H3 cell; always positive, as H3 leaves the top bit 0."""
    return int(h3.str_to_int(cell))


def int_to_cell(value: int) -> str:
    """The string of a 64-bit H3 index."""
    return str(h3.int_to_str(value))


def resolution_of(cell: str) -> int:
    """The resolution of a cell, 0 to 15."""
    return int(h3.get_resolution(cell))


def resolution_span(resolution: int) -> tuple[int, int]:
    """The integers [low, high) that all cells of a resolution lie in: its four bits come right after the mode's."""
    low = _CELL_MODE | resolution << 52
    return low, low + (1 << 52)


def disk(location: str, radius: int) -> list[int]:
    """All cells at most ``radius`` grid steps from ``location``, as integers."""
    return [cell for ring in rings(location, radius) for cell in ring]


def rings(location: str, radius: int) -> list[list[int]]:
    """The cells at each of 0 to ``radius`` grid steps from ``location``, as integers."""
    require_int("radius", radius, low=0, high=MAX_RADIUS)
    origin = cell_to_int(require_cell("location", location))
    return [basic_int.grid_ring(origin, steps) for steps in range(radius + 1)]
