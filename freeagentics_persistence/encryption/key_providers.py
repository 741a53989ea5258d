"""Key providers: KEKs from the environment or from a file."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from freeagentics_persistence.errors import ConfigurationError, KeyUnavailable
from freeagentics_persistence.ports.keys import KeyEncryptionKey

KEY_BYTES = 32
MAX_FILE_BYTES = 65_536
_NO_KEY = "no key is set, so nothing can be sealed or opened. Set ENCRYPTION_KEY or ENCRYPTION_KEY_FILE."


class EnvironmentKeyProvider:
    """KEKs from the values of settings: the first wraps new data keys, all of them unwrap."""

    def __init__(self, keys: Sequence[str]) -> None:
        if not keys:
            raise ConfigurationError("ENCRYPTION_KEY is empty. Make a key with: freeagentics-db generate-key")
        self._keys = _by_reference("env", [parse_key("ENCRYPTION_KEY", text) for text in keys])

    async def current(self) -> KeyEncryptionKey:
        """See ports.keys.KeyProvider."""
        return next(iter(self._keys.values()))

    async def get(self, reference: str) -> KeyEncryptionKey:
        """See ports.keys.KeyProvider."""
        return _find(self._keys, reference, "ENCRYPTION_KEY")


class NoKeyProvider:
    """No KEK at all, for those who may see that there are values and not what they are."""

    async def current(self) -> KeyEncryptionKey:
        """See ports.keys.KeyProvider."""
        raise KeyUnavailable(_NO_KEY)

    async def get(self, reference: str) -> KeyEncryptionKey:
        """See ports.keys.KeyProvider."""
        raise KeyUnavailable(_NO_KEY)


class FileKeyProvider:
    """KEKs from a file of mode 0600, one base64 key a line: the first wraps, all of them unwrap.

    With ``create`` the file is made where it does not exist and a KEK is needed to wrap; never to unwrap, as a new
    key opens nothing.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self._path = path
        self._create = create
        self._keys: dict[str, KeyEncryptionKey] = {}

    async def current(self) -> KeyEncryptionKey:
        """See ports.keys.KeyProvider."""
        return next(iter((await self._load(create=self._create)).values()))

    async def get(self, reference: str) -> KeyEncryptionKey:
        """See ports.keys.KeyProvider."""
        return _find(await self._load(create=False), reference, f"the key file {self._path}")

    async def _load(self, *, create: bool) -> dict[str, KeyEncryptionKey]:
        if not self._keys:
            self._keys = await asyncio.to_thread(self._read, create)
        return self._keys

    def _read(self, create: bool) -> dict[str, KeyEncryptionKey]:
        try:
            if create and not self._path.exists():
                create_key_file(self._path)
            mode, content = _mode_and_content(self._path)
        except FileNotFoundError:
            raise KeyUnavailable(
                f"the key file {self._path} does not exist. Put the file that this data was sealed with there, or "
                "name it in ENCRYPTION_KEY_FILE."
            ) from None
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            raise KeyUnavailable(
                f"the key file {str(self._path)!r} cannot be read ({_reason(error)}). Name a file that this user may "
                "read in ENCRYPTION_KEY_FILE."
            ) from error
        if mode & 0o077:
            raise KeyUnavailable(
                f"the key file {self._path} is open to others (mode {mode:04o}). Run: chmod 600 {self._path}"
            )
        lines = content.decode("ascii", "replace").split()
        if not lines:
            raise KeyUnavailable(f"the key file {self._path} is empty. Restore it from where you keep its copy.")
        return _by_reference("file", [parse_key(f"the key file {self._path}", line) for line in lines])


def generate_key() -> str:
    """A new random KEK as base64 text."""
    return base64.b64encode(os.urandom(KEY_BYTES)).decode()


def create_key_file(path: Path) -> None:
    """Make a key file, whole or not at all; where another process was first, its file stays."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(generate_key() + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"the key file {str(path)!r} cannot be made ({_reason(error)}). Name a writable place in "
            "ENCRYPTION_KEY_FILE."
        ) from error
    finally:
        with suppress(OSError, ValueError):
            temporary.unlink()


def parse_key(source: str, text: str) -> bytes:
    """The 32 bytes of a base64 key. Raises ConfigurationError without showing it."""
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigurationError(
            f"{source} does not hold a base64 key of 32 bytes. Make one with: freeagentics-db generate-key"
        )
    return key


def _mode_and_content(path: Path) -> tuple[int, bytes]:
    """Raises OSError, and KeyUnavailable for what cannot be a key file."""
    # opening a FIFO waits for one who writes to it, which may be for ever
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            raise _no_key_file(path, "is no regular file")
        with open(handle, "rb", closefd=False) as file:
            content = file.read(MAX_FILE_BYTES + 1)
    finally:
        os.close(handle)
    if len(content) > MAX_FILE_BYTES:
        raise _no_key_file(path, f"is larger than {MAX_FILE_BYTES // 1024} KiB")
    return stat.S_IMODE(mode), content


def _no_key_file(path: Path, problem: str) -> KeyUnavailable:
    return KeyUnavailable(
        f"the key file {str(path)!r} {problem}. Name a file of base64 keys, one a line, in ENCRYPTION_KEY_FILE."
    )


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _by_reference(kind: str, keys: list[bytes]) -> dict[str, KeyEncryptionKey]:
    found = (KeyEncryptionKey(f"{kind}:{_fingerprint(key)}", key) for key in keys)
    return {kek.reference: kek for kek in found}


def _fingerprint(key: bytes) -> str:
    # of a random 256-bit key, so it tells keys apart and gives nothing away
    return hashlib.sha256(b"freeagentics-persistence kek id" + key).hexdigest()[:16]


def _find(keys: dict[str, KeyEncryptionKey], reference: str, source: str) -> KeyEncryptionKey:
    wanted = reference.partition(":")[2]
    for kek in keys.values():
        if kek.reference.partition(":")[2] == wanted:
            return KeyEncryptionKey(reference, kek.secret)
    raise KeyUnavailable(
        f"this data was sealed under the key {reference}, and {source} holds {', '.join(keys)}. "
        "Give the key that it was sealed with."
    )
