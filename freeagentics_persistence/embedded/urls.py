"""The addresses of the embedded servers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from pathlib import Path

    from freeagentics_persistence.embedded.secrets_file import ServerSecrets

ADMIN = "postgres"
MIGRATOR = "freeagentics_migrator_login"
APP = "freeagentics_app_login"
RELAY = "freeagentics_relay_login"
LOGINS = (MIGRATOR, APP, RELAY)
DATABASE = "freeagentics"
POSTGRES_PORT = 5432
POSTGRES_SOCKET = f".s.PGSQL.{POSTGRES_PORT}"
VALKEY_SOCKET = "valkey.sock"


@dataclass(frozen=True, kw_only=True, repr=False)
class EmbeddedUrls:
    """One URL for each role of PostgreSQL, and one for Valkey. They hold passwords; ``repr`` shows none.

    ``admin_url`` is the superuser; the others are restricted logins. All are on unix sockets.
    """

    admin_url: str
    migrator_url: str
    app_url: str
    relay_url: str
    redis_url: str

    def __repr__(self) -> str:
        return "EmbeddedUrls(...)"


def embedded_urls(socket_folder: Path, secrets: ServerSecrets) -> EmbeddedUrls:
    """The URLs for servers that listen in ``socket_folder``."""

    def postgres(role: str) -> str:
        query = f"host={quote(str(socket_folder), safe='/')}&port={POSTGRES_PORT}"
        return f"postgresql://{role}:{secrets.passwords[role]}@/{DATABASE}?{query}"

    return EmbeddedUrls(
        admin_url=postgres(ADMIN),
        migrator_url=postgres(MIGRATOR),
        app_url=postgres(APP),
        relay_url=postgres(RELAY),
        redis_url=f"unix://:{secrets.valkey_password}@{quote(str(socket_folder / VALKEY_SOCKET))}?db=0",
    )
