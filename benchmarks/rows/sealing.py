"""Sealing and opening, beside nothing but the cipher."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks.outcome import Outcome, at_most, beside
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
    """``batches`` are the numbers of values a call; the target is that of the first."""

    rounds: int = 10
    seconds: float = 1.0
    batches: Sequence[int] = (1000, 1)
    size: int = 2048

    async def measure(self, scene: Scene) -> list[Outcome]:
        """Microseconds to seal and open one value, as the repositories do it: bound to tenant, agent and revision."""
        return [await self._case(scene, batch, number == 0) for number, batch in enumerate(self.batches)]

    async def _case(self, scene: Scene, batch: int, aimed_at: bool) -> Outcome:
        values = [os.urandom(self.size) for _ in range(batch)]
        ours, bare = Envelopes(values), BareCipher(values)
        samples = await Slices(self.rounds, self.seconds, scene.say, None, f"{batch:,} a call").take([ours, bare])
        check = at_most(2.5, ours.name, bare.name) if aimed_at else beside(ours.name, bare.name)
        return Outcome(f"{self.size:,} B, {batch:,} a call", "us a value", samples, [check])


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
        place = (DEFAULT_TENANT_ID, Kind.BELIEFS, self._ids, self._revisions)
        watch, sealing = Stopwatch(seconds), 0.0
        while not watch.over:
            began = time.perf_counter()
            sealed = await self._sealer.seal_many(*place, self._values)
            sealing += time.perf_counter() - began
            opened = await self._sealer.open_many(*place, sealed)
            watch.done += len(opened)
        return sample_of(watch, sealing)


class BareCipher:
    """AESGCM.encrypt of all values with a fresh nonce each, then decrypt of all, and nothing else."""

    name = "bare AESGCM"

    def __init__(self, values: list[bytes]) -> None:
        self._cipher, self._values = AESGCM(os.urandom(32)), values

    async def run(self, seconds: float) -> Sample:
        """Microseconds a value."""
        encrypt, decrypt, urandom = self._cipher.encrypt, self._cipher.decrypt, os.urandom
        watch, sealing = Stopwatch(seconds), 0.0
        while not watch.over:
            began = time.perf_counter()
            nonces = [urandom(12) for _ in self._values]
            sealed = [encrypt(nonce, value, None) for nonce, value in zip(nonces, self._values, strict=True)]
            sealing += time.perf_counter() - began
            opened = [decrypt(nonce, value, None) for nonce, value in zip(nonces, sealed, strict=True)]
            watch.done += len(opened)
        return sample_of(watch, sealing)


def sample_of(watch: Stopwatch, sealing: float) -> Sample:
    """Microseconds a value, and its two parts; ``sealing`` are the seconds spent on the first."""
    both, seal = MICROSECONDS / watch.rate(), MICROSECONDS * sealing / watch.done
    return Sample(both, {"seal_us": seal, "open_us": both - seal})


ENTRY = Entry("sealing", "seal and open", SealingRow(), SealingRow(rounds=3, seconds=0.2))
