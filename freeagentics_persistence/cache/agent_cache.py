"""The cache as callers use it: beliefs sealed before they leave the process, and who is in a coalition."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from uuid import UUID

from freeagentics_persistence.domain.beliefs.beliefs import Beliefs, BeliefsLike, as_beliefs
from freeagentics_persistence.domain.coalitions import MAX_MEMBERS
from freeagentics_persistence.domain.epochs import Epoch
from freeagentics_persistence.domain.validation import MAX_VERSION, require_int, require_uuid
from freeagentics_persistence.errors import InvalidInput, Unavailable
from freeagentics_persistence.ports.cache import BeliefCache, CacheEntry, Membership, MembershipCache, MembershipSource
from freeagentics_persistence.ports.sealing import Kind, Sealer, require_opened

MAX_TTL_SECONDS = 30 * 24 * 3600
_log = logging.getLogger(__name__)


class AgentCache:
    """Cached beliefs and memberships of one tenant.

    Repositories keep the cache themselves; this is for callers that cache on their own account. Nothing cached is
    ever replaced by anything of the same or an older version. ``coalition_floor`` tells the version of a coalition
    below which an answer would be older than what this process wrote or saw, None where only PostgreSQL can tell.
    All methods raise NewEpoch or StoreClosed once ``epoch`` has ended.
    """

    def __init__(
        self,
        tenant_id: UUID,
        beliefs: BeliefCache,
        members: MembershipCache,
        sealer: Sealer,
        source: MembershipSource,
        epoch: Epoch,
        *,
        coalition_floor: Callable[[UUID], int | None],
    ) -> None:
        self._tenant_id = tenant_id
        self._beliefs = beliefs
        self._members = members
        self._sealer = sealer
        self._source = source
        self._epoch = epoch
        self._coalition_floor = coalition_floor

    async def cache_agent_beliefs(
        self, agent_id: UUID, beliefs: BeliefsLike, ttl: int | None = None, *, version: int, revision: UUID
    ) -> None:
        """Seal beliefs and cache them for ``ttl`` seconds (REDIS_BELIEF_TTL where None, plus up to 10 %).

        ``version`` and ``revision`` are those of the agent when it had these beliefs. Raises InvalidInput,
        errors.Unavailable (CacheUnavailable, AuthenticationFailed, TimedOut, Overloaded), KeyUnavailable.
        """
        self._epoch.require()
        agent = require_uuid("agent_id", agent_id)
        named = require_uuid("revision", revision)
        require_int("version", version, low=1, high=MAX_VERSION)
        life = require_ttl(ttl)
        payload = as_beliefs(beliefs).to_bytes()
        sealed = await self._sealer.seal_many(self._tenant_id, Kind.BELIEFS, [agent], [named], [payload])
        await self._beliefs.put_beliefs(self._tenant_id, [CacheEntry(agent, version, named, sealed[0])], ttl=life)

    async def get_cached_beliefs(self, agent_id: UUID) -> Beliefs | None:
        """The cached beliefs; None where none are cached, or the cached agent has none.

        They may be behind the database: ``agents.get_beliefs`` is what keeps a promise of consistency. Raises
        errors.Unavailable, EnvelopeRejected, KeyUnavailable.
        """
        agent = require_uuid("agent_id", agent_id)
        found = await self._beliefs.fetch_beliefs(self._tenant_id, [agent])
        if found.rejected:
            raise found.rejected[0]
        if found.envelopes[0] is None:
            return None
        opened = await self._sealer.open_each(
            self._tenant_id, Kind.BELIEFS, found.ids, found.revisions, found.envelopes
        )
        payload = require_opened(opened[0])
        return None if payload is None else Beliefs.from_bytes(payload)

    async def cache_coalition_members(
        self, coalition_id: UUID, member_ids: Collection[UUID], ttl: int | None = None, *, version: int
    ) -> None:
        """Cache all members of a coalition as of its ``version``, for ``ttl`` seconds (REDIS_MEMBER_TTL where None).

        Raises InvalidInput, errors.Unavailable.
        """
        self._epoch.require()
        coalition = require_uuid("coalition_id", coalition_id)
        require_int("version", version, low=1, high=MAX_VERSION)
        life = require_ttl(ttl)
        if isinstance(member_ids, str | bytes) or not isinstance(member_ids, Collection):
            raise InvalidInput("member_ids", f"is a {type(member_ids).__name__}", "Pass a list of UUIDs.")
        if len(member_ids) > MAX_MEMBERS:
            raise InvalidInput("member_ids", f"has {len(member_ids):,} ids", f"At most {MAX_MEMBERS:,} are cached.")
        members = frozenset(require_uuid("member_ids", member) for member in member_ids)
        await self._members.put_members(self._tenant_id, Membership(coalition, version, members), ttl=life)

    async def is_coalition_member(self, coalition_id: UUID, agent_id: UUID) -> bool:
        """Whether the agent is a member. A miss, or a Redis that does not answer, asks PostgreSQL.

        Raises UnknownCoalition, and what reading PostgreSQL raises.
        """
        coalition = require_uuid("coalition_id", coalition_id)
        agent = require_uuid("agent_id", agent_id)
        floor = self._coalition_floor(coalition)
        try:
            known = None
            if floor is not None:
                known = await self._members.is_member(self._tenant_id, coalition, agent, at_least=floor)
        except Unavailable as error:
            _log.warning("members of coalition %s are read from PostgreSQL: %s", coalition, error)
            return agent in (await self._source.load_membership(coalition)).members
        if known is not None:
            return known
        membership = await self._source.load_membership(coalition)
        try:
            await self._members.put_members(self._tenant_id, membership)
        except Unavailable as error:
            _log.warning("members of coalition %s were not cached: %s", coalition, error)
        return agent in membership.members


def require_ttl(ttl: int | None) -> int | None:
    """Seconds to live, None for the default."""
    return None if ttl is None else require_int("ttl", ttl, low=1, high=MAX_TTL_SECONDS)
