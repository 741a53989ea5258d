"""The garbage collector waits while many objects are made, and is left as it was found."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import pytest

from freeagentics_persistence.database.collector import collector_waits


@pytest.fixture(autouse=True)
def switched_on() -> Iterator[None]:
    gc.enable()
    yield
    gc.enable()


def test_nothing_is_collected_within_and_what_was_made_is_collected_after() -> None:
    counts = gc.get_stats()[0]["collections"]
    with collector_waits():
        made = [[] for _ in range(10 * gc.get_threshold()[0])]
        assert gc.get_stats()[0]["collections"] == counts
    made = [[] for _ in range(2)]
    assert gc.get_stats()[0]["collections"] > counts
    assert made


def test_it_is_on_again_after_an_error() -> None:
    with pytest.raises(ValueError, match="broken"), collector_waits():
        raise ValueError("broken")
    assert gc.isenabled()


def test_it_stays_off_where_the_program_switched_it_off() -> None:
    gc.disable()
    with collector_waits():
        pass
    assert not gc.isenabled()


def test_blocks_within_blocks_wait_until_the_outermost_ends() -> None:
    with collector_waits():
        with collector_waits():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_blocks_of_several_threads_wait_until_the_last_ends() -> None:
    first_is_in, second_is_in, first_is_out = threading.Event(), threading.Event(), threading.Event()
    seen: list[bool] = []

    def first() -> None:
        with collector_waits():
            first_is_in.set()
            second_is_in.wait(10)
        seen.append(gc.isenabled())
        first_is_out.set()

    def second() -> None:
        first_is_in.wait(10)
        with collector_waits():
            second_is_in.set()
            first_is_out.wait(10)
        seen.append(gc.isenabled())

    threads = [threading.Thread(target=each) for each in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert seen == [False, True]
