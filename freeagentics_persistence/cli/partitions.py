"""The command ``partitions``; what it needs is imported when it runs, so that help appears at once."""

from __future__ import annotations

from typing import Annotated

import typer

from freeagentics_persistence.cli.terminal import run


def partitions(
    action: Annotated[
        str, typer.Argument(metavar="[keep]", help="'keep' makes and drops; without it they are listed.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what 'keep' would do, and undo it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for a script to read.")] = False,
) -> None:
    """List the partitions of history, or keep them: make those to come, and drop those past HISTORY_RETENTION_DAYS.

    A relay keeps them every hour by itself. 'keep' is for where none runs; it needs DATABASE_RELAY_URL.

    \b
    Examples:
      freeagentics-db partitions
      freeagentics-db partitions keep --dry-run
      freeagentics-db partitions --json | jq '.partitions[] | select(.expired) | .name'
    """
    if action not in ("", "keep"):
        raise typer.BadParameter(f"{action!r} is not keep.", param_hint="[keep]")
    if dry_run and not action:
        raise typer.BadParameter("--dry-run is for keep.")
    from freeagentics_persistence.settings import Settings

    settings = Settings.load()
    from freeagentics_persistence.cli.partitioning import keep_once, print_partitions

    run(
        keep_once(settings, dry_run=dry_run, as_json=as_json) if action else print_partitions(settings, as_json=as_json)
    )
