"""Who follows what: the subscriptions of a store by tenant and agent, and the channels that this takes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from freeagentics_persistence.cache.keys import TenantKeys
from freeagentics_persistence.cache.updates.update_message import ReceivedMessage
from freeagentics_persistence.domain.events import FeedPosition
from freeagentics_persistence.errors import Overloaded

MAX_FOLLOWED = 1_000_000


class Listener(Protocol):
    """One subscription. ``agents`` are ids as text, none for all of the tenant. Its methods never wait."""

    tenant_id: UUID
    agents: frozenset[str]

    def offer(self, messages: Sequence[ReceivedMessage], size: int) -> None:
        """Updates of its agents, in order, of together so many bytes; some may have come before."""

    def fall_behind(self) -> None:
        """What comes next does not join what came: the feed has to be read."""

    def told_of_gap(self, gap: FeedPosition) -> None:
        """Redis lost updates up to here."""

    def fail(self, error: Exception) -> None:
        """It can be followed no longer."""


Listeners = dict[Listener, None]  # in the order in which they came


@dataclass(slots=True, eq=False)
class Place:
    """A channel, of one agent or, where that is "", of all: who follows it, and what they are to be offered next."""

    tenant: FollowedTenant
    agent: str
    listeners: Listeners = field(default_factory=dict)
    batch: list[ReceivedMessage] = field(default_factory=list)

    def offer(self, messages: Sequence[ReceivedMessage]) -> None:
        """Offer messages to all who follow it."""
        size = sum(message.size for message in messages)
        for listener in self.listeners:
            listener.offer(messages, size)


class FollowedTenant:
    """The places of one tenant. Up to ``position`` each listener was offered everything, unless it fell behind."""

    def __init__(self, epoch: UUID, tenant_id: UUID, position: FeedPosition) -> None:
        self.id = tenant_id
        self.position = position
        self.places: dict[str, Place] = {}
        self._keys = TenantKeys(epoch, tenant_id)

    def channel(self, agent: str) -> str:
        """Where updates of an agent come, of all where that is ""."""
        return self._keys.agent_channel(UUID(agent)) if agent else self._keys.all_channel

    @property
    def wanted(self) -> Collection[str]:
        """The agents whose updates are followed; none stand for all."""
        return () if "" in self.places else self.places.keys()

    def reached_by(self, place: Place) -> bool:
        """Whether what came there has come everywhere: an agent's channel comes before that of all."""
        return not place.agent or "" not in self.places

    def everyone(self) -> Iterable[Listener]:
        """All listeners, each once."""
        return dict.fromkeys(listener for place in self.places.values() for listener in place.listeners)


class Audience:
    """All listeners of a store; each counts as many as it follows agents, and all together at most ``limit``."""

    def __init__(self, epoch: UUID, limit: int = MAX_FOLLOWED) -> None:
        self._epoch = epoch
        self._limit = limit
        self._followed = 0
        self.tenants: dict[UUID, FollowedTenant] = {}
        self.channels: dict[str, Place] = {}

    def add(self, listener: Listener, position: FeedPosition) -> list[str]:
        """Count it in, and name the channels that are new. ``position`` is one that its tenant's feed had reached.

        Raises Overloaded.
        """
        count = len(listener.agents) or 1
        if self._followed + count > self._limit:
            raise Overloaded(
                f"the subscriptions of this store follow {self._followed:,} agents, each counted for each of them, and "
                f"{count:,} more are past {self._limit:,}. Close some, or subscribe to ALL."
            )
        self._followed += count
        tenant = self.tenants.get(listener.tenant_id)
        if tenant is None:
            tenant = FollowedTenant(self._epoch, listener.tenant_id, position)
            self.tenants[tenant.id] = tenant
        new = []
        for agent in listener.agents or ("",):
            place = tenant.places.get(agent)
            if place is None:
                place = tenant.places[agent] = Place(tenant, agent)
                channel = tenant.channel(agent)
                self.channels[channel] = place
                new.append(channel)
            place.listeners[listener] = None
        return new

    def remove(self, listener: Listener) -> list[str]:
        """Count it out, and name the channels that nobody follows any more."""
        self._followed -= len(listener.agents) or 1
        tenant = self.tenants[listener.tenant_id]
        left = []
        for agent in listener.agents or ("",):
            place = tenant.places[agent]
            del place.listeners[listener]
            if not place.listeners:
                del tenant.places[agent]
                channel = tenant.channel(agent)
                del self.channels[channel]
                left.append(channel)
        if not tenant.places:
            del self.tenants[tenant.id]
        return left
