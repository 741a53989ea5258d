"""The plans of what the code really sends: the server tells each connection how it ran every statement.

auto_explain reports as notices, those of statements inside functions too; what is looked at is what ran, with the
parameters, the role and the row-level security of the application.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest

EXPLAINED = {
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_nested_statements": "on",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_format": "json",
    "auto_explain.log_level": "notice",
}
HOT = (
    "agents",
    "deleted_agents",
    "agent_history",
    "accepted_revisions",
    "coalitions",
    "coalition_members",
    "coalition_performance",
    "events",
)


@dataclass
class Plans:
    """Plans that were reported since the last look."""

    found: list[dict[str, Any]] = field(default_factory=list)

    def note(self, _connection: object, message: Any) -> None:
        """Keep a plan that came as a notice."""
        text = str(message.message)
        if " plan:\n" in text:
            self.found.append(json.loads(text.partition(" plan:\n")[2]))

    async def taken(self) -> list[dict[str, Any]]:
        """The plans so far, without those; they are delivered by the event loop."""
        await asyncio.sleep(0.01)
        plans, self.found = self.found, []
        return plans


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All nodes of a plan, from the top."""
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def reads(plans: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Nodes that read one of the hot tables or a partition, and really ran."""
    for plan in plans:
        for node in nodes(plan["Plan"]):
            table = re.sub(r"_\d{4}_\d{2}(_\d{2})?$", "", node.get("Relation Name", ""))
            if table in HOT and node["Node Type"] != "ModifyTable" and node.get("Actual Loops", 1) > 0:
                yield node


def indexes(plans: list[dict[str, Any]]) -> set[str]:
    """Names of the indexes that were used; of the partitions' indexes, without the month."""
    names = {node["Index Name"] for plan in plans for node in nodes(plan["Plan"]) if "Index Name" in node}
    return {re.sub(r"_\d{4}_\d{2}_(\d{2}_)?", "_", name) for name in names}


def sequential(plans: list[dict[str, Any]]) -> list[str]:
    """Hot tables that were read from end to end; months that hold nothing yet do not count."""
    scans = [node for node in reads(plans) if node["Node Type"] == "Seq Scan"]
    return [scan["Relation Name"] for scan in scans if scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0) > 0]


def partitions(plans: list[dict[str, Any]]) -> set[str]:
    """Months of the history that were looked at."""
    names = {node["Relation Name"] for node in reads(plans)}
    return {name.removeprefix("agent_history_") for name in names if name.startswith("agent_history_")}


@contextmanager
def listening(plans: Plans) -> Iterator[None]:
    """Every connection that is opened meanwhile reports to ``plans``."""
    connect = asyncpg.connect

    async def connect_and_listen(*arguments: Any, **options: Any) -> asyncpg.Connection:
        connection = await connect(*arguments, **options)
        connection.add_log_listener(plans.note)
        return connection

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncpg, "connect", connect_and_listen)
        yield
