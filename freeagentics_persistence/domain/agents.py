"""An agent and its personality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar
from uuid import UUID, uuid4

from freeagentics_persistence.domain.beliefs.beliefs import Beliefs, as_beliefs
from freeagentics_persistence.domain.locations import require_cell
from freeagentics_persistence.domain.validation import require_int, require_json, require_text, require_uuid, shown
from freeagentics_persistence.errors import InvalidInput

S = TypeVar("S", bound=StrEnum)


class AgentStatus(StrEnum):
    """Whether an agent takes part."""

    ACTIVE = "active"
    INACTIVE = "inactive"
    SUSPENDED = "suspended"


@dataclass(frozen=True, slots=True)
class Personality:
    """An agent's traits by name: numbers, text, booleans or nested JSON of them."""

    traits: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if type(self.traits) is not dict and not isinstance(self.traits, Mapping):
            raise InvalidInput("personality", f"is a {type(self.traits).__name__}", "Pass a mapping of traits.")
        object.__setattr__(self, "traits", require_json("personality", self.traits))

    def to_dict(self) -> dict[str, Any]:
        """The traits as a plain dict."""
        return dict(self.traits)

    @classmethod
    def from_dict(cls, traits: Mapping[str, Any]) -> Personality:
        """A personality of these traits."""
        return cls(traits)

    @staticmethod
    def from_stored(traits: Mapping[str, Any]) -> Personality:
        """The same of traits that were checked before they were stored."""
        personality: Any = _OpenPersonality()
        personality.traits = traits
        personality.__class__ = Personality
        return personality

    def __eq__(self, other: object) -> bool:
        return self.traits == other.traits if isinstance(other, Personality) else NotImplemented

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """One agent of a swarm. Change it with ``dataclasses.replace`` and save it.

    ``energy`` is 0 to 100, ``location`` an H3 cell as a string. Versions, revisions and times are given by the
    store: ``save_agent`` returns the agent with them. Raises InvalidInput where a field is out of its limits.

    >>> from dataclasses import replace
    >>> scout = Agent(name="scout", agent_type="explorer", beliefs=[0.5, 0.5], personality={"curiosity": 0.8})
    >>> scout.beliefs, scout.version, scout.personality.to_dict()
    (<Beliefs -: categorical float64[2]>, 0, {'curiosity': 0.8})
    >>> tired = replace(scout, energy=20, status="inactive")
    >>> tired.id == scout.id, tired.status
    (True, <AgentStatus.INACTIVE: 'inactive'>)
    >>> replace(scout, energy=101)
    Traceback (most recent call last):
    freeagentics_persistence.errors.InvalidInput: energy: 101 is out of range. Pass an int from 0 to 100.
    """

    name: str
    agent_type: str
    beliefs: Beliefs | None = None
    personality: Personality = field(default_factory=Personality)
    energy: int = 100
    location: str | None = None
    status: AgentStatus = AgentStatus.ACTIVE
    id: UUID = field(default_factory=uuid4)
    tenant_id: UUID | None = None
    version: int = 0
    revision: UUID | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    last_active_at: datetime | None = None

    def __post_init__(self) -> None:
        # what is of its type already is not put again, as most agents of a swarm are made of what is
        put = object.__setattr__
        if type(self.id) is not UUID:
            put(self, "id", require_uuid("id", self.id))
        require_text("name", self.name, limit=255)
        require_text("agent_type", self.agent_type, limit=50)
        energy = require_int("energy", self.energy, low=0, high=100)
        if energy is not self.energy:
            put(self, "energy", energy)
        if type(self.personality) is not Personality and isinstance(self.personality, Mapping):
            put(self, "personality", Personality(self.personality))
        if not isinstance(self.personality, Personality):
            raise InvalidInput("personality", f"is a {type(self.personality).__name__}", "Pass a Personality.")
        if self.beliefs is not None:
            put(self, "beliefs", as_beliefs(self.beliefs))
        if self.location is not None:
            put(self, "location", require_cell("location", self.location))
        if type(self.status) is not AgentStatus:
            put(self, "status", as_status(AgentStatus, self.status))

    @staticmethod
    def from_stored(
        *,
        name: str,
        agent_type: str,
        beliefs: Beliefs | None,
        personality: Personality,
        energy: int,
        location: str | None,
        status: AgentStatus,
        id: UUID,
        tenant_id: UUID | None,
        version: int,
        revision: UUID | None,
        created_at: datetime | None,
        updated_at: datetime | None,
        last_active_at: datetime | None,
    ) -> Agent:
        """The agent of all its fields, which were checked before they were stored."""
        agent: Any = _OpenAgent()
        agent.name = name
        agent.agent_type = agent_type
        agent.beliefs = beliefs
        agent.personality = personality
        agent.energy = energy
        agent.location = location
        agent.status = status
        agent.id = id
        agent.tenant_id = tenant_id
        agent.version = version
        agent.revision = revision
        agent.created_at = created_at
        agent.updated_at = updated_at
        agent.last_active_at = last_active_at
        agent.__class__ = Agent
        return agent


class _OpenPersonality:
    """A personality while it is filled in: a frozen one takes several times as long by object.__setattr__."""

    __slots__ = Personality.__slots__


class _OpenAgent:
    """An agent while it is filled in."""

    __slots__ = Agent.__slots__


def as_status(kind: type[S], value: object) -> S:
    """The status of that name."""
    try:
        return kind(value)  # type: ignore[arg-type]
    except ValueError:
        raise InvalidInput("status", f"{shown(value)} is unknown", f"Use one of: {', '.join(kind)}.") from None
