"""The private folder of the servers' sockets.

A socket's path must be shorter than 108 bytes, so it cannot always be in the data folder. The folder has a
random name that is noted in the data folder and kept, so that clients find the servers again after a restart.
The note names the data folder too, by its inode: a copy of the data folder must not take over its sockets.
"""

from __future__ import annotations

import contextlib
import json
import os
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
    """The noted folder if it is sound, made again if it is gone; else a new one, noted."""
    noted = noted_socket_folder(data)
    if noted is not None:
        with contextlib.suppress(FileExistsError, FileNotFoundError, PermissionError):
            noted.mkdir(mode=0o700)
            _give(noted, account)
        if _is_private(noted, account):
            return noted
    folder = _new_folder(account)
    write_atomically(data.sockets, json.dumps({"folder": str(folder), "of": _identity(data)}) + "\n")
    return folder


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


def _new_folder(account: Account) -> Path:
    places = ["/run"] if account.is_other_user else []
    for place in (*places, "/tmp", tempfile.gettempdir()):  # noqa: S108 - mkdtemp is safe there
        with contextlib.suppress(OSError):
            folder = Path(tempfile.mkdtemp(prefix="freeagentics-", dir=place))
            if len(os.fsencode(folder / POSTGRES_SOCKET)) <= _LONGEST_PATH:
                _give(folder, account)
                return folder
            folder.rmdir()
    raise EmbeddedServerError("no folder for the servers' sockets can be made in /tmp. Make /tmp writable.")


def _give(folder: Path, account: Account) -> None:
    if account.is_other_user:
        os.chown(folder, account.uid, account.gid, follow_symlinks=False)


def _is_private(folder: Path, account: Account) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == account.uid and stat.S_IMODE(found.st_mode) == 0o700
