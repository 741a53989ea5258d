"""``freeagentics-db generate-key``."""

from __future__ import annotations

import os
from pathlib import Path

from freeagentics_persistence.cli.terminal import note, say
from freeagentics_persistence.encryption.key_providers import create_key_file, generate_key
from freeagentics_persistence.errors import AlreadyExists

_KEEP = "Keep a copy of it in a safe place: without it no belief can be read again."


def print_key() -> None:
    """A key on stdout and nothing else, so that it can be captured."""
    print(generate_key(), flush=True)  # noqa: T201 - the result
    note(f"Put it into ENCRYPTION_KEY. {_KEEP}")


def write_key(path: Path) -> None:
    """A key in a new file of mode 0600. Raises AlreadyExists, ConfigurationError."""
    if os.path.lexists(path):
        raise AlreadyExists(f"{path} exists already and was not touched. Name a new file.")
    create_key_file(path)
    say(f"wrote {path}")
    note(f"Name it in ENCRYPTION_KEY_FILE. {_KEEP}")
