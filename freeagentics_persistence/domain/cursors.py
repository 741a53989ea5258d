"""Cursors of keyset pages: opaque text that names the last row of a page, and the query that it belongs to."""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from hashlib import blake2b
from uuid import UUID

from freeagentics_persistence.domain.validation import shown
from freeagentics_persistence.errors import InvalidInput

MAX_PAGE = 10_000
LOWEST_ID = UUID(int=0)
_FORMAT = 1
_LAYOUT = struct.Struct(">B8sI16s")  # format, query, distance, id


@dataclass(frozen=True, slots=True)
class Position:
    """The last row of a page in an order by ``distance``, then by id.

    ``distance`` is in grid steps, hundredths of a score where members are ranked, and 0 where the id is all.
    """

    id: UUID
    distance: int = 0


class Pages:
    """Cursors of one query: ``query`` is whatever decides which rows it finds, and in which order."""

    def __init__(self, *query: object) -> None:
        self._query = blake2b(repr(query).encode(), digest_size=8).digest()

    def cursor(self, position: Position) -> str:
        """The cursor that goes on after this row."""
        packed = _LAYOUT.pack(_FORMAT, self._query, position.distance, position.id.bytes)
        return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()

    def position(self, after: str | None) -> Position | None:
        """Where a cursor points. Raises InvalidInput for what is no cursor of this query."""
        if after is None:
            return None
        kind, query, distance, row = _unpacked(after)
        if kind != _FORMAT:
            raise InvalidInput("after", "is a cursor of another version", "Begin again without it.")
        if query != self._query:
            raise InvalidInput(
                "after", "belongs to another query", "Repeat the call that gave the page, with the same arguments."
            )
        return Position(UUID(bytes=row), distance)


def _unpacked(after: object) -> tuple[int, bytes, int, bytes]:
    try:
        if not isinstance(after, str):
            raise ValueError
        padded = after.encode() + b"=" * (-len(after) % 4)
        packed = base64.b64decode(padded, altchars=b"-_", validate=True)
        if base64.urlsafe_b64encode(packed) != padded:
            raise ValueError
        kind, query, distance, row = _LAYOUT.unpack(packed)
    except (ValueError, struct.error):
        raise InvalidInput("after", f"{shown(after)} is not a cursor", "Pass the `next` of a page.") from None
    return kind, query, distance, row
