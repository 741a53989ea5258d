"""Buffers of subscribers, held against the plain words of what each promises."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freeagentics_persistence.cache.updates.buffers import DropNewest, DropOldest, LatestOfEach, UpdateBuffer
from freeagentics_persistence.cache.updates.update_message import ReceivedMessage
from freeagentics_persistence.domain.events import FeedPosition

LIMIT, BYTES = 5, 100
KINDS = [UpdateBuffer, DropOldest, DropNewest, LatestOfEach]

# what comes in batches of (agent, size of its message), and how many the caller takes then
steps = st.lists(
    st.tuples(st.lists(st.tuples(st.sampled_from("abcdefg"), st.integers(1, 60)), max_size=8), st.integers(0, 6)),
    max_size=30,
)


class Run:
    """A buffer with its caller: all that ``came``, and was ``handed`` over, until ``over``."""

    def __init__(self, kind: type[UpdateBuffer]) -> None:
        self.buffer = kind(LIMIT, BYTES)
        self.came: list[ReceivedMessage] = []
        self.handed: list[ReceivedMessage] = []
        self.over = False

    def come(self, batch: Sequence[tuple[str, int]]) -> None:
        first = len(self.came) + 1
        messages = [
            ReceivedMessage(FeedPosition(1, n), agent, {}, size) for n, (agent, size) in enumerate(batch, first)
        ]
        taken = self.buffer.add_all(messages, sum(size for _, size in batch))
        self.came += messages[:taken]
        self.over = taken < len(messages)

    def take(self, count: int) -> None:
        self.handed += [self.buffer.pop() for _ in range(min(count, len(self.buffer)))]

    def waiting(self) -> list[ReceivedMessage]:
        """What waits, taken out."""
        return [self.buffer.pop() for _ in range(len(self.buffer))]


def run(kind: type[UpdateBuffer], given_steps: list) -> Run:
    made = Run(kind)
    for batch, count in given_steps:
        made.come(batch)
        if made.over:
            return made
        made.take(count)
    return made


@given(steps, st.sampled_from(KINDS))
def test_updates_are_handed_over_in_order_or_counted_and_bounded(given_steps: list, kind: type[UpdateBuffer]) -> None:
    made = run(kind, given_steps)
    waiting = made.waiting()
    assert len(waiting) <= LIMIT
    assert len(waiting) <= 1 or sum(message.size for message in waiting) <= BYTES
    positions = [message.position for message in made.handed + waiting]
    assert positions == sorted(set(positions))
    assert len(made.came) == len(positions) + made.buffer.dropped
    assert len(made.buffer) == 0
    with pytest.raises(IndexError):
        made.buffer.pop()


@given(steps, st.sampled_from([UpdateBuffer, DropOldest, DropNewest]))
def test_each_kind_drops_what_it_says(given_steps: list, kind: type[UpdateBuffer]) -> None:
    made, waiting, handed = Run(kind), [], []

    def full(size: int) -> bool:
        return bool(waiting) and (len(waiting) == LIMIT or sum(m.size for m in waiting) + size > BYTES)

    for batch, count in given_steps:
        known = len(made.came)
        made.come(batch)
        for message in made.came[known:]:
            while kind is DropOldest and full(message.size):
                waiting.pop(0)
            if not full(message.size):
                waiting.append(message)
        assert made.over == (kind is UpdateBuffer and len(made.came) < known + len(batch))
        if made.over:
            assert full(batch[len(made.came) - known][1])
            break
        made.take(count)
        handed, waiting = handed + waiting[:count], waiting[count:]
    assert (made.handed, made.waiting()) == (handed, waiting)


@given(steps)
def test_of_each_agent_the_newest_is_handed_over_in_its_turn(given_steps: list) -> None:
    made = Run(LatestOfEach)
    due: dict[str, int] = {}  # how many may still be handed over before this agent's turn
    for batch, count in given_steps:
        made.come(batch)
        if made.over:
            break
        for agent, _ in batch:
            due.setdefault(agent, 2 * LIMIT)
        for _ in range(min(count, len(made.buffer))):
            taken = made.buffer.pop()
            due = {agent: left - 1 for agent, left in due.items() if agent != taken.agent_id}
            assert all(left > 0 for left in due.values())
            made.handed.append(taken)
            if any(m.agent_id == taken.agent_id and m.position > taken.position for m in made.came):
                due[taken.agent_id] = 2 * LIMIT
    seen = made.handed + made.waiting()
    newest = {message.agent_id: message for message in made.came}
    assert {message.agent_id: message for message in seen} == newest
