"""Events: what changed, written in the transaction that made it true and carried to every sink."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID


class EventType(StrEnum):
    """The changes the store itself announces; callers publish agent updates of types of their own."""

    AGENT_SAVED = "agent.saved"
    AGENT_DELETED = "agent.deleted"
    BELIEFS_UPDATED = "beliefs.updated"
    BELIEFS_MEASURED = "beliefs.measured"
    COALITION_SAVED = "coalition.saved"
    COALITION_MEMBERS = "coalition.members"
    COALITION_REVENUE = "coalition.revenue"
    COALITION_DISSOLVED = "coalition.dissolved"
    COALITION_MEASURED = "coalition.measured"


class FeedPosition(NamedTuple):
    """Where an event stands in the feed: events are delivered in the order of (round, id).

    A round is what was committed between two looks at the outbox; rounds count microseconds since 1970, so that they
    rise for ever. ``id`` orders the events of one round, and one agent's events by version.
    """

    round: int
    id: int

    def __str__(self) -> str:
        return f"{self.round}-{self.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event of the outbox. ``envelope`` is sealed; ``data`` and the scalars are readable by design."""

    position: FeedPosition
    tenant_id: UUID
    subject_id: UUID  # the agent or the coalition
    type: str
    version: int
    revision: UUID
    recorded_at: datetime
    envelope: bytes | None = field(default=None, repr=False)
    free_energy: float | None = None
    entropy: float | None = None
    max_belief: float | None = None
    variance: float | None = None
    data: dict[str, Any] | None = None
