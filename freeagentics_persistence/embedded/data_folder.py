"""What is where in a data folder, and whether it can be used.

README.txt       what this folder is
secrets.json     passwords (0600)
sockets.json     where the servers' sockets are
locks/           kernel locks; their contents do not matter
logs/            postgres.log, valkey.log, watchdog.log
postgres/        the PostgreSQL cluster
valkey/          what Valkey held when it stopped
"""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from freeagentics_persistence.embedded.files import write_atomically
from freeagentics_persistence.embedded.machine import MIB
from freeagentics_persistence.errors import DataFolderUnusable

if TYPE_CHECKING:
    from collections.abc import Iterator

_ANOTHER_FOLDER = "or choose another folder with FREEAGENTICS_DATA_FOLDER"
_FIRST_START_MIB = 256
_README = """\
Data of freeagentics-persistence: a PostgreSQL cluster (postgres/) and what Valkey held when it stopped
(valkey/).

The servers start when a program needs them and stop when the last one has left. To copy or move this folder,
end those programs first and take the whole folder, with secrets.json: it has the passwords.
To begin anew, end them and remove the folder.
"""


@dataclass(frozen=True)
class DataFolder:
    """The paths of one data folder; ``root`` is absolute."""

    root: Path

    @property
    def secrets(self) -> Path:
        """The file with the passwords."""
        return self.root / "secrets.json"

    @property
    def sockets(self) -> Path:
        """The file that names the folder of the sockets."""
        return self.root / "sockets.json"

    @property
    def locks(self) -> Path:
        """The folder of the lock files."""
        return self.root / "locks"

    @property
    def logs(self) -> Path:
        """The folder of the logs."""
        return self.root / "logs"

    @property
    def postgres(self) -> Path:
        """The cluster, which is whole if it is there."""
        return self.root / "postgres"

    @property
    def valkey(self) -> Path:
        """Valkey's folder."""
        return self.root / "valkey"

    def prepare(self) -> None:
        """Make what is missing. Raises DataFolderUnusable where the folder cannot be used or is not ours."""
        with folder_problems(self.root):
            self._refuse_foreign()
            if not self.root.is_dir():
                self.root.parent.mkdir(parents=True, exist_ok=True)
                self.root.mkdir(mode=0o700, exist_ok=True)
            for folder in (self.locks, self.logs):
                folder.mkdir(mode=0o700, exist_ok=True)
            if not os.access(self.root, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.root))

    def tidy(self) -> None:
        """Remove what a killed process left half-written, and explain the folder. The caller holds the start lock."""
        for folder in (self.root, self.postgres, self.valkey):
            for half_written in folder.glob("*.*.new"):
                half_written.unlink()
        readme = self.root / "README.txt"
        if not readme.exists():
            write_atomically(readme, _README)

    def demand_space(self) -> None:
        """Refuse to make a cluster where the disk has no room for one."""
        free = shutil.disk_usage(self.root).free
        if free < _FIRST_START_MIB * MIB:
            raise DataFolderUnusable(
                f"{self.root}: only {free // MIB} MiB are free, a first start needs {_FIRST_START_MIB}. "
                f"Free some space, {_ANOTHER_FOLDER}."
            )

    def _refuse_foreign(self) -> None:
        if self.locks.is_dir():
            owner = self.locks.stat().st_uid
            if owner != os.geteuid():
                raise DataFolderUnusable(
                    f"{self.root} belongs to user id {owner}, this program runs as {os.geteuid()}. "
                    f"Run it as that user, {_ANOTHER_FOLDER}."
                )
        elif self.postgres.exists() or self.valkey.exists():
            raise DataFolderUnusable(
                f"{self.root} holds data that this package did not put there. "
                "Choose another folder with FREEAGENTICS_DATA_FOLDER."
            )


@contextmanager
def folder_problems(folder: Path) -> Iterator[None]:
    """Turn what the system says about a folder into DataFolderUnusable."""
    try:
        yield
    except OSError as error:
        raise DataFolderUnusable(
            f"{error.filename or folder}: {error.strerror or error}. {_remedy(error)}, {_ANOTHER_FOLDER}."
        ) from error


def _remedy(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "Free some disk space"
    if isinstance(error, FileExistsError | NotADirectoryError):
        return "A file is where a folder has to be: move it away"
    return f"Make it a folder that user id {os.geteuid()} can write to"


def default_data_folder() -> Path:
    """The user's data folder for this package. It is not made here."""
    from platformdirs import user_data_path

    return user_data_path("freeagentics-persistence", appauthor=False)
