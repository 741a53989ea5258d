"""What must be true at the end, given the journals, the feed that was followed, and what the store holds."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.consistency.journal import Seen, Write

Key = tuple[str, str]  # agent, revision


@dataclass(slots=True)
class Verdict:
    """What was counted, and everything that must not be."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def require(self, holds: bool, fault: str) -> None:
        """Note a fault where it does not hold."""
        if not holds:
            self.faults.append(fault)


@dataclass(slots=True)
class Feed:
    """What a subscriber received, and what it was told that it would not receive."""

    updates: dict[str, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))
    gaps: int = 0
    _gone: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))

    def received(self, agent: str, version: int, revision: str) -> None:
        """One update."""
        self.updates[agent].append((version, revision))

    def told_of_gap(self, versions: Mapping[str, int]) -> None:
        """Updates are gone; the agents, read again, were at these versions."""
        self.gaps += 1
        for agent, version in versions.items():
            self._gone[agent].update(range(self.last(agent) + 1, version + 1))

    def last(self, agent: str) -> int:
        """The version received last."""
        return self.updates[agent][-1][0] if self.updates[agent] else 0

    def newest(self, agent: str) -> int:
        """The newest version that was received or read."""
        return max(self.last(agent), *self._gone[agent], 0)

    def is_history(self, agent: str, changes: Sequence[tuple[int, str]]) -> bool:
        """Whether all changes came in their order, but for those that a gap was told of."""
        received = dict.fromkeys(self.updates[agent])
        gone = self._gone[agent]
        due = [tuple(change) for change in changes]
        return list(received) == [change for change in due if change in received or change[0] not in gone]


def judge(
    journal: Iterable[Write | Seen],
    history: Mapping[str, Sequence[tuple[int, str]]],
    feed: Feed,
) -> Verdict:
    """``history``: (version, revision) of each agent in order; ``feed``: the same as a subscriber received it."""
    verdict = Verdict()
    stored: dict[Key, list[int]] = defaultdict(list)
    for agent, changes in history.items():
        versions = [version for version, _ in changes]
        verdict.require(versions == list(range(1, len(versions) + 1)), f"versions of {agent} are not contiguous")
        verdict.counts["versions"] += len(versions)
        for version, revision in changes:
            stored[agent, revision].append(version)
    for key, versions in stored.items():
        verdict.require(len(versions) == 1, f"{key} was applied {len(versions)} times, as versions {versions}")
    _judge_feed(verdict, history, feed)
    for entry in journal:
        if isinstance(entry, Write):
            _judge_write(verdict, entry, stored.get((entry.agent, entry.revision), []))
        else:
            _judge_seen(verdict, entry, stored.get((entry.agent, entry.revision), []))
    return verdict


def _judge_write(verdict: Verdict, write: Write, versions: Sequence[int]) -> None:
    verdict.counts[f"{write.outcome} writes"] += 1
    if write.error:
        verdict.counts[f"{write.outcome}: {write.error}"] += 1
    if write.outcome in ("acknowledged", "repeated"):
        verdict.require(list(versions) == [write.version], f"{write} is stored as versions {versions}")
    if write.outcome == "acknowledged" and write.expected is not None:
        verdict.require(write.version == write.expected + 1, f"{write} does not follow what it expected")
    if write.outcome == "refused":
        verdict.require(not versions, f"{write} is stored as versions {versions}")


def _judge_seen(verdict: Verdict, seen: Seen, versions: Sequence[int]) -> None:
    verdict.counts[f"{seen.how} reads"] += 1
    verdict.require(seen.version in versions, f"{seen} was never stored: that revision has versions {versions}")
    verdict.require(seen.version >= seen.floor, f"{seen} goes backwards")


def _judge_feed(verdict: Verdict, history: Mapping[str, Sequence[tuple[int, str]]], feed: Feed) -> None:
    verdict.counts["gaps told"] += feed.gaps
    for agent, changes in history.items():
        received = feed.updates[agent]
        verdict.counts["updates received"] += len(received)
        verdict.counts["updates received again"] += len(received) - len(set(received))
        verdict.require(feed.is_history(agent, changes), f"the feed of {agent} is not its history")
