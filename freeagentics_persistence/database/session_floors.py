"""What this handle wrote or saw: no read at session consistency answers with anything older."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

MAX_FLOORS = 1_000_000


class SessionFloors:
    """The newest version seen of each agent and coalition, bounded.

    Past the bound the map is forgotten as a whole and ``complete`` turns False: whatever is not in it then must be
    read from PostgreSQL, as it may have been seen before.
    """

    def __init__(self, limit: int = MAX_FLOORS) -> None:
        self._limit = limit
        self._floors: dict[UUID, dict[int, int]] = {}  # by number, as a UUID is hashed in Python
        self._count = 0
        self._complete = True

    def saw(self, tenant_id: UUID, subject_id: UUID, version: int) -> None:
        """Note a version that was written or read."""
        self.saw_many(tenant_id, ((subject_id, version),))

    def saw_many(self, tenant_id: UUID, seen: Iterable[tuple[UUID, int]]) -> None:
        """Note versions that were written or read."""
        floors = self._floors.setdefault(tenant_id, {})
        known = len(floors)
        for subject_id, version in seen:
            number = subject_id.int
            if floors.get(number, 0) < version:
                floors[number] = version
        self._count += len(floors) - known
        if self._count > self._limit:
            self._floors.clear()
            self._count = 0
            self._complete = False

    def floors(self, tenant_id: UUID, ids: Sequence[UUID]) -> list[int | None]:
        """The oldest version of each that may be shown; None where only PostgreSQL can tell."""
        known, unseen = self._floors.get(tenant_id, {}), 0 if self._complete else None
        return [known.get(subject_id.int, unseen) for subject_id in ids]

    def floor(self, tenant_id: UUID, subject_id: UUID) -> int | None:
        """The oldest version that may be shown; None where only PostgreSQL can tell."""
        return self.floors(tenant_id, (subject_id,))[0]
