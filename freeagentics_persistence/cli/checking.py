"""``freeagentics-db check``."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from freeagentics_persistence.cli.terminal import console, note, print_json, say
from freeagentics_persistence.operations.findings import HealthReport
from freeagentics_persistence.operations.health import check_health
from freeagentics_persistence.settings import Settings


async def check_servers(settings: Settings, *, as_json: bool) -> bool:
    """Print how the servers are; whether nothing is wrong."""
    report = await check_health(settings, progress=note)
    if as_json:
        print_json(report.as_dict())
    else:
        _print(report)
    return report.ok


def _print(report: HealthReport) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in report.findings:
        mark = Text("ok", "green") if finding.ok else Text("WRONG", "bold red")
        table.add_row(mark, finding.subject, finding.summary)
    console().print(table, soft_wrap=False)
    for finding in report.findings:
        if finding.remedy is not None:
            say(f"next, for {finding.subject}: {finding.remedy}")
    if report.ok:
        console().print("Everything is as it should be.", style="green")
