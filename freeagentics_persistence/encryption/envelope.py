"""The envelope: one value sealed with AES-256-GCM.

    u8 format version (1) | u8 algorithm (1: AES-256-GCM) | 16 bytes key id | 16 bytes writer salt
    | 12 bytes nonce | ciphertext | 16 bytes tag

62 bytes more than the value. The cipher's key is HKDF-SHA256(data key, salt), one per writer process and at most
2^32 seals, so that random 96-bit nonces stay below the collision bound of NIST SP 800-38D section 8.3 for ever.
The additional data is the first 34 bytes and, each after its u16 length, tenant, kind, agent and revision: an
envelope moved anywhere else does not open.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from freeagentics_persistence.errors import EnvelopeRejected, KeyUnavailable, PersistenceError
from freeagentics_persistence.ports.sealing import Buffer, Kind

FORMAT_VERSION = 1
AES_256_GCM = 1
HEADER_BYTES = 34
NONCE_BYTES = 12
TAG_BYTES = 16
OVERHEAD_BYTES = HEADER_BYTES + NONCE_BYTES + TAG_BYTES
_CIPHERTEXT = HEADER_BYTES + NONCE_BYTES
SEALS_PER_SALT = 2**32
_INFO = b"freeagentics-persistence envelope v1"
_ID_LENGTH = struct.pack(">H", 16)


def derive_cipher(data_key: bytes, salt: bytes) -> AESGCM:
    """The cipher of one writer: AES-256-GCM under HKDF-SHA256(data key, salt)."""
    return AESGCM(HKDF(algorithm=SHA256(), length=32, salt=salt, info=_INFO).derive(data_key))


class Writer:
    """Seals with one data key under a salt of its own, and takes a new salt before 2^32 seals."""

    def __init__(self, key_id: UUID, data_key: bytes) -> None:
        self._key_id = key_id
        self._data_key = data_key
        self._take_salt()

    def _take_salt(self) -> None:
        salt = os.urandom(16)
        self._header = struct.pack(">BB", FORMAT_VERSION, AES_256_GCM) + self._key_id.bytes + salt
        self._cipher = derive_cipher(self._data_key, salt)
        self._left = SEALS_PER_SALT

    def seal(
        self, tenant_id: UUID, kind: Kind, subjects: Sequence[UUID], revisions: Sequence[UUID], values: Sequence[Buffer]
    ) -> list[bytes]:
        """One envelope for each value."""
        if self._left < len(values):
            self._take_salt()
        self._left -= len(values)
        header, encrypt = self._header, self._cipher.encrypt
        context = _context(header, tenant_id, kind)
        nonces = os.urandom(NONCE_BYTES * len(values))
        sealed = []
        for i, (subject, revision, value) in enumerate(zip(subjects, revisions, values, strict=True)):
            nonce = nonces[i * NONCE_BYTES : (i + 1) * NONCE_BYTES]
            data = context + subject.bytes + _ID_LENGTH + revision.bytes
            sealed.append(header + nonce + encrypt(nonce, value, data))
        return sealed


class Opener:
    """Opens envelopes of one tenant and kind. ``cipher_of(key id, salt)`` finds a cipher and may raise KeyUnavailable.

    What envelopes of one writer have in common is made once.
    """

    def __init__(self, cipher_of: Callable[[UUID, bytes], AESGCM], tenant_id: UUID, kind: Kind) -> None:
        self._cipher_of = cipher_of
        self._tenant_id = tenant_id
        self._kind = kind
        self._writers: dict[bytes, tuple[Callable[..., bytes], bytes]] = {}

    def open_each(
        self, subjects: Sequence[UUID], revisions: Sequence[bytes], envelopes: Sequence[bytes | None]
    ) -> list[bytes | PersistenceError | None]:
        """The value in each envelope, None for None; of revisions the 16 bytes.

        In its place EnvelopeRejected for anything but an intact one of exactly this place, or KeyUnavailable.
        """
        writers = self._writers
        found: list[bytes | PersistenceError | None] = []
        for subject, revision, sealed in zip(subjects, revisions, envelopes, strict=True):
            if sealed is None:
                found.append(None)
                continue
            try:
                writer = writers.get(sealed[:HEADER_BYTES])
                if writer is None or len(sealed) < OVERHEAD_BYTES:
                    writer = self._writer_of(sealed)
                decrypt, context = writer
                data = context + subject.bytes + _ID_LENGTH + revision
                found.append(decrypt(sealed[HEADER_BYTES:_CIPHERTEXT], sealed[_CIPHERTEXT:], data))
            except InvalidTag:
                found.append(self._rejected(subject, revision))
            except (EnvelopeRejected, KeyUnavailable) as error:
                found.append(error)
        return found

    def _writer_of(self, sealed: bytes) -> tuple[Callable[..., bytes], bytes]:
        header = sealed[:HEADER_BYTES]
        decrypt = self._cipher_of(*read_header(sealed)).decrypt
        writer = self._writers[header] = decrypt, _context(header, self._tenant_id, self._kind)
        return writer

    def _rejected(self, subject: UUID, revision: bytes) -> EnvelopeRejected:
        return EnvelopeRejected(
            f"the {self._kind} of {subject} at revision {UUID(bytes=revision)} do not open: the envelope was altered, "
            "cut, or belongs to another tenant, kind, agent or revision. Restore the value from a verified backup or "
            "from history."
        )


def read_header(sealed: bytes) -> tuple[UUID, bytes]:
    """Key id and salt of an envelope. Raises EnvelopeRejected where it is not one."""
    if len(sealed) < OVERHEAD_BYTES:
        raise EnvelopeRejected(f"{len(sealed)} bytes are too short for an envelope: the value was cut or never sealed.")
    if sealed[0] != FORMAT_VERSION or sealed[1] != AES_256_GCM:
        raise EnvelopeRejected(
            f"not an envelope this version knows (format {sealed[0]}, algorithm {sealed[1]}): the value was never "
            "sealed, was altered, or was written by a newer version."
        )
    return UUID(bytes=bytes(sealed[2:18])), bytes(sealed[18:34])


def _context(header: bytes, tenant_id: UUID, kind: Kind) -> bytes:
    name = kind.encode()
    return b"".join((header, _ID_LENGTH, tenant_id.bytes, struct.pack(">H", len(name)), name, _ID_LENGTH))
