"""The keyring: data keys of each tenant, unwrapped in memory only, and sealing with them."""

from __future__ import annotations

import asyncio
import os
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from freeagentics_persistence.encryption.envelope import Opener, Writer, derive_cipher
from freeagentics_persistence.errors import KeyUnavailable, PersistenceError
from freeagentics_persistence.ports.keys import KeyEncryptionKey, KeyProvider, KeyringStore, KeyState, WrappedKey
from freeagentics_persistence.ports.sealing import Buffer, Kind, require_opened

MAX_CIPHERS = 4096
MAX_TENANTS = 10_000
REFRESH_SECONDS = 60.0
MIN_REFRESH_SECONDS = 1.0
_OPENING = (KeyState.PRIMARY, KeyState.DECRYPT)


@dataclass(slots=True)
class _TenantKeys:
    writer: Writer
    states: dict[UUID, KeyState]
    secrets: dict[UUID, bytes] = field(repr=False)
    loaded_at: float


class KeyringSealer:
    """Seals and opens with the keyring's keys; the Sealer that repositories use.

    A tenant's first key is made when the tenant is first used. States are read again every minute, and at once
    (at most once a second) where an envelope names a key that is not known yet. Keys of the 10,000 tenants used last
    are held in memory.
    """

    def __init__(self, provider: KeyProvider, store: KeyringStore) -> None:
        self._provider = provider
        self._store = store
        self._tenants: OrderedDict[UUID, _TenantKeys] = OrderedDict()
        self._ciphers: OrderedDict[tuple[UUID, bytes], AESGCM] = OrderedDict()
        self._loading = asyncio.Lock()

    async def ensure_tenant(self, tenant_id: UUID) -> None:
        """Load the tenant's keys, making the first one. Raises UnknownTenant, KeyUnavailable."""
        await self._keys(tenant_id)

    async def seal_many(
        self, tenant_id: UUID, kind: Kind, subjects: Sequence[UUID], revisions: Sequence[UUID], values: Sequence[Buffer]
    ) -> list[bytes]:
        """See ports.sealing.Sealer."""
        keys = await self._keys(tenant_id)
        return keys.writer.seal(tenant_id, kind, subjects, revisions, values)

    async def open_many(
        self,
        tenant_id: UUID,
        kind: Kind,
        subjects: Sequence[UUID],
        revisions: Sequence[UUID],
        envelopes: Sequence[bytes | None],
    ) -> list[bytes | None]:
        """See ports.sealing.Sealer."""
        named = [revision.bytes for revision in revisions]
        opened = await self.open_each(tenant_id, kind, subjects, named, envelopes)
        return [require_opened(value) for value in opened]

    async def open_each(
        self,
        tenant_id: UUID,
        kind: Kind,
        subjects: Sequence[UUID],
        revisions: Sequence[bytes],
        envelopes: Sequence[bytes | None],
    ) -> list[bytes | PersistenceError | None]:
        """See ports.sealing.Sealer."""
        keys = await self._keys(tenant_id)
        named: set[UUID] = set()

        def cipher_of(key_id: UUID, salt: bytes) -> AESGCM:
            named.add(key_id)
            return self._cipher(keys, tenant_id, key_id, salt)

        found = Opener(cipher_of, tenant_id, kind).open_each(subjects, revisions, envelopes)
        if not named <= keys.states.keys():
            known, keys = keys, await self._keys(tenant_id, newer_than=MIN_REFRESH_SECONDS)
            if keys is not known:
                return Opener(cipher_of, tenant_id, kind).open_each(subjects, revisions, envelopes)
        return found

    def _cipher(self, keys: _TenantKeys, tenant_id: UUID, key_id: UUID, salt: bytes) -> AESGCM:
        state = keys.states.get(key_id)
        if state not in _OPENING:
            found = "is not in the keyring" if state is None else f"is {state}"
            raise KeyUnavailable(
                f"data key {key_id} of tenant {tenant_id} {found}, so this value cannot be opened. "
                "If the keyring was lost, restore it from a backup."
            )
        cipher = self._ciphers.get((key_id, salt))
        if cipher is None:
            cipher = self._ciphers[key_id, salt] = derive_cipher(keys.secrets[key_id], salt)
            if len(self._ciphers) > MAX_CIPHERS:
                self._ciphers.popitem(last=False)
        return cipher

    async def _keys(self, tenant_id: UUID, newer_than: float = REFRESH_SECONDS) -> _TenantKeys:
        keys = self._tenants.get(tenant_id)
        if keys is not None and time.monotonic() - keys.loaded_at < newer_than:
            self._tenants.move_to_end(tenant_id)
            return keys
        async with self._loading:
            keys = self._tenants.get(tenant_id)
            if keys is None or time.monotonic() - keys.loaded_at >= newer_than:
                keys = self._tenants[tenant_id] = await self._load(tenant_id, keys)
                if len(self._tenants) > MAX_TENANTS:
                    self._tenants.popitem(last=False)
        return keys

    async def _load(self, tenant_id: UUID, previous: _TenantKeys | None) -> _TenantKeys:
        rows = await self._store.load_keys(tenant_id)
        if not rows:
            await self._store.add_first_key(_wrap(tenant_id, await self._provider.current()))
            rows = await self._store.load_keys(tenant_id)
        primary = next((row for row in rows if row.state is KeyState.PRIMARY), None)
        if primary is None:
            raise KeyUnavailable(f"tenant {tenant_id} has no primary data key, so nothing can be sealed for it.")
        secrets = {row.key_id: await self._unwrap(row) for row in rows if row.state in _OPENING}
        same = previous is not None and previous.states.get(primary.key_id) is KeyState.PRIMARY
        writer = previous.writer if previous and same else Writer(primary.key_id, secrets[primary.key_id])
        states = {row.key_id: row.state for row in rows}
        return _TenantKeys(writer, states, secrets, time.monotonic())

    async def _unwrap(self, row: WrappedKey) -> bytes:
        kek = await self._provider.get(row.kek_reference)
        if row.wrapped is None:
            raise KeyUnavailable(f"data key {row.key_id} of tenant {row.tenant_id} was destroyed.")
        try:
            return AESGCM(kek.secret).decrypt(row.wrapped[:12], row.wrapped[12:], _wrap_context(row))
        except (InvalidTag, ValueError):  # ValueError: cut to less than a nonce
            raise KeyUnavailable(
                f"data key {row.key_id} of tenant {row.tenant_id} does not unwrap with {kek.reference}: its row in the "
                "keyring was altered. Restore the keyring from a backup."
            ) from None


def _wrap(tenant_id: UUID, kek: KeyEncryptionKey) -> WrappedKey:
    row = WrappedKey(
        tenant_id=tenant_id, key_id=uuid4(), state=KeyState.PRIMARY, wrapped=None, kek_reference=kek.reference
    )
    nonce = os.urandom(12)
    wrapped = nonce + AESGCM(kek.secret).encrypt(nonce, AESGCM.generate_key(256), _wrap_context(row))
    return WrappedKey(
        tenant_id=tenant_id, key_id=row.key_id, state=row.state, wrapped=wrapped, kek_reference=kek.reference
    )


def _wrap_context(row: WrappedKey) -> bytes:
    return b"freeagentics-persistence dek v1" + row.tenant_id.bytes + row.key_id.bytes + row.kek_reference.encode()
