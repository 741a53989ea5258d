"""The private folder of the servers' sockets.

A socket's path must be shorter than 108 bytes, so it cannot always be in the data folder. The folder has a
random name that is noted in the data folder and kept, so that clients find the servers again after a restart.
The note names the data folder too, by its inode: a copy of the data folder must not take over its sockets.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from freeagentics_persistence.embedded.files import write_atomically
from freeagentics_persistence.embedded.urls import POSTGRES_SOCKET, VALKEY_SOCKET
from freeagentics_persistence.errors import EmbeddedServerError

if TYPE_CHECKING:
    from freeagentics_persistence.embedded.account import Account
    from freeagentics_persistence.embedded.data_folder import DataFolder

_LONGEST_PATH = 107


def socket_folder(data: DataFolder, account: Account) -> Path:
    """The noted folder, made again if it is gone; a new one where it is not sound. The caller holds the start lock."""
    noted = noted_socket_folder(data)
    if noted is not None and _make(noted, account):
        return noted
    places = ["/run"] if account.is_other_user else []
    for place in (*places, "/tmp", tempfile.gettempdir()):  # noqa: S108 - the name is random, the owner checked
        folder = Path(place) / f"freeagentics-{secrets.token_hex(6)}"
        if len(os.fsencode(folder / POSTGRES_SOCKET)) <= _LONGEST_PATH and os.access(place, os.W_OK):
            # Noted before it is made: whoever is killed in between leaves nothing that is not found again.
            note = {"folder": str(folder), "of": _identity(data)}
            write_atomically(data.sockets, json.dumps(note) + "\n")
            if _make(folder, account):
                return folder
    raise EmbeddedServerError("no folder for the servers' sockets can be made in /tmp. Make /tmp writable.")


def noted_socket_folder(data: DataFolder) -> Path | None:
    """The folder that was noted last for this data folder, None where there is none."""
    try:
        note = json.loads(data.sockets.read_text())
        return Path(str(note["folder"])) if note["of"] == _identity(data) else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def remove_sockets(folder: Path) -> None:
    """Remove what stopped servers left, and the folder where nothing else is in it."""
    for name in (POSTGRES_SOCKET, POSTGRES_SOCKET + ".lock", VALKEY_SOCKET):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def keep_fresh(folder: Path) -> None:
    """Mark folder and sockets as used, for programs that remove old files from /tmp."""
    with contextlib.suppress(OSError):
        for path in (folder, *folder.iterdir()):
            os.utime(path, follow_symlinks=False)


def _identity(data: DataFolder) -> list[int]:
    found = data.root.stat()
    return [found.st_dev, found.st_ino]


def _make(folder: Path, account: Account) -> bool:
    """Make the folder unless it is there; whether it is the account's alone."""
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or stat.S_IMODE(found.st_mode) != 0o700:
            return False
        if found.st_uid == os.geteuid():
            os.chown(folder, account.uid, account.gid, follow_symlinks=False)
        return folder.lstat().st_uid == account.uid
    except OSError:
        return False
