"""Carries what happens to the demo's coalitions into the store, and knows what the store must hold of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

from freeagentics_persistence.demo.concurrency import together
from freeagentics_persistence.domain.coalitions import Coalition as StoredCoalition
from freeagentics_persistence.domain.coalitions import CoalitionStatus

if TYPE_CHECKING:
    from freeagentics_persistence.demo.city import City
    from freeagentics_persistence.demo.coalitions import Coalition, Earning, Round
    from freeagentics_persistence.persistence import TenantStore

BUSINESS_MODEL = "demand_forecasting"
AT_ONCE = 8


@dataclass(eq=False)
class Entry:
    """One coalition as the store must hold it. ``earned``: when it was paid, how much, and how well it predicted."""

    id: UUID
    coalition: Coalition
    members: set[UUID]
    status: CoalitionStatus = CoalitionStatus.ACTIVE
    earned: list[tuple[datetime, float, float]] = field(default_factory=list)


class Ledger:
    """The coalitions of a run by their number."""

    def __init__(self, store: TenantStore, city: City, ids: Sequence[UUID]) -> None:
        self._store = store
        self._city = city
        self._ids = ids
        self.entries: dict[int, Entry] = {}

    async def store_round(self, played: Round) -> None:
        """Store a round: earnings, those who left, what dissolved and what formed, several coalitions at once."""
        await together(AT_ONCE, [partial(self._earn, earning) for earning in played.earnings])
        await together(AT_ONCE, [partial(self._leave, coalition, gone) for coalition, gone in played.left])
        await together(AT_ONCE, [partial(self._dissolve, coalition) for coalition in played.dissolved])
        await together(AT_ONCE, [partial(self._form, coalition) for coalition in played.formed])

    async def _earn(self, earning: Earning) -> None:
        entry = self.entries[earning.coalition.number]
        stored = await self._store.coalitions.record_revenue(entry.id, earning.revenue, efficiency=earning.efficiency)
        if stored.updated_at is not None:
            entry.earned.append((stored.updated_at, float(earning.revenue), earning.efficiency))

    async def _leave(self, coalition: Coalition, gone: Sequence[int]) -> None:
        entry, ids = self.entries[coalition.number], [self._ids[number] for number in gone]
        await self._store.coalitions.remove_members(entry.id, ids)
        entry.members -= set(ids)

    async def _dissolve(self, coalition: Coalition) -> None:
        entry = self.entries[coalition.number]
        await self._store.coalitions.dissolve_coalition(entry.id)
        entry.status = CoalitionStatus.DISSOLVED

    async def _form(self, coalition: Coalition) -> None:
        stored = await self._store.coalitions.save_coalition(
            StoredCoalition(
                name=f"forecasters {coalition.number + 1}",
                business_model=BUSINESS_MODEL,
                formation_criteria={
                    "seat": self._city.cells[coalition.seat],
                    "founder": str(self._ids[coalition.members[0]]),
                },
                status=CoalitionStatus.ACTIVE,
            )
        )
        members = [self._ids[number] for number in coalition.members]
        await self._store.coalitions.add_members(stored.id, members)
        self.entries[coalition.number] = Entry(stored.id, coalition, set(members))
