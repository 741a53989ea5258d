"""Coalitions of agents and their members."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

from freeagentics_persistence.domain.agents import as_status
from freeagentics_persistence.domain.validation import require_json, require_money, require_text, require_uuid
from freeagentics_persistence.errors import InvalidInput, InvalidTransition

MAX_MEMBERS = 100_000  # of one coalition
MIN_MEMBERS = 2  # that it takes to become active


class CoalitionStatus(StrEnum):
    """Where a coalition is in its life."""

    FORMING = "forming"
    ACTIVE = "active"
    PROFITABLE = "profitable"
    DISSOLVED = "dissolved"


TRANSITIONS: Mapping[CoalitionStatus | None, tuple[CoalitionStatus, ...]] = {
    None: (CoalitionStatus.FORMING,),
    CoalitionStatus.FORMING: (CoalitionStatus.ACTIVE, CoalitionStatus.DISSOLVED),
    CoalitionStatus.ACTIVE: (CoalitionStatus.PROFITABLE, CoalitionStatus.DISSOLVED),
    CoalitionStatus.PROFITABLE: (CoalitionStatus.ACTIVE, CoalitionStatus.DISSOLVED),
    CoalitionStatus.DISSOLVED: (),
}
"""What a coalition may become from each status; None is one that is not stored yet."""
IN_BUSINESS = (CoalitionStatus.ACTIVE, CoalitionStatus.PROFITABLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coalition:
    """Agents that do business together. Money is exact, to the cent.

    ``total_revenue`` and ``dissolved_at`` are kept by the store (record_revenue, dissolve_coalition), as is
    ``version``; of ``status`` see ``next_status``. Raises InvalidInput where a field is out of its limits.

    >>> couriers = Coalition(name="couriers", business_model="delivery", initial_capital=Decimal("250.5"))
    >>> couriers.current_capital, couriers.status
    (Decimal('250.50'), <CoalitionStatus.FORMING: 'forming'>)
    >>> Coalition(name="couriers", business_model="delivery", initial_capital=0.1)
    Traceback (most recent call last):
    freeagentics_persistence.errors.InvalidInput: initial_capital: is a float, which is not exact. Pass ...
    """

    name: str
    business_model: str
    formation_criteria: Mapping[str, Any] = field(default_factory=dict)
    business_config: Mapping[str, Any] = field(default_factory=dict)
    initial_capital: Decimal = Decimal("0.00")
    current_capital: Decimal | None = None
    total_revenue: Decimal = Decimal("0.00")
    status: CoalitionStatus = CoalitionStatus.FORMING
    id: UUID = field(default_factory=uuid4)
    tenant_id: UUID | None = None
    version: int = 0
    created_at: datetime | None = None
    updated_at: datetime | None = None
    dissolved_at: datetime | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "id", require_uuid("id", self.id))
        require_text("name", self.name, limit=255)
        require_text("business_model", self.business_model, limit=100)
        for name in ("formation_criteria", "business_config"):
            if not isinstance(getattr(self, name), Mapping):
                raise InvalidInput(name, f"is a {type(getattr(self, name)).__name__}", "Pass a mapping.")
            put(self, name, require_json(name, getattr(self, name)))
        put(self, "initial_capital", require_money("initial_capital", self.initial_capital))
        current = self.initial_capital if self.current_capital is None else self.current_capital
        put(self, "current_capital", require_money("current_capital", current))
        put(self, "total_revenue", require_money("total_revenue", self.total_revenue))
        put(self, "status", as_status(CoalitionStatus, self.status))


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One agent's part in a coalition. ``contribution_score`` is 0 to 999.99, with two decimals."""

    coalition_id: UUID
    agent_id: UUID
    role: str = "member"
    contribution_score: Decimal = Decimal("0.00")
    joined_at: datetime | None = None


def next_status(
    coalition_id: UUID,
    present: CoalitionStatus | None,
    wanted: CoalitionStatus,
    *,
    members: int,
    initial_capital: Decimal,
    total_revenue: Decimal,
) -> CoalitionStatus:
    """The status of a coalition after a change that asks for ``wanted``; the one place that knows the rules.

    A new coalition is forming. It becomes active with at least MIN_MEMBERS members, and never forming again. One in
    business is profitable while it has earned more than it began with, else active: both are wanted alike, and the
    money decides. Dissolved is final. Raises InvalidTransition.

    >>> own, money = UUID(int=1), {"initial_capital": Decimal(10), "total_revenue": Decimal(10)}
    >>> next_status(own, CoalitionStatus.FORMING, CoalitionStatus.ACTIVE, members=2, **money)
    <CoalitionStatus.ACTIVE: 'active'>
    >>> next_status(own, CoalitionStatus.PROFITABLE, CoalitionStatus.PROFITABLE, members=2, **money)
    <CoalitionStatus.ACTIVE: 'active'>
    >>> next_status(own, CoalitionStatus.ACTIVE, CoalitionStatus.FORMING, members=2, **money)
    Traceback (most recent call last):
    freeagentics_persistence.errors.InvalidTransition: coalition ... is active and cannot become forming. From ...
    """
    allowed = TRANSITIONS[present]
    named = (coalition_id, "new" if present is None else present.value, wanted.value, tuple(map(str, allowed)))
    if wanted is not present and wanted not in allowed:
        remedy = "read it again, and ask for what it may become."
        if present is None:
            remedy = "save it as forming, add members, then call activate_coalition()."
        raise InvalidTransition(*named, remedy)
    if present is CoalitionStatus.FORMING and wanted is CoalitionStatus.ACTIVE and members < MIN_MEMBERS:
        why = f", as it has {members} of the {MIN_MEMBERS} members that this takes"
        raise InvalidTransition(*named, "add members first with add_members().", why)
    if wanted not in IN_BUSINESS:
        return wanted
    return CoalitionStatus.PROFITABLE if total_revenue > initial_capital else CoalitionStatus.ACTIVE
