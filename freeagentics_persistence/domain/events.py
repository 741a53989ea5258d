"""Events: what changed, written in the transaction that made it true and carried to every sink."""

from __future__ import annotations

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


class Event(NamedTuple):
    """One event of the outbox. ``envelope`` is sealed; ``data`` and the scalars are readable by design.

    A tuple, as there are so many: the relay makes it of a row as the driver has it. Its ids are text, as messages,
    keys and points have them, and as the garbage collector follows every UUID.
    """

    round: int
    id: int
    tenant: str
    subject: str  # the agent or the coalition
    type: str
    version: int
    written_as: str  # the revision
    recorded_at: datetime
    envelope: bytes | None = None
    free_energy: float | None = None
    entropy: float | None = None
    max_belief: float | None = None
    variance: float | None = None
    data: dict[str, Any] | None = None

    @property
    def tenant_id(self) -> UUID:
        """Whose it is."""
        return UUID(self.tenant)

    @property
    def subject_id(self) -> UUID:
        """The agent or the coalition."""
        return UUID(self.subject)

    @property
    def revision(self) -> UUID:
        """The write that it tells of."""
        return UUID(self.written_as)

    @property
    def position(self) -> FeedPosition:
        """Where it stands in the feed."""
        return FeedPosition(self.round, self.id)

    def __repr__(self) -> str:
        return f"Event({self.position}, {self.type!r}, {self.subject}, version={self.version})"
