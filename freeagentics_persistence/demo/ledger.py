"""Carries what happens to the demo's coalitions into the store, and knows what the store must hold of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

from freeagentics_persistence.demo.concurrency import together
from freeagentics_persistence.domain.coalitions import Coalition as StoredCoalition
from freeagentics_persistence.domain.coalitions import CoalitionStatus

if TYPE_CHECKING:
    from freeagentics_persistence.assembly import TenantStore
    from freeagentics_persistence.demo.city import City
    from freeagentics_persistence.demo.coalitions import Coalition, Earning, Round

BUSINESS_MODEL = "demand_forecasting"
AT_ONCE = 8


@dataclass(eq=False)
class Entry:
    """One coalition as the store must hold it. ``earned``: when it was paid, how much, and how well it predicted.

    ``scores``: its members, and what each of them contributed.
    """

    id: UUID
    coalition: Coalition
    scores: dict[UUID, Decimal]
    dissolved: bool = False
    earned: list[tuple[datetime, float, float]] = field(default_factory=list)

    @property
    def status(self) -> CoalitionStatus:
        """Profitable once it has earned more than its founders put in."""
        if self.dissolved:
            return CoalitionStatus.DISSOLVED
        profitable = self.coalition.revenue > self.coalition.stake
        return CoalitionStatus.PROFITABLE if profitable else CoalitionStatus.ACTIVE

    @property
    def ranking(self) -> list[UUID]:
        """Members by what they contributed, the most first, then by id."""
        return sorted(self.scores, key=lambda member: (-self.scores[member], member))


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
        scores = {self._ids[number]: score for number, score in earning.scores.items()}
        await self._store.coalitions.update_contributions(entry.id, scores)
        entry.scores = scores

    async def _leave(self, coalition: Coalition, gone: Sequence[int]) -> None:
        entry, ids = self.entries[coalition.number], [self._ids[number] for number in gone]
        await self._store.coalitions.remove_members(entry.id, ids)
        for agent_id in ids:
            del entry.scores[agent_id]

    async def _dissolve(self, coalition: Coalition) -> None:
        entry = self.entries[coalition.number]
        await self._store.coalitions.dissolve_coalition(entry.id)
        entry.dissolved = True

    async def _form(self, coalition: Coalition) -> None:
        stored = await self._store.coalitions.save_coalition(
            StoredCoalition(
                name=f"forecasters {coalition.number + 1}",
                business_model=BUSINESS_MODEL,
                formation_criteria={
                    "seat": self._city.cells[coalition.seat],
                    "founder": str(self._ids[coalition.members[0]]),
                },
                initial_capital=coalition.stake,
            )
        )
        members = [self._ids[number] for number in coalition.members]
        await self._store.coalitions.add_members(stored.id, members)
        await self._store.coalitions.activate_coalition(stored.id)
        self.entries[coalition.number] = Entry(stored.id, coalition, dict.fromkeys(members, Decimal("0.00")))
