"""The cache as repositories and the relay use it. Everything in it is an envelope with its version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID

from freeagentics_persistence.domain.events import Event
from freeagentics_persistence.errors import EnvelopeRejected


class CacheEntry(NamedTuple):
    """The beliefs of one agent as cached: ``envelope`` is None for an agent without beliefs, or a deleted one."""

    agent_id: UUID
    version: int
    revision: UUID
    envelope: bytes | None


class BeliefCache(Protocol):
    """Cached beliefs of agents. Every method raises CacheUnavailable where Redis cannot answer in time.

    No put replaces an entry of the same or a newer version. Keys carry tenant and epoch.
    """

    async def put_beliefs(
        self,
        tenant_id: UUID,
        entries: Sequence[CacheEntry],
        *,
        ttl: int | None = None,
        written_at: datetime | None = None,
    ) -> None:
        """Put each entry unless the cached one is as new. ``ttl`` in seconds, the default where None.

        ``written_at``: when PostgreSQL recorded the first of them, for entries that this process has just written. It
        keeps a put that comes late from being the first after newer changes have been delivered, see RedisCache.
        """

    async def repair_beliefs(self, tenant_id: UUID, changes: Sequence[Event]) -> int:
        """Replace cached entries that are older than these changes, of which no two are of one agent.

        Absent entries stay absent. How many were replaced.
        """

    async def fetch_beliefs(self, tenant_id: UUID, ids: Sequence[UUID]) -> list[CacheEntry | EnvelopeRejected | None]:
        """The cached entry of each agent, None where there is none, an error where what is there is no entry."""

    async def take_leases(self, tenant_id: UUID, ids: Sequence[UUID]) -> dict[UUID, bytes]:
        """A lease for each agent of which nobody else holds one; take it before reading what is to be filled in.

        It ends after some seconds, and whenever a newer version is put or delivered.
        """

    async def fill_beliefs(self, tenant_id: UUID, entries: Sequence[CacheEntry], leases: Mapping[UUID, bytes]) -> int:
        """Put what was read under leases, where these still hold; they are given back. How many were put."""

    async def watermark(self) -> datetime | None:
        """Up to which moment of PostgreSQL's clock all commits have reached this cache; None where unknown."""

    async def set_watermark(self, moment: datetime) -> None:
        """Say that all commits up to ``moment`` have reached this cache."""


@dataclass(frozen=True, slots=True)
class Membership:
    """All members of a coalition at one version of it."""

    coalition_id: UUID
    version: int
    members: frozenset[UUID]


class MembershipCache(Protocol):
    """Cached membership of coalitions. Raises CacheUnavailable."""

    async def put_members(self, tenant_id: UUID, membership: Membership, *, ttl: int | None = None) -> None:
        """Put the members unless the cached version is as new."""

    async def drop_members(self, tenant_id: UUID, coalition_id: UUID, version: int) -> None:
        """Forget members cached before ``version``, and refuse older puts from now on."""

    async def is_member(self, tenant_id: UUID, coalition_id: UUID, agent_id: UUID, *, at_least: int) -> bool | None:
        """Whether the agent is a member; None where nothing of version ``at_least`` or newer is cached."""


class MembershipSource(Protocol):
    """Where a tenant's membership is known for sure: PostgreSQL."""

    async def load_membership(self, coalition_id: UUID) -> Membership:
        """The members now. Raises UnknownCoalition."""
