"""Single reads that wait at the same time travel together, and none disturbs another."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from freeagentics_persistence.database.reads.shared_reads import FLIGHTS, MAX_KEYS, SharedReads
from freeagentics_persistence.errors import EnvelopeRejected, Overloaded, PersistenceError, StoreClosed


class Flights:
    """A read that notes what it is asked for, and answers each flight when it is told to."""

    def __init__(self, *, held: bool = False) -> None:
        self.asked: list[list[int]] = []
        self.bad: dict[int, PersistenceError] = {}
        self.gate = asyncio.Event()
        if not held:
            self.gate.set()

    async def __call__(self, keys: Sequence[int]) -> list[str | PersistenceError]:
        number = len(self.asked)
        self.asked.append(list(keys))
        await self.gate.wait()
        if -1 in keys:
            raise EnvelopeRejected("the whole flight")
        return [self.bad.get(key, f"{key} of flight {number}") for key in keys]

    async def left(self, count: int) -> None:
        """Wait until so many flights have left."""
        async with asyncio.timeout(10):
            while len(self.asked) < count:
                await asyncio.sleep(0)


def calls(reads: SharedReads[int, str], keys: Sequence[int]) -> list[asyncio.Task[str]]:
    return [asyncio.get_running_loop().create_task(reads.get(key)) for key in keys]


async def test_calls_of_the_same_turn_share_a_flight_and_each_key_is_read_once() -> None:
    flights = Flights()
    reads = SharedReads[int, str](flights, limit=100)
    assert await asyncio.gather(*calls(reads, [1, 2, 1])) == ["1 of flight 0", "2 of flight 0", "1 of flight 0"]
    assert await reads.get(3) == "3 of flight 1"
    assert flights.asked == [[1, 2], [3]]


async def test_a_call_is_answered_by_a_flight_that_left_after_it() -> None:
    flights = Flights(held=True)
    reads = SharedReads[int, str](flights, limit=100)
    first = calls(reads, [1])
    await flights.left(1)
    later = calls(reads, [1])
    await flights.left(2)
    flights.gate.set()
    assert await first[0] == "1 of flight 0"
    assert await later[0] == "1 of flight 1"


async def test_what_comes_while_all_flights_are_away_shares_the_next() -> None:
    flights = Flights(held=True)
    reads = SharedReads[int, str](flights, limit=10_000)
    waiting = []
    for key in range(FLIGHTS):
        waiting += calls(reads, [key])
        await flights.left(key + 1)
    waiting += calls(reads, range(100, 100 + MAX_KEYS + 5))
    await asyncio.sleep(0)
    assert len(flights.asked) == FLIGHTS
    flights.gate.set()
    await asyncio.gather(*waiting)
    assert [len(keys) for keys in flights.asked] == [1] * FLIGHTS + [MAX_KEYS, 5]


async def test_all_who_wait_for_one_key_share_its_flight_however_many_they_are() -> None:
    flights = Flights(held=True)
    reads = SharedReads[int, str](flights, limit=10_000)
    first = calls(reads, range(FLIGHTS))
    await flights.left(1)
    keys = [100 + i % 10 for i in range(10 * MAX_KEYS)]
    hot = calls(reads, keys)
    await asyncio.sleep(0)
    flights.gate.set()
    await asyncio.gather(*first)
    assert await asyncio.gather(*hot) == [f"{key} of flight {len(flights.asked) - 1}" for key in keys]
    assert flights.asked[-1] == list(range(100, 110))


async def test_a_cancelled_caller_disturbs_nobody_and_is_not_read_for() -> None:
    flights = Flights(held=True)
    reads = SharedReads[int, str](flights, limit=100)
    away = calls(reads, [1, 1, 2])
    await flights.left(1)
    away[0].cancel()
    full = []
    for number in range(1, FLIGHTS):
        full += calls(reads, [10 + number])
        await flights.left(number + 1)
    waiting = calls(reads, [3, 4, 4])
    await asyncio.sleep(0)
    for task in waiting[:2]:
        task.cancel()
    await asyncio.wait(waiting[:2])
    flights.gate.set()
    assert await asyncio.gather(*away[1:]) == ["1 of flight 0", "2 of flight 0"]
    assert await waiting[2] == f"4 of flight {FLIGHTS}"
    assert [flights.asked[0], flights.asked[-1]] == [[1, 2], [4]]
    assert len(await asyncio.gather(*full)) == FLIGHTS - 1


async def test_one_key_that_fails_fails_its_own_callers_alone() -> None:
    flights = Flights()
    flights.bad[2] = EnvelopeRejected("the second")
    reads = SharedReads[int, str](flights, limit=100)
    ended = await asyncio.gather(*calls(reads, [1, 2, 2, 3]), return_exceptions=True)
    assert (ended[0], ended[3]) == ("1 of flight 0", "3 of flight 0")
    errors = [error for error in ended if isinstance(error, EnvelopeRejected)]
    assert [str(error) for error in errors] == ["the second"] * 2
    assert errors[0] is not errors[1]


async def test_what_the_read_raises_all_of_its_flight_get_and_the_next_goes_on() -> None:
    flights = Flights()
    reads = SharedReads[int, str](flights, limit=100)
    ended = await asyncio.gather(*calls(reads, [1, -1]), return_exceptions=True)
    assert [str(error) for error in ended] == ["the whole flight"] * 2
    assert await reads.get(1) == "1 of flight 1"


async def test_too_many_waiting_are_refused() -> None:
    flights = Flights(held=True)
    reads = SharedReads[int, str](flights, limit=3)
    waiting = calls(reads, [1, 2, 2, 3])
    refused = (await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED))[0].pop()
    assert refused is waiting[3]
    with pytest.raises(Overloaded, match="DATABASE_READ_QUEUE"):
        await refused
    flights.gate.set()
    await asyncio.gather(*waiting[:3])
    assert await reads.get(3)


async def test_closing_ends_all_who_wait_and_does_not_wait_for_the_server() -> None:
    flights = Flights(held=True)
    reads = SharedReads[int, str](flights, limit=1000)
    waiting = calls(reads, range(MAX_KEYS * FLIGHTS + 1))
    await flights.left(FLIGHTS)
    await reads.close()
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(error) for error in ended} == {StoreClosed}
    with pytest.raises(StoreClosed):
        await reads.get(1)
    assert len(flights.asked) == FLIGHTS


async def test_closing_ends_who_came_a_moment_before() -> None:
    flights = Flights()
    reads = SharedReads[int, str](flights, limit=100)
    (call,) = calls(reads, [1])
    await asyncio.sleep(0)
    await reads.close()
    with pytest.raises(StoreClosed):
        await call
    assert flights.asked == []
