"""Writing files that are whole or absent, and keeping logs small."""

from __future__ import annotations

import os
import secrets
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from freeagentics_persistence.embedded.account import Account

_LOG_LIMIT_BYTES = 16 * 1024 * 1024


def write_atomically(path: Path, text: str, account: Account | None = None) -> None:
    """Write a file of mode 0600 that is there whole and durable, or as it was. ``account`` becomes its owner."""
    new = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "w") as file:
            file.write(text)
            file.flush()
            if account is not None and account.is_other_user:
                os.fchown(fd, account.uid, account.gid)
            os.fsync(fd)
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make names made or changed in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(path: Path, account: Account | None = None) -> None:
    """Make a folder of mode 0700 unless it is there; ``account`` becomes its owner, also if an earlier try left it."""
    if not path.is_dir():
        path.mkdir(mode=0o700)
    if account is not None and account.is_other_user and path.lstat().st_uid == os.geteuid():
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def give_to(folder: Path, account: Account) -> None:
    """Make an account the owner of a folder and all that is in it."""
    for parent, folders, names in os.walk(folder):
        for name in (".", *folders, *names):
            os.chown(os.path.join(parent, name), account.uid, account.gid, follow_symlinks=False)


def open_log(path: Path) -> int:
    """A descriptor that appends to a log, which is rotated first where it is long. The caller closes it."""
    if path.is_file() and path.stat().st_size > _LOG_LIMIT_BYTES:
        os.replace(path, _older(path))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def shorten_log(path: Path) -> None:
    """Move a long log's lines to ``<name>.1`` while its writer goes on appending to it."""
    if path.is_file() and path.stat().st_size > _LOG_LIMIT_BYTES:
        shutil.copyfile(path, _older(path))
        os.truncate(path, 0)


def log_tail(path: Path, since: int = 0, lines: int = 12) -> str:
    """The last lines of a log, none from before the position ``since`` (in bytes)."""
    try:
        with path.open("rb") as file:
            file.seek(max(since, path.stat().st_size - 8192))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""


def _older(path: Path) -> Path:
    return path.with_name(path.name + ".1")
