"""A cached entry as one string.

    u8 format version (1) | u64 version of the agent, big-endian | 16 bytes revision | u8 1 with an envelope, else 0
    | the envelope

The epoch is in the key. The script that compares versions reads the header and one byte more.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from uuid import UUID

import numpy as np

from freeagentics_persistence.domain.events import Event
from freeagentics_persistence.domain.validation import MAX_VERSION
from freeagentics_persistence.errors import EnvelopeRejected
from freeagentics_persistence.ports.cache import CacheEntry, StoredBeliefs

FORMAT_VERSION = 1
_HEADER = struct.Struct(">BQ16sB")
# the same as a row of a numpy table
_TABLE = np.dtype([("layout", "u1"), ("version", ">u8"), ("revision", "V16"), ("sealed", "u1")])
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


def unpack_entries(ids: Sequence[UUID], stored: Sequence[bytes | None]) -> StoredBeliefs:
    """What the strings of these agents say, None where there is none; rejected where a string is no entry."""
    return _whole(ids, stored) or _one_by_one(ids, stored)


def _whole(ids: Sequence[UUID], stored: Sequence[bytes | None]) -> StoredBeliefs | None:
    """The common case at once: there is an entry of every agent. Else None."""
    if not stored or not all(stored):
        return None
    headers = b"".join([value[:HEADER_BYTES] for value in stored])  # type: ignore[index]
    if len(headers) != HEADER_BYTES * len(stored):
        return None
    table = np.frombuffer(headers, _TABLE)
    envelopes: list[bytes | None] = [value[HEADER_BYTES:] or None for value in stored]  # type: ignore[index]
    versions, is_sealed = table["version"].tolist(), [envelope is not None for envelope in envelopes]
    if (table["layout"] != FORMAT_VERSION).any() or table["sealed"].tolist() != is_sealed:
        return None
    if min(versions) < 1 or max(versions) > MAX_VERSION:
        return None
    return StoredBeliefs(ids, versions, table["revision"].tolist(), envelopes)


def _one_by_one(ids: Sequence[UUID], stored: Sequence[bytes | None]) -> StoredBeliefs:
    count = len(stored)
    found = StoredBeliefs(ids, [0] * count, [b""] * count, [None] * count)
    for row, value in enumerate(stored):
        if value is None:
            continue
        layout, version, revision, sealed = _HEADER.unpack_from(value) if len(value) >= HEADER_BYTES else (0, 0, b"", 0)
        if layout != FORMAT_VERSION or not 1 <= version <= MAX_VERSION or sealed != (len(value) > HEADER_BYTES):
            found.rejected[row] = _malformed(ids[row])
        else:
            found.versions[row], found.revisions[row] = version, revision
            found.envelopes[row] = value[HEADER_BYTES:] if sealed else None
    return found


def _malformed(agent_id: UUID) -> EnvelopeRejected:
    return EnvelopeRejected(
        f"the cached entry of agent {agent_id} is cut, altered, or not an entry. Read it again: what PostgreSQL has "
        "replaces it. Find what else writes to this Redis."
    )
