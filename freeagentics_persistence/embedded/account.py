"""Which user runs the servers: the caller, or an unprivileged one where the caller is root."""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from freeagentics_persistence.errors import EmbeddedServerError

if TYPE_CHECKING:
    from pathlib import Path

# Neither a person's, nor a package's, nor systemd's dynamic range: nobody else's processes have it.
_SERVER_UID = 65520
# Bits of CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_KILL, CAP_SETGID, CAP_SETUID in capabilities(7).
_NEEDED_POWERS = 1 << 0 | 1 << 1 | 1 << 5 | 1 << 6 | 1 << 7


@dataclass(frozen=True, kw_only=True)
class Account:
    """The user id and group id that server processes run with."""

    uid: int
    gid: int

    @property
    def is_other_user(self) -> bool:
        """True where processes have to change to this user."""
        return self.uid != os.geteuid()

    def data_argument(self, folder: Path) -> str:
        """How a server of this account names its folder.

        Another user may be unable to walk the path (a folder under /root), but the working directory is
        opened before the process changes its user, and this name leads there without walking.
        """
        return "/proc/self/cwd" if self.is_other_user else str(folder)

    def spawn(
        self, command: list[str], *, folder: Path, output: int, keep: tuple[int, ...], stdin: int = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        """Start a process in a session of its own, with a bare environment and umask 077.

        ``output`` gets stdout and stderr, ``keep`` are descriptors it inherits.
        """
        try:
            return subprocess.Popen(  # noqa: S603
                command,
                cwd=folder,
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
                stdin=stdin,
                stdout=output,
                stderr=output,
                pass_fds=keep,
                start_new_session=True,
                umask=0o077,
                user=self.uid if self.is_other_user else None,
                group=self.gid if self.is_other_user else None,
                extra_groups=[] if self.is_other_user else None,
            )
        except OSError as error:
            raise EmbeddedServerError(
                f"{command[0]} could not be run as user id {self.uid}: {error}. Run the program as an ordinary "
                "user, or set DATABASE_URL and REDIS_URL to servers of your own."
            ) from error


def server_account() -> Account:
    """The account that servers run with."""
    if os.geteuid() == 0:
        _refuse_powerless_root()
        return Account(uid=_SERVER_UID, gid=_SERVER_UID)
    return Account(uid=os.geteuid(), gid=os.getegid())


def maker_account() -> Account:
    """The account that makes a cluster: as the servers', but one with a name, which initdb insists on."""
    if os.geteuid() != 0:
        if not _has_name(os.geteuid()):
            raise EmbeddedServerError(
                f"user id {os.geteuid()} has no entry in the system's list of users, which PostgreSQL needs to make "
                "a database. Add one (a line in /etc/passwd), run as another user, or set DATABASE_URL."
            )
        return server_account()
    for entry in sorted(pwd.getpwall(), key=lambda entry: entry.pw_name != "nobody"):
        if entry.pw_uid != 0:
            return Account(uid=entry.pw_uid, gid=entry.pw_gid)
    raise EmbeddedServerError(
        "the system has no user but root, and PostgreSQL refuses to run as root. Add a user, or set DATABASE_URL."
    )


def _refuse_powerless_root() -> None:
    """Raise where root may not become another user, as in some containers."""
    with open("/proc/self/uid_map") as file:
        ranges = [[int(number) for number in line.split()] for line in file]
    with open("/proc/self/status") as file:
        powers = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))
    mapped = any(first <= _SERVER_UID < first + count for first, _, count in ranges)
    if not mapped or powers & _NEEDED_POWERS != _NEEDED_POWERS:
        raise EmbeddedServerError(
            f"root may not run programs as user id {_SERVER_UID} here (a container without that id, or without "
            "CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_KILL, CAP_SETGID and CAP_SETUID). Run as an ordinary user, or set "
            "DATABASE_URL and REDIS_URL to servers of your own."
        )


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True
