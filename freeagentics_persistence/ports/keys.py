"""Keys: where key-encryption keys come from, and where wrapped data keys are kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol
from uuid import UUID


class KeyState(StrEnum):
    """The life of a data key.

    pending (made, not used yet), primary (seals and opens), decrypt (opens only), disabled (neither, for now),
    destroyed (the wrapped key is gone for ever).
    """

    PENDING = "pending"
    PRIMARY = "primary"
    DECRYPT = "decrypt"
    DISABLED = "disabled"
    DESTROYED = "destroyed"


@dataclass(frozen=True, slots=True)
class KeyEncryptionKey:
    """A 32-byte key that wraps data keys, and the reference by which it is found again."""

    reference: str
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class WrappedKey:
    """A data key as it rests: wrapped by the KEK of that reference; ``wrapped`` is None once destroyed."""

    tenant_id: UUID
    key_id: UUID
    state: KeyState
    wrapped: bytes | None = field(repr=False)
    kek_reference: str


class KeyProvider(Protocol):
    """Where KEKs come from."""

    async def current(self) -> KeyEncryptionKey:
        """The KEK that wraps new data keys. Raises KeyUnavailable."""

    async def get(self, reference: str) -> KeyEncryptionKey:
        """The KEK of that reference. Raises KeyUnavailable."""


class KeyringStore(Protocol):
    """Where wrapped data keys are kept."""

    async def load_keys(self, tenant_id: UUID) -> list[WrappedKey]:
        """All keys of the tenant. Raises UnknownTenant."""

    async def add_first_key(self, key: WrappedKey) -> None:
        """Keep the tenant's first primary key; does nothing where another writer was first."""
