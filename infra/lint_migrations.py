"""Lint the SQL of every migration with squawk, one file per revision, without a database.

Exit status: squawk's own, non-zero where a statement would lock or break a running system.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

ROOT = Path(__file__).resolve().parent.parent


def upgrade_sql(down_revision: str, revision: str) -> str:
    """Return the SQL that takes a database from one revision to the next."""
    buffer = io.StringIO()
    config = Config(str(ROOT / "alembic.ini"), output_buffer=buffer)
    command.upgrade(config, f"{down_revision}:{revision}", sql=True)
    return buffer.getvalue()


def write_sql(folder: Path) -> list[str]:
    """Write the SQL of each revision into `folder`, oldest first; return the file names."""
    script = ScriptDirectory.from_config(Config(str(ROOT / "alembic.ini")))
    names: list[str] = []
    for revision in reversed([*script.walk_revisions()]):
        down = revision.down_revision
        if not isinstance(down, str | None):
            raise SystemExit(f"migration {revision.revision} merges branches; the history must be one line")
        name = f"{len(names) + 1:03d}_{revision.revision}.sql"
        (folder / name).write_text(upgrade_sql(down or "base", revision.revision))
        names.append(name)
    return names


def main() -> int:
    """Lint all migrations; return the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        names = write_sql(Path(folder))
        if not names:
            raise SystemExit("no migrations found under migrations/versions")
        squawk = [str(Path(sys.executable).with_name("squawk")), "--config", str(ROOT / ".squawk.toml")]
        reporter = ["--reporter", "tty" if sys.stdout.isatty() else "gcc"]
        return subprocess.run([*squawk, *reporter, *names], cwd=folder, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
