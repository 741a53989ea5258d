"""The checker of consistency: that it finds what it is for, and that the store gives it nothing to find."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from freeagentics_persistence import Settings
from freeagentics_persistence.operations.servers import ServerUrls
from tests.conftest import settings_of
from tests.consistency.checker import check_consistency
from tests.consistency.journal import Seen, Write
from tests.consistency.killer import Killer
from tests.consistency.verdict import Feed, judge
from tests.faults.test_relay_killed import environment
from tests.support.redis_server import LocalRedis, valkey_program

HISTORY = {"a": [(1, "r1"), (2, "r2"), (3, "r3")]}
FAULTS = [
    ([Write("a", "r9", "acknowledged", 4)], HISTORY, HISTORY, "stored as versions []"),
    ([Write("a", "r2", "acknowledged", 3)], HISTORY, HISTORY, "stored as versions [2]"),
    ([Write("a", "r3", "acknowledged", 3, expected=1)], HISTORY, HISTORY, "does not follow"),
    ([Write("a", "r3", "refused")], HISTORY, HISTORY, "stored as versions [3]"),
    ([Seen("a", 2, "r2", 3, "session")], HISTORY, HISTORY, "goes backwards"),
    ([Seen("a", 3, "r2", 1, "strong")], HISTORY, HISTORY, "was never stored"),
    ([], {"a": [(1, "r1"), (3, "r3")]}, {"a": [(1, "r1"), (3, "r3")]}, "not contiguous"),
    ([], {"a": [(1, "r1"), (2, "r1")]}, {"a": [(1, "r1"), (2, "r1")]}, "applied 2 times"),
    ([], HISTORY, {"a": [(1, "r1"), (3, "r3")]}, "is not its history"),
    ([], HISTORY, {"a": [(2, "r2"), (1, "r1"), (3, "r3")]}, "is not its history"),
]


def feed_of(received: dict) -> Feed:
    feed = Feed()
    for agent, changes in received.items():
        for version, revision in changes:
            feed.received(agent, version, revision)
    return feed


@pytest.mark.parametrize(("journal", "history", "feed", "fault"), FAULTS)
def test_a_fault_is_found(journal: list, history: dict, feed: dict, fault: str) -> None:
    assert [fault in found for found in judge(journal, history, feed_of(feed)).faults] == [True]


def test_what_may_be_is_no_fault() -> None:
    journal = [
        *(Write("a", "r2", "acknowledged", 2, expected=1), Write("a", "r2", "repeated", 2)),
        *(Write("a", "r3", "unknown"), Write("a", "r9", "unknown"), Write("a", "r8", "refused")),
        Seen("a", 3, "r3", 3, "session"),
    ]
    verdict = judge(journal, HISTORY, feed_of({"a": [(1, "r1"), (2, "r2"), (2, "r2"), (3, "r3")]}))
    assert verdict.faults == []
    assert verdict.counts["updates received again"] == 1


async def test_processes_full_of_callers_leave_no_fault(settings: Settings, urls: ServerUrls, tmp_path: Path) -> None:
    verdict = await check_consistency(
        settings, environment(urls, settings), tmp_path, seconds=2, processes=2, callers=60, agents=8
    )
    assert verdict.faults == []
    kinds = ("acknowledged writes", "repeated writes", "refused writes", "unknown writes", "session reads")
    assert all(verdict.counts[kind] for kind in kinds)


def test_only_what_a_gap_was_told_of_may_be_missing() -> None:
    feed = feed_of({"a": [(1, "r1")]})
    feed.told_of_gap({"a": 2})
    feed.received("a", 3, "r3")
    assert judge([], HISTORY, feed).faults == []
    feed = feed_of({"a": [(1, "r1")]})
    feed.told_of_gap({"a": 1})
    feed.received("a", 3, "r3")
    assert len(judge([], HISTORY, feed).faults) == 1


async def test_what_fails_beside_them_leaves_no_fault(urls: ServerUrls, tmp_path: Path) -> None:
    program = valkey_program()
    assert program is not None
    assert urls.admin is not None
    redis = LocalRedis(program, tmp_path / "redis")
    redis.start()
    try:
        own = dataclasses.replace(urls, redis=redis.url)
        settings = settings_of(own)
        variables, faults = environment(own, settings), ("redis", "flush", "clients", "backends")
        killer = Killer(faults, variables, redis, urls.admin)
        verdict = await check_consistency(
            settings, variables, tmp_path, seconds=3, processes=1, callers=40, agents=8, killer=killer
        )
    finally:
        redis.stop()
    assert verdict.faults == []
    assert set(killer.done) == set(faults)
