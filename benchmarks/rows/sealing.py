"""Sealing and opening, beside nothing but the cipher."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks.outcome import Outcome, at_most
from benchmarks.row import Entry, Slices
from benchmarks.scene import Scene
from benchmarks.timing import Sample, Stopwatch
from freeagentics_persistence import DEFAULT_TENANT_ID, new_revisions
from freeagentics_persistence.encryption.keyring import KeyringSealer
from freeagentics_persistence.ports.keys import KeyEncryptionKey, WrappedKey
from freeagentics_persistence.ports.sealing import Kind

MICROSECONDS = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class SealingRow:
    """``values`` of ``size`` bytes a call."""

    rounds: int = 10
    seconds: float = 1.0
    values: int = 1000
    size: int = 2048

    async def measure(self, scene: Scene) -> list[Outcome]:
        """Microseconds to seal and open one value, as the repositories do it: bound to tenant, agent and revision."""
        values = [os.urandom(self.size) for _ in range(self.values)]
        ours, bare = Envelopes(values), BareCipher(values)
        samples = await Slices(self.rounds, self.seconds, scene.say, None, f"{self.size} B").take([ours, bare])
        case = f"{self.size:,} B, {self.values:,} a call"
        return [Outcome(case, "us a value", samples, [at_most(2.5, ours.name, bare.name)])]


@dataclass
class MemoryKeyring:
    """A key provider and a keyring that hold what they are given."""

    kek: KeyEncryptionKey = field(default_factory=lambda: KeyEncryptionKey("benchmark", os.urandom(32)))
    rows: list[WrappedKey] = field(default_factory=list)

    async def current(self) -> KeyEncryptionKey:
        """See ports.keys.KeyProvider."""
        return self.kek

    async def get(self, reference: str) -> KeyEncryptionKey:
        """See ports.keys.KeyProvider."""
        return self.kek

    async def load_keys(self, tenant_id: UUID) -> list[WrappedKey]:
        """See ports.keys.KeyringStore."""
        return self.rows

    async def add_first_key(self, key: WrappedKey) -> None:
        """See ports.keys.KeyringStore."""
        self.rows.append(key)


class Envelopes:
    """seal_many and open_many."""

    name = "seal and open"

    def __init__(self, values: list[bytes]) -> None:
        keyring = MemoryKeyring()
        self._sealer, self._values = KeyringSealer(keyring, keyring), values
        self._ids, self._revisions = [uuid4() for _ in values], new_revisions(len(values))

    async def run(self, seconds: float) -> Sample:
        """Microseconds a value."""
        watch = Stopwatch(seconds)
        while not watch.over:
            place = (DEFAULT_TENANT_ID, Kind.BELIEFS, self._ids, self._revisions)
            sealed = await self._sealer.seal_many(*place, self._values)
            opened = await self._sealer.open_many(*place, sealed)
            watch.done += len(opened)
        return Sample(MICROSECONDS / watch.rate())


class BareCipher:
    """AESGCM.encrypt and decrypt with a fresh nonce each, and nothing else."""

    name = "bare AESGCM"

    def __init__(self, values: list[bytes]) -> None:
        self._cipher, self._values = AESGCM(os.urandom(32)), values

    async def run(self, seconds: float) -> Sample:
        """Microseconds a value."""
        encrypt, decrypt, watch = self._cipher.encrypt, self._cipher.decrypt, Stopwatch(seconds)
        while not watch.over:
            for value in self._values:
                nonce = os.urandom(12)
                decrypt(nonce, encrypt(nonce, value, None), None)
            watch.done += len(self._values)
        return Sample(MICROSECONDS / watch.rate())


ENTRY = Entry("sealing", "seal and open", SealingRow(), SealingRow(rounds=3, seconds=0.2))
