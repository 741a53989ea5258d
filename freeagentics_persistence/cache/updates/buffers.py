"""What waits for a subscriber: bounded in updates and in bytes of messages."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from freeagentics_persistence.cache.updates.update_message import ReceivedMessage


class UpdateBuffer:
    """Updates in the order of the feed: at most ``limit`` of at most ``limit_bytes``, though always one.

    ``dropped`` counts those that came and are not handed over.
    """

    def __init__(self, limit: int, limit_bytes: int) -> None:
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._waiting: deque[ReceivedMessage] = deque()
        self._bytes = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add_all(self, messages: Sequence[ReceivedMessage], size: int) -> int:
        """Let messages of together ``size`` bytes wait, in order, as far as there is room: how many were taken."""
        if len(self._waiting) + len(messages) <= self._limit and self._bytes + size <= self._limit_bytes:
            self._waiting.extend(messages)
            self._bytes += size
            return len(messages)
        for taken, message in enumerate(messages):
            if not self.add(message):
                return taken
        return len(messages)

    def add(self, message: ReceivedMessage) -> bool:
        """Let one wait; False, and nothing done, where there is no room."""
        waiting = len(self._waiting)
        if waiting and (waiting >= self._limit or self._bytes + message.size > self._limit_bytes):
            return False
        self._waiting.append(message)
        self._bytes += message.size
        return True

    def refill(self, messages: Sequence[ReceivedMessage]) -> None:
        """Let a page of the feed wait, whatever room there is. The buffer is empty before."""
        self._waiting.extend(messages)
        self._bytes = sum(message.size for message in messages)

    def pop(self) -> ReceivedMessage:
        """The next one. Raises IndexError where none waits."""
        message = self._waiting.popleft()
        self._bytes -= message.size
        return message

    def aside(self) -> UpdateBuffer:
        """One for what comes while the feed is being read."""
        return UpdateBuffer(self._limit // 2, self._limit_bytes // 2)

    def can_join(self, aside: UpdateBuffer) -> bool:
        """Whether what was put aside fits too, with room for more."""
        fits = not self._waiting or self._bytes + aside._bytes <= self._limit_bytes
        return fits and 2 * len(self._waiting) <= self._limit and 2 * self._bytes <= self._limit_bytes


class DropOldest(UpdateBuffer):
    """What has waited longest makes room."""

    def add(self, message: ReceivedMessage) -> bool:
        """Let one wait, in place of the oldest ones where there is no room."""
        while not super().add(message):
            self.pop()
            self.dropped += 1
        return True


class DropNewest(UpdateBuffer):
    """What comes is dropped while there is no room."""

    def add(self, message: ReceivedMessage) -> bool:
        """Let one wait, or drop it."""
        if not super().add(message):
            self.dropped += 1
        return True


class LatestOfEach(UpdateBuffer):
    """Of each agent only the newest update waits.

    While the caller takes one round of updates, the next one gathers, so that an agent that changes all the time has
    its turn in each round. Rounds come in the order of the feed, and one agent at most once in each.
    """

    def __init__(self, limit: int, limit_bytes: int) -> None:
        super().__init__(limit, limit_bytes)
        self._next: dict[str, ReceivedMessage] = {}
        self._next_bytes = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._next)

    def add_all(self, messages: Sequence[ReceivedMessage], size: int) -> int:
        """Let messages wait, each in place of the same agent's older one, as far as there is room: how many."""
        for taken, message in enumerate(messages):
            if not self.add(message):
                return taken
        return len(messages)

    def add(self, message: ReceivedMessage) -> bool:
        """Let one wait in place of the same agent's older one; False, and nothing done, where there is no room."""
        older = self._next.get(message.agent_id)
        places, freed = (0, 0) if older is None else (1, older.size)
        waiting = len(self) - places
        if waiting and (
            waiting >= self._limit or self._bytes + self._next_bytes - freed + message.size > self._limit_bytes
        ):
            return False
        if older is not None:
            del self._next[message.agent_id]  # so that the newer one stands at the end
            self.dropped += 1
        self._next[message.agent_id] = message
        self._next_bytes += message.size - freed
        return True

    def pop(self) -> ReceivedMessage:
        """The next one of this round, or the first of the next. Raises IndexError where none waits."""
        if not self._waiting:
            self.refill(list(self._next.values()))
            self._next.clear()
            self._next_bytes = 0
        return super().pop()
