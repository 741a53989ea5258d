"""Updates of a tenant's agents: published through the outbox, followed over channels and the replayable feed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Literal, cast, get_args
from uuid import UUID

from freeagentics_persistence.cache.updates.buffers import DropNewest, DropOldest, LatestOfEach, UpdateBuffer
from freeagentics_persistence.cache.updates.hub import UpdateHub
from freeagentics_persistence.cache.updates.inbox import Inbox
from freeagentics_persistence.cache.updates.subscription import Subscription
from freeagentics_persistence.cache.updates.update_message import AgentUpdate, OnSeen, parse_position
from freeagentics_persistence.domain.events import EventType
from freeagentics_persistence.domain.validation import require_int, require_json, require_text, require_uuid
from freeagentics_persistence.errors import InvalidInput
from freeagentics_persistence.ports.outbox import Outbox
from freeagentics_persistence.ports.sealing import Sealer

MAX_AGENTS = 10_000
MAX_BUFFER = 1_000_000
MAX_BUFFER_BYTES = 1024 * 1024 * 1024
MAX_TYPE_LENGTH = 100

Overflow = Literal["error", "wait", "drop_oldest", "drop_newest", "latest"]
_BUFFERS = {"drop_oldest": DropOldest, "drop_newest": DropNewest, "latest": LatestOfEach}


class AllAgents(Enum):
    """Stands for every agent of the tenant."""

    ALL = "all"


ALL = AllAgents.ALL

__all__ = ["ALL", "AgentUpdate", "AllAgents", "RealTimeUpdates", "Subscription"]


class RealTimeUpdates:
    """Publishes and follows the updates of one tenant's agents.

    ``on_seen`` is told tenant, agent and version of every update that is handed over.
    """

    def __init__(
        self,
        tenant_id: UUID,
        hub: UpdateHub,
        outbox: Outbox,
        sealer: Sealer,
        on_seen: OnSeen,
    ) -> None:
        self._tenant_id = tenant_id
        self._hub = hub
        self._outbox = outbox
        self._sealer = sealer
        self._on_seen = on_seen

    async def publish_agent_update(
        self, agent_id: UUID, update_type: str, data: Mapping[str, Any], *, revision: UUID | None = None
    ) -> UUID:
        """Announce an update of an agent to its subscribers; the revision that names it.

        ``data`` is JSON of at most 64 KiB and is sealed. The update is stored before this returns, and reaches
        subscribers in the agent's order. ``update_type`` is yours to choose (1 to 100 characters), save for the
        store's own. ``revision`` is a UUIDv7 that makes a retry safe: it is published once. Raises InvalidInput,
        UnknownAgent, RevisionExpired, and what a write raises.
        """
        agent = require_uuid("agent_id", agent_id)
        require_text("update_type", update_type, limit=MAX_TYPE_LENGTH)
        if update_type in frozenset(EventType):
            raise InvalidInput("update_type", f"{update_type!r} is the store's own", "Choose another name.")
        if not isinstance(data, Mapping):
            raise InvalidInput("data", f"is a {type(data).__name__}", "Pass a mapping.")
        checked = cast("dict[str, Any]", require_json("data", data))
        return await self._outbox.publish_update(self._tenant_id, agent, update_type, checked, revision)

    def subscribe_to_agent_updates(
        self,
        agents: UUID | Sequence[UUID] | AllAgents,
        *,
        after: str | None = None,
        buffer: int = 1000,
        buffer_bytes: int = 64 * 1024 * 1024,
        overflow: Overflow = "error",
    ) -> Subscription:
        """Follow one agent, up to 10,000, or ALL of the tenant, each agent's updates in the order of its versions.

        Without ``after`` the subscription begins with what is published once it is entered; with the ``position`` of
        an update or a subscription it begins after that. Entering raises FeedGap where updates after the position
        are gone, or belong to an epoch before a restore, NewEpoch where the store's own has ended, StoreClosed,
        Overloaded where this store's subscriptions follow a million agents, and CacheUnavailable,
        AuthenticationFailed or TimedOut.

        ``buffer`` updates may wait for the caller, of at most ``buffer_bytes`` as messages; one always may, and after
        ``after`` and a pause a page of the feed, up to 1,000 updates or 4 MiB. Subscribers share what waits for
        several of them. Past that, overflow="error" raises SubscriberOverflow after the waiting ones; "wait" reads
        the rest from the feed, page by page as the caller takes it; "drop_oldest" and "drop_newest" drop and count
        in ``dropped``. overflow="latest" lets only the newest update of each agent wait, counts the others there,
        and raises SubscriberOverflow where too many agents wait. What a subscriber does, or does not, holds up no
        other. Raises InvalidInput.
        """
        ids = _require_agents(agents)
        require_int("buffer", buffer, low=1, high=MAX_BUFFER)
        require_int("buffer_bytes", buffer_bytes, low=1, high=MAX_BUFFER_BYTES)
        if overflow not in get_args(Overflow):
            raise InvalidInput("overflow", f"{overflow!r} is unknown", f"Use one of: {', '.join(get_args(Overflow))}.")
        waiting = _BUFFERS.get(overflow, UpdateBuffer)(buffer, buffer_bytes)
        start = None if after is None else parse_position("after", after)
        inbox = Inbox(self._hub, self._tenant_id, ids, waiting, wait=overflow == "wait")
        return Subscription(inbox, self._hub.epoch.id, self._sealer, self._on_seen, after=start)


def _require_agents(agents: object) -> frozenset[str]:
    """Ids as text, none for all."""
    if agents is ALL:
        return frozenset()
    if isinstance(agents, UUID):
        return frozenset({str(agents)})
    if not isinstance(agents, Sequence) or isinstance(agents, str | bytes):
        raise InvalidInput("agents", f"is a {type(agents).__name__}", "Pass a UUID, a list of them, or ALL.")
    if not 1 <= len(agents) <= MAX_AGENTS:
        raise InvalidInput("agents", f"has {len(agents):,} ids", f"Pass 1 to {MAX_AGENTS:,}, or ALL.")
    return frozenset(str(require_uuid("agents", agent)) for agent in agents)
