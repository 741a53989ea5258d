"""The update message, as channels and the feed carry it: JSON, described by docs/update-message.schema.json."""

from __future__ import annotations

import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import orjson

from freeagentics_persistence.domain.beliefs.beliefs import Beliefs
from freeagentics_persistence.domain.events import Event, EventType, FeedPosition
from freeagentics_persistence.errors import InvalidInput, UpdatesError
from freeagentics_persistence.ports.sealing import Kind, Sealer

WITH_BELIEFS = frozenset({EventType.AGENT_SAVED, EventType.AGENT_DELETED, EventType.BELIEFS_UPDATED})
NOT_UPDATES = frozenset(EventType) - WITH_BELIEFS  # measurements, and what concerns coalitions
OnSeen = Callable[[UUID, UUID, int], None]
_SCALARS = ("free_energy", "belief_entropy", "max_belief", "belief_variance")  # in the order of Event


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentUpdate:
    """One update of an agent.

    ``type`` is ``agent.saved``, ``agent.deleted``, ``beliefs.updated``, or what publish_agent_update was given.
    ``data`` is the readable part: free_energy, belief_entropy (nats), max_belief and belief_variance where the update
    has them, and for ``agent.saved`` its name, type, status, energy and location. ``position`` is where it stands in
    the feed; subscribe with ``after=position`` to go on from here.
    """

    agent_id: UUID
    tenant_id: UUID
    type: str
    epoch: UUID
    version: int
    revision: UUID
    timestamp: datetime
    position: str
    readable: Mapping[str, Any] | None = field(repr=False)
    envelope: bytes | None = field(repr=False)
    sealer: Sealer = field(repr=False, compare=False)

    @property
    def data(self) -> dict[str, Any] | None:
        """The readable part, in a dict of the caller's own, as all subscribers of a store share the update."""
        return None if self.readable is None else dict(self.readable)

    async def beliefs(self) -> Beliefs | None:
        """The agent's beliefs at this version; None where the update carries none.

        Raises EnvelopeRejected, KeyUnavailable.
        """
        payload = await self._open(Kind.BELIEFS) if self.type in WITH_BELIEFS else None
        return None if payload is None else Beliefs.from_bytes(payload)

    async def sealed_data(self) -> dict[str, Any] | None:
        """What publish_agent_update was given; None for updates of the store itself.

        Raises EnvelopeRejected, KeyUnavailable.
        """
        payload = None if self.type in WITH_BELIEFS else await self._open(Kind.UPDATE_DATA)
        return None if payload is None else orjson.loads(payload)

    async def _open(self, kind: Kind) -> bytes | None:
        subjects, revisions = [self.agent_id], [self.revision]
        return (await self.sealer.open_many(self.tenant_id, kind, subjects, revisions, [self.envelope]))[0]


def encode_update(event: Event, epoch: str) -> bytes:
    """The message of an event. The envelope, as most of it, is put behind the rest without being looked through."""
    round_, number, tenant, subject, type_, version, revision, recorded_at, envelope, *scalars, more = event
    data: dict[str, Any] = {} if more is None else dict(more)
    for name, value in zip(_SCALARS, scalars, strict=True):
        if value is not None:
            data[name] = value
    message = {
        "agent_id": subject,
        "tenant_id": tenant,
        "type": type_,
        "epoch": epoch,
        "version": version,
        "revision": revision,
        "timestamp": recorded_at if recorded_at.tzinfo is UTC else recorded_at.astimezone(UTC),
        "position": f"{epoch}/{round_}-{number}",
        "data": data or None,
    }
    head = orjson.dumps(message, option=orjson.OPT_UTC_Z)[:-1]
    if envelope is None:
        return head + b',"envelope":null}'
    return b"".join((head, b',"envelope":"', binascii.b2a_base64(envelope, newline=False), b'"}'))


class ReceivedMessage:
    """A message read as far as its place and its agent; ``size`` in bytes. Subscribers share it, and its update."""

    __slots__ = ("_fields", "agent_id", "position", "size", "update")

    def __init__(self, position: FeedPosition, agent_id: str, fields: Mapping[str, Any], size: int) -> None:
        self.position = position
        self.agent_id = agent_id
        self.size = size
        self.update: AgentUpdate | None = None
        self._fields = fields

    def decode(self, sealer: Sealer, on_seen: OnSeen) -> AgentUpdate:
        """Make ``update``, and tell ``on_seen`` of it. Raises UpdatesError where the message is malformed."""
        update = self.update = _decode_update(self._fields, sealer)
        self._fields = {}
        on_seen(update.tenant_id, update.agent_id, update.version)
        return update


def read_message(message: bytes, epoch: UUID, tenant_id: UUID) -> ReceivedMessage:
    """Read a message of this epoch and tenant. Raises UpdatesError for anything else."""
    try:
        fields = orjson.loads(message)
        if (fields["tenant_id"], fields["epoch"]) != _texts(tenant_id, epoch):
            raise _malformed("it belongs to another tenant or epoch")
        fields["tenant_id"], fields["epoch"] = tenant_id, epoch
        position = _parse_place(fields["position"].partition("/")[2])
        return ReceivedMessage(position, fields["agent_id"], fields, len(message))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _malformed("it is not an update") from error


def _decode_update(fields: Mapping[str, Any], sealer: Sealer) -> AgentUpdate:
    try:
        envelope = fields["envelope"]
        return AgentUpdate(
            agent_id=UUID(fields["agent_id"]),
            tenant_id=fields["tenant_id"],
            type=str(fields["type"]),
            epoch=fields["epoch"],
            version=int(fields["version"]),
            revision=UUID(fields["revision"]),
            timestamp=datetime.fromisoformat(fields["timestamp"]),
            position=fields["position"],
            readable=fields["data"],
            envelope=None if envelope is None else binascii.a2b_base64(envelope, strict_mode=True),
            sealer=sealer,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _malformed("it is not an update") from error


def format_position(epoch: UUID, position: FeedPosition) -> str:
    """A position as callers keep it: ``<epoch>/<round>-<id>``."""
    return f"{epoch}/{position.round}-{position.id}"


def parse_position(name: str, text: object) -> tuple[UUID, FeedPosition]:
    """Epoch and position of such text. Raises InvalidInput that names the field."""
    try:
        epoch, _, place = str(text).partition("/")
        return UUID(epoch), _parse_place(place)
    except ValueError:
        raise InvalidInput(name, f"{text!r} is not a feed position", "Pass an update's position as it came.") from None


def _parse_place(text: str) -> FeedPosition:
    round_, _, number = text.partition("-")
    if not (round_.isascii() and round_.isdigit() and number.isascii() and number.isdigit()):
        raise ValueError(text)
    return FeedPosition(int(round_), int(number))


@lru_cache(maxsize=1000)
def _texts(tenant_id: UUID, epoch: UUID) -> tuple[str, str]:
    return str(tenant_id), str(epoch)


def _malformed(problem: str) -> UpdatesError:
    return UpdatesError(
        f"a message on the update channels was refused: {problem}. Find what else publishes on this Redis, and "
        "allow the channels `fa:*` to this package alone."
    )
