"""The cache as repositories and the relay use it. Everything in it is an envelope with its version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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


@dataclass(slots=True)
class StoredBeliefs:
    """What is stored of agents, by column: many objects for each agent would keep the garbage collector busy.

    Row i is of ``ids[i]``: its version, 0 where there is nothing; the 16 bytes of its revision; its envelope, None for
    an agent without beliefs. ``rejected`` says by row why what is there is nothing that could be read.
    """

    ids: Sequence[UUID]
    versions: list[int]
    revisions: list[bytes]
    envelopes: list[bytes | None]
    rejected: dict[int, EnvelopeRejected] = field(default_factory=dict)

    def missing(self) -> list[int]:
        """The rows where there is nothing."""
        return [row for row, version in enumerate(self.versions) if not version] if 0 in self.versions else []

    def entries(self) -> list[CacheEntry]:
        """The rows where there is something, as they are cached."""
        columns = zip(self.ids, self.versions, self.revisions, self.envelopes, strict=True)
        return [
            CacheEntry(agent_id, version, UUID(bytes=revision), envelope)
            for agent_id, version, revision, envelope in columns
            if version
        ]

    def chosen(self, rows: Sequence[int]) -> StoredBeliefs:
        """These rows, in this order."""
        return StoredBeliefs(
            [self.ids[row] for row in rows],
            [self.versions[row] for row in rows],
            [self.revisions[row] for row in rows],
            [self.envelopes[row] for row in rows],
            {place: self.rejected[row] for place, row in enumerate(rows) if row in self.rejected},
        )

    def fill(self, rows: Sequence[int], found: StoredBeliefs) -> None:
        """Put what was found elsewhere into these rows; what was rejected stays so."""
        for row, version, revision, envelope in zip(
            rows, found.versions, found.revisions, found.envelopes, strict=True
        ):
            self.versions[row], self.revisions[row], self.envelopes[row] = version, revision, envelope


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

    async def fetch_beliefs(self, tenant_id: UUID, ids: Sequence[UUID]) -> StoredBeliefs:
        """What is cached of each agent; rejected where what is there is no entry."""

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
