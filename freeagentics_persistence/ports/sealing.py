"""Sealing: turning bytes into envelopes and back."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol, TypeVar
from uuid import UUID

from freeagentics_persistence.errors import PersistenceError

Buffer = bytes | memoryview
T = TypeVar("T")


class Kind(StrEnum):
    """What an envelope holds; one kind never opens as another."""

    BELIEFS = "beliefs"
    UPDATE_DATA = "update-data"


class Sealer(Protocol):
    """Seals and opens values, row by row: ``subjects`` are agent ids, ``revisions`` the writes they belong to."""

    async def seal_many(
        self, tenant_id: UUID, kind: Kind, subjects: Sequence[UUID], revisions: Sequence[UUID], values: Sequence[Buffer]
    ) -> list[bytes]:
        """One envelope for each value. Raises UnknownTenant, KeyUnavailable."""

    async def open_many(
        self,
        tenant_id: UUID,
        kind: Kind,
        subjects: Sequence[UUID],
        revisions: Sequence[UUID],
        envelopes: Sequence[bytes | None],
    ) -> list[bytes | None]:
        """One value for each envelope, None for None. Raises EnvelopeRejected, KeyUnavailable, UnknownTenant."""

    async def open_each(
        self,
        tenant_id: UUID,
        kind: Kind,
        subjects: Sequence[UUID],
        revisions: Sequence[bytes],
        envelopes: Sequence[bytes | None],
    ) -> list[bytes | PersistenceError | None]:
        """The same, with EnvelopeRejected or KeyUnavailable in the place of a value that does not open.

        ``revisions`` are 16 bytes each, as they are stored.
        """


def require_opened(value: T | PersistenceError) -> T:
    """A value of ``open_each``. Raises what stands in its place."""
    if isinstance(value, PersistenceError):
        raise value
    return value
