"""Identifiers: UUIDv7 revisions, whose first 48 bits are a Unix time in milliseconds (RFC 9562, section 5.7)."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from uuid import UUID, SafeUUID

from freeagentics_persistence.errors import InvalidInput

DEFAULT_TENANT_ID = UUID("00000000-0000-7000-8000-000000000001")
_VERSION_AND_VARIANT = 0x7 << 76 | 0b10 << 62
_new, _put_int, _put_safe = object.__new__, vars(UUID)["int"].__set__, vars(UUID)["is_safe"].__set__
_UNKNOWN = SafeUUID.unknown  # looking it up in its enum takes as long as all the rest
_RANDOM_BITS = 0xFFF << 64 | (1 << 62) - 1


def new_revision() -> UUID:
    """A UUIDv7 of now. It names one write and is that write's idempotency key."""
    return new_revisions(1)[0]


def new_revisions(count: int) -> list[UUID]:
    """``count`` UUIDv7 of now, each random in 74 bits."""
    fixed = (time.time_ns() // 1_000_000) << 80 | _VERSION_AND_VARIANT
    raw, number = os.urandom(16 * count), int.from_bytes
    return [uuid_of_int(fixed | number(raw[i : i + 16], "big") & _RANDOM_BITS) for i in range(0, 16 * count, 16)]


def revision_within(whole: UUID, part: UUID) -> UUID:
    """The revision of one part of a write of many: of the same time, and the same whenever it is asked for."""
    return revisions_within(whole, [part])[0]


def revisions_within(whole: UUID, parts: Sequence[UUID]) -> list[UUID]:
    """The same of many parts."""
    time_bits, keyed = whole.int & ~_RANDOM_BITS, blake2b(digest_size=16, key=whole.bytes)
    found = []
    for part in parts:
        digest = keyed.copy()  # the key is hashed once
        digest.update(part.bytes)
        found.append(uuid_of_int(time_bits | int.from_bytes(digest.digest(), "big") & _RANDOM_BITS))
    return found


def uuid_of_int(number: int) -> UUID:
    """The UUID of a number below 2^128; three times as fast as UUID(int=...), which checks its arguments."""
    value = _new(UUID)
    _put_int(value, number)
    _put_safe(value, _UNKNOWN)
    return value


def uuids_of_bytes(packed: bytes) -> list[UUID]:
    """The UUIDs of 16 bytes each."""
    number = int.from_bytes
    return [uuid_of_int(number(packed[i : i + 16], "big")) for i in range(0, len(packed), 16)]


def revision_time(revision: UUID) -> datetime:
    """When a UUIDv7 was made, in UTC. Raises InvalidInput for other UUIDs."""
    try:
        if revision.version == 7:
            return datetime.fromtimestamp((revision.int >> 80) / 1000, tz=UTC)
    except (ValueError, OverflowError):  # beyond the year 9999
        pass
    raise InvalidInput("revision", f"{revision} is not a UUIDv7 of a known time", "Make one with new_revision().")
