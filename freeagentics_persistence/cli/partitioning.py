"""``freeagentics-db partitions``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict

from rich.table import Table

from freeagentics_persistence.cli.terminal import console, note, print_json, say
from freeagentics_persistence.database import bootstrap
from freeagentics_persistence.database.engine import Database
from freeagentics_persistence.database.partitions import Partition, Upkeep, keep_partitions, list_partitions
from freeagentics_persistence.operations.servers import database_options, find_servers, partition_rules
from freeagentics_persistence.settings import Settings


async def print_partitions(settings: Settings, *, as_json: bool) -> None:
    """Print all partitions with what they hold."""
    rules = partition_rules(settings)
    async with AsyncExitStack() as stack:
        database = await _relay_database(settings, stack)
        connection = await database.connect()
        stack.push_async_callback(connection.close)
        with database.translated():
            found = await list_partitions(connection)
    if as_json:
        rows = [{**asdict(each), "expired": rules.expired(each)} for each in found]
        for row in rows:
            del row["now"]
        print_json({"partitions": rows})
    else:
        _print(found, [each.name for each in found if rules.expired(each)])


async def keep_once(settings: Settings, *, dry_run: bool, as_json: bool) -> None:
    """Do what the keeper does, once, and say what that was."""
    async with AsyncExitStack() as stack:
        database = await _relay_database(settings, stack)
        connection = await database.connect()
        stack.push_async_callback(connection.close)
        with database.translated():
            upkeep = await keep_partitions(connection, partition_rules(settings), dry_run=dry_run)
    if as_json:
        print_json({**asdict(upkeep), "dry_run": dry_run})
    else:
        _tell(upkeep, "would be " if dry_run else "")


async def _relay_database(settings: Settings, stack: AsyncExitStack) -> Database:
    urls = await find_servers(settings, stack, note)
    return Database(urls.relay, database_options(settings, bootstrap.RELAY), pooled=False)


def _print(found: Sequence[Partition], expired: Sequence[str]) -> None:
    table = Table(box=None, pad_edge=False)
    for title in ("partition", "from", "to"):
        table.add_column(title, no_wrap=True)
    for title in ("rows, about", "MiB"):
        table.add_column(title, no_wrap=True, justify="right")
    table.add_column("")
    for each in found:
        days = (f"{each.starts:%Y-%m-%d}", f"{each.ends:%Y-%m-%d}")
        state = "expired" if each.name in expired else "to come" if each.starts > each.now else ""
        table.add_row(each.name, *days, f"{each.rows:,}", f"{each.bytes / 2**20:,.1f}", state)
    console().print(table, soft_wrap=False)


def _tell(upkeep: Upkeep, would: str) -> None:
    for name in upkeep.made:
        say(f"{would}made {name}")
    for name in upkeep.dropped:
        say(f"{would}dropped {name}")
    for name in upkeep.busy:
        say(f"left for the next time, as somebody uses it: {name}")
    if not (upkeep.made or upkeep.dropped or upkeep.busy):
        say("nothing to make, and nothing to drop")
