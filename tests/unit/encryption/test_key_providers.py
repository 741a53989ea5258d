"""Key providers: keys from settings and from files, and that no key shows in an error."""

from __future__ import annotations

import asyncio
import base64
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from freeagentics_persistence.encryption.key_providers import (
    EnvironmentKeyProvider,
    FileKeyProvider,
    create_key_file,
    generate_key,
    parse_key,
)
from freeagentics_persistence.errors import ConfigurationError, EncryptionError, KeyUnavailable, PersistenceError
from freeagentics_persistence.ports.keys import KeyEncryptionKey


def chain(error: BaseException | None) -> str:
    """Everything that an error and its causes may show: text, repr, arguments, attributes."""
    parts = []
    while error is not None:
        parts.append(f"{error} {error!r} {error.args} {vars(error)} {getattr(error, 'object', '')!r}")
        error = error.__cause__ or error.__context__
    return "\n".join(parts)


def key_file(folder: Path, content: str | bytes, mode: int = 0o600) -> Path:
    """A file of this content and mode."""
    path = folder / "keys"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    return path


async def test_the_first_key_wraps_and_all_unwrap(tmp_path: Path) -> None:
    new, old = generate_key(), generate_key()
    for provider in (
        EnvironmentKeyProvider([new, old]),
        FileKeyProvider(key_file(tmp_path, f"{new}\n{old}\n")),
        FileKeyProvider(key_file(tmp_path, f"\n  {new}\r\n\n{old}")),
    ):
        current = await provider.current()
        assert current.secret == base64.b64decode(new)
        assert (await provider.get(current.reference)) == current
        (only_old,) = [await EnvironmentKeyProvider([old]).current()]
        assert (await provider.get(only_old.reference)).secret == base64.b64decode(old)


async def test_a_reference_finds_its_key_wherever_that_is_kept(tmp_path: Path) -> None:
    key = generate_key()
    from_file, from_environment = FileKeyProvider(key_file(tmp_path, key)), EnvironmentKeyProvider([key])
    sealed_with = await from_file.current()
    assert sealed_with.reference.startswith("file:")
    assert await from_environment.get(sealed_with.reference) == sealed_with


async def test_a_missing_key_is_named_with_what_is_there(tmp_path: Path) -> None:
    key, other = generate_key(), await EnvironmentKeyProvider([generate_key()]).current()
    path = key_file(tmp_path, key)
    for provider, place in ((EnvironmentKeyProvider([key]), "ENCRYPTION_KEY"), (FileKeyProvider(path), str(path))):
        with pytest.raises(KeyUnavailable) as caught:
            await provider.get(other.reference)
        for words in (other.reference, (await provider.current()).reference, place):
            assert words in str(caught.value)
        assert key not in chain(caught.value)


@pytest.mark.parametrize("text", ["", "abc", "=", "é" * 32, "a" * 43, "A" * 40 + "====", "A" * 44 + "\n"])
def test_what_is_no_key_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(ConfigurationError, match="ENCRYPTION_KEY does not hold a base64 key of 32 bytes") as caught:
        EnvironmentKeyProvider([generate_key(), text])
    assert len(text) < 3 or text not in chain(caught.value)
    for size in (16, 31, 33, 64):
        with pytest.raises(ConfigurationError):
            parse_key("ENCRYPTION_KEY", base64.b64encode(os.urandom(size)).decode())


def test_no_keys_at_all_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="ENCRYPTION_KEY is empty"):
        EnvironmentKeyProvider([])


def test_keys_are_random_and_hidden() -> None:
    made = {generate_key() for _ in range(100)}
    assert len(made) == 100
    kek = KeyEncryptionKey("env:1", b"secret" * 5)
    assert "secret" not in repr(kek)
    assert "secret" not in str([kek])


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (b"", KeyUnavailable, "is empty"),
        (b" \n\t\n", KeyUnavailable, "is empty"),
        (b"garbage", ConfigurationError, "does not hold a base64 key"),
        (b"QUJD", ConfigurationError, "does not hold a base64 key"),
        (bytes(range(224, 256)), ConfigurationError, "does not hold a base64 key"),
        (b"\x00" * 32, ConfigurationError, "does not hold a base64 key"),
    ],
)
async def test_files_without_a_key(tmp_path: Path, content: bytes, kind: type[PersistenceError], words: str) -> None:
    path = key_file(tmp_path, content)
    with pytest.raises(kind, match=words) as caught:
        await FileKeyProvider(path, create=True).current()
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content


@pytest.mark.parametrize("damage", [lambda key: b"\xef\xbb\xbf" + key, lambda key: key[:-3], lambda key: key + b"\xff"])
async def test_a_damaged_key_is_not_shown(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    key = generate_key()
    with pytest.raises(PersistenceError) as caught:
        await FileKeyProvider(key_file(tmp_path, damage(key.encode()))).current()
    assert key[:20] not in chain(caught.value)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o606, 0o601, 0o777])
async def test_a_file_that_is_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    path = key_file(tmp_path, generate_key(), mode)
    with pytest.raises(KeyUnavailable, match=f"mode {mode:04o}.*chmod 600"):
        await FileKeyProvider(path).current()
    path.chmod(0o400)
    assert (await FileKeyProvider(path).current()).reference.startswith("file:")


async def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    taken = key_file(tmp_path, generate_key())
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "nowhere")
    for path in (tmp_path, taken / "below", tmp_path / ("x" * 300), Path(f"{tmp_path}/a\x00b"), tmp_path / "missing"):
        with pytest.raises(KeyUnavailable, match="ENCRYPTION_KEY_FILE") as caught:
            await FileKeyProvider(path).current()
        assert path.name[:40].partition("\x00")[0] in str(caught.value)
    with pytest.raises(KeyUnavailable, match="does not exist"):
        await FileKeyProvider(dangling, create=True).current()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "keys"]


async def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    for path in (fifo, Path("/dev/zero"), tmp_path):
        with pytest.raises(KeyUnavailable, match="is no regular file") as caught:
            await asyncio.wait_for(FileKeyProvider(path).current(), 5)
        assert str(path) in str(caught.value)


async def test_a_file_of_any_length_is_read_in_part_alone(tmp_path: Path) -> None:
    path = key_file(tmp_path, f"{generate_key()}\n" * 1456)
    assert (await FileKeyProvider(path).current()).reference.startswith("file:")
    os.truncate(path, 2**40)
    with pytest.raises(KeyUnavailable, match="is larger than 64 KiB"):
        await FileKeyProvider(path).current()


async def test_files_that_cannot_be_made(tmp_path: Path) -> None:
    taken = key_file(tmp_path, generate_key())
    before = taken.read_bytes()
    for path in (taken / "below", Path("/proc/no-such-folder/keys"), Path(f"{tmp_path}/a\x00b")):
        with pytest.raises(ConfigurationError, match="ENCRYPTION_KEY_FILE"):
            await FileKeyProvider(path, create=True).current()
    with pytest.raises((ConfigurationError, EncryptionError)):
        await FileKeyProvider(tmp_path / ("x" * 300), create=True).current()
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]
    assert taken.read_bytes() == before


async def test_a_file_is_not_made_unless_asked(tmp_path: Path) -> None:
    with pytest.raises(KeyUnavailable, match="does not exist"):
        await FileKeyProvider(tmp_path / "keys").current()
    assert list(tmp_path.iterdir()) == []


async def test_a_made_file_is_private_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "folder" / "keys"
    first = await FileKeyProvider(path, create=True).current()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert await FileKeyProvider(path, create=True).current() == first
    assert await FileKeyProvider(path).current() == first
    content = path.read_bytes()
    create_key_file(path)
    assert path.read_bytes() == content
    assert [found.name for found in path.parent.iterdir()] == ["keys"]


def test_the_umask_does_not_open_the_file(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        create_key_file(tmp_path / "keys")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o600


def test_ten_threads_make_one_key(tmp_path: Path) -> None:
    for attempt in range(5):
        path = tmp_path / f"keys-{attempt}"

        def use(_: int, path: Path = path) -> bytes:
            return asyncio.run(FileKeyProvider(path, create=True).current()).secret

        with ThreadPoolExecutor(10) as pool:
            assert len(set(pool.map(use, range(10)))) == 1
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(list(tmp_path.iterdir())) == 5


FORKS = """
import asyncio, os, sys, time
from pathlib import Path
from freeagentics_persistence.encryption.key_providers import FileKeyProvider

start, path = time.monotonic() + 0.3, Path(sys.argv[1])
children = []
for number in range(10):
    child = os.fork()
    if child == 0:
        time.sleep(max(0, start - time.monotonic()))
        key = asyncio.run(FileKeyProvider(path, create=True).current())
        Path(f"{path}.{number}").write_text(key.reference)
        os._exit(0)
    children.append(child)
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""


def test_ten_processes_make_one_key(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    subprocess.run([sys.executable, "-c", FORKS, str(path)], check=True, timeout=60)
    assert len({(tmp_path / f"keys.{number}").read_text() for number in range(10)}) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(list(tmp_path.iterdir())) == 11


async def test_a_lost_key_file_is_not_replaced_by_a_key_that_opens_nothing(tmp_path: Path) -> None:
    provider = FileKeyProvider(tmp_path / "key", create=True)
    with pytest.raises(KeyUnavailable, match="does not exist"):
        await provider.get("file:0123456789abcdef")
    assert not (tmp_path / "key").exists()
    kek = await provider.current()
    assert await provider.get(kek.reference) == kek
