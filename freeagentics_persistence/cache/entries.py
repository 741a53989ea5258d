"""A cached entry as one string.

    u8 format version (1) | u64 version of the agent, big-endian | 16 bytes revision | u8 1 with an envelope, else 0
    | the envelope

The epoch is in the key. The script that compares versions reads the header and one byte more.
"""

from __future__ import annotations

import struct
from uuid import UUID

from freeagentics_persistence.domain.events import Event
from freeagentics_persistence.domain.identifiers import uuid_of_int
from freeagentics_persistence.errors import EnvelopeRejected
from freeagentics_persistence.ports.cache import CacheEntry

FORMAT_VERSION = 1
_HEADER = struct.Struct(">BQ16sB")
_NUMBERS = struct.Struct(">BQQQB")  # the same, with the revision as two numbers
HEADER_BYTES = _HEADER.size


def pack_entry(entry: CacheEntry) -> bytes:
    """The string of an entry."""
    return _pack(entry.version, entry.revision.int.to_bytes(16, "big"), entry.envelope)


def pack_change(event: Event) -> bytes:
    """The string of the entry that a change of an agent makes."""
    return _pack(event.version, bytes.fromhex(event.written_as.replace("-", "")), event.envelope)


def _pack(version: int, revision: bytes, envelope: bytes | None) -> bytes:
    if envelope is None:
        return _HEADER.pack(FORMAT_VERSION, version, revision, 0)
    return _HEADER.pack(FORMAT_VERSION, version, revision, 1) + envelope


def unpack_entry(agent_id: UUID, stored: bytes) -> CacheEntry:
    """The entry of a string. Raises EnvelopeRejected where it is none."""
    if len(stored) < HEADER_BYTES:
        raise _malformed(agent_id)
    layout, version, high, low, sealed = _NUMBERS.unpack_from(stored)
    if layout != FORMAT_VERSION or sealed != (len(stored) > HEADER_BYTES):
        raise _malformed(agent_id)
    return CacheEntry(agent_id, version, uuid_of_int(high << 64 | low), stored[HEADER_BYTES:] if sealed else None)


def _malformed(agent_id: UUID) -> EnvelopeRejected:
    return EnvelopeRejected(
        f"the cached entry of agent {agent_id} is cut, altered, or not an entry. Read it again: what PostgreSQL has "
        "replaces it. Find what else writes to this Redis."
    )
