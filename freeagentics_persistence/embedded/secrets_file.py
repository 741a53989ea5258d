"""The passwords of one data folder's servers, made on first use."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from freeagentics_persistence.embedded.files import write_atomically
from freeagentics_persistence.embedded.urls import ADMIN, LOGINS
from freeagentics_persistence.errors import DataFolderUnusable

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, kw_only=True, repr=False)
class ServerSecrets:
    """Passwords (letters, digits, - and _) by PostgreSQL role, and Valkey's."""

    passwords: dict[str, str]
    valkey_password: str


def new_secrets() -> ServerSecrets:
    """Fresh random passwords."""
    return ServerSecrets(
        passwords={role: secrets.token_urlsafe(24) for role in (ADMIN, *LOGINS)},
        valkey_password=secrets.token_urlsafe(24),
    )


def save_secrets(path: Path, values: ServerSecrets) -> None:
    """Write the file, readable by its owner alone."""
    document = {"postgres": values.passwords, "valkey": values.valkey_password}
    write_atomically(path, json.dumps(document, indent=2) + "\n")


def load_secrets(path: Path) -> ServerSecrets | None:
    """The stored passwords, None where there is no file. Raises DataFolderUnusable where it is not whole."""
    try:
        document = json.loads(path.read_text())
        passwords = {role: str(document["postgres"][role]) for role in (ADMIN, *LOGINS)}
        return ServerSecrets(passwords=passwords, valkey_password=str(document["valkey"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DataFolderUnusable(
            f"{path} does not hold the servers' passwords ({error!r}). Remove that file while no process uses the "
            "folder: the next start makes new passwords and keeps the data."
        ) from error
