"""The reference of a run, and what the subscriber and the check hold against it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import h3
import numpy as np
import pytest

from freeagentics_persistence.cache.updates.update_message import AgentUpdate
from freeagentics_persistence.demo.city import NOWHERE, City, World
from freeagentics_persistence.demo.concurrency import together
from freeagentics_persistence.demo.generative_model import GenerativeModel
from freeagentics_persistence.demo.listener import Listener
from freeagentics_persistence.demo.record import (
    MAX_KEPT_BYTES,
    Differences,
    Record,
    batch_of,
    cell_numbers,
    compare_batches,
)
from freeagentics_persistence.demo.swarm import Swarm
from freeagentics_persistence.demo.verify import WINDOW, window_means
from freeagentics_persistence.domain.beliefs.batch import BeliefBatch

START = datetime(2026, 1, 1, tzinfo=UTC)
IDS = [uuid4() for _ in range(3)]


def make_swarm(agents: int = 3) -> Swarm:
    rng = np.random.default_rng(1)
    model = GenerativeModel.of_demand()
    return Swarm(agents, World(City.amsterdam(agents), model.B, model.D, rng), model, rng)


def record_of(writes: int, bytes_a_write: int = 1) -> Record:
    record, swarm = Record(IDS, writes, bytes_a_write), make_swarm()
    cells = cell_numbers(swarm.world.city)
    for step in range(writes):
        swarm.step()
        record.announce(step, swarm, batch_of(swarm, cells), last=step == writes - 1, inferred=step > 0)
        with record.timed():
            pass
    return record


def update(agent_id: UUID, version: int, moment: datetime) -> AgentUpdate:
    return AgentUpdate(
        agent_id=agent_id,
        tenant_id=uuid4(),
        type="beliefs.updated",
        epoch=uuid4(),
        version=version,
        revision=uuid4(),
        timestamp=moment,
        position="",
        readable=None,
        envelope=None,
        sealer=None,  # type: ignore[arg-type] - these carry no envelope to open
    )


async def received(record: Record, arrivals: list[tuple[UUID, int]], moment: datetime = START) -> Listener:
    """A listener to which these versions came."""
    listener = Listener(record, len(record))

    async def updates():  # type: ignore[no-untyped-def]
        for agent_id, version in arrivals:
            yield update(agent_id, version, moment + timedelta(milliseconds=version))

    await listener.listen(updates())
    return listener


def test_a_batch_tells_which_cells_its_beliefs_are_about() -> None:
    swarm = make_swarm(40)
    batch = batch_of(swarm, cell_numbers(swarm.world.city))
    assert batch.problems() == {}
    for number, beliefs in enumerate(batch):
        assert beliefs is not None
        assert (beliefs["demand"] == swarm.qs[number]).all()
        window = [0 if n == NOWHERE else h3.str_to_int(swarm.world.city.cells[n]) for n in swarm.windows[number]]
        assert beliefs["window"].tolist() == window
    np.testing.assert_allclose(batch.statistics().entropy, swarm.entropy)


def test_a_short_run_is_kept_whole_and_a_long_one_thinned_with_its_end() -> None:
    assert record_of(6).kept_versions() == [1, 2, 3, 4, 5, 6]
    assert record_of(6, bytes_a_write=MAX_KEPT_BYTES // 3).kept_versions() == [1, 3, 5, 6]


def test_a_version_is_a_write() -> None:
    record = record_of(3)
    assert record.writes[0].free_energy is None
    assert record.writes[1].free_energy is not None
    assert record.beliefs_of_version(2) is record.writes[1].beliefs
    assert record.beliefs_of_version(0) is None
    assert record.beliefs_of_version(4) is None


def test_beliefs_are_compared_to_the_last_bit() -> None:
    q = np.random.default_rng(0).dirichlet(np.ones(4), size=3)
    other = q.copy()
    other[1, 2] = np.nextafter(other[1, 2], 1)
    count, same = compare_batches(BeliefBatch(q.copy()), BeliefBatch(q), IDS, range(3), "here")
    assert (count, same.found()) == (3, ())
    _, different = compare_batches(BeliefBatch(other), BeliefBatch(q), IDS, range(3), "here")
    assert different.found() == (f"here: agent {IDS[1]} has other beliefs than it holds",)
    absent = BeliefBatch.from_rows([q[0], None, q[2]])
    _, missing = compare_batches(absent, BeliefBatch(q), IDS, range(3), "here")
    assert missing.found() == (f"here: agent {IDS[1]} is missing",)


def test_many_differences_are_counted_rather_than_listed() -> None:
    differences = Differences()
    for number in range(1500):
        differences.add(str(number))
    assert len(differences.found()) == 21
    assert differences.found()[-1] == "and 1,480 more"


async def test_versions_in_order_are_as_they_should_be() -> None:
    record = record_of(2)
    listener = await received(record, [(i, v) for v in (1, 2) for i in IDS])
    assert listener.has_all()
    assert listener.order.found() == ()
    assert listener.moment(2) == START + timedelta(milliseconds=2)


@pytest.mark.parametrize(
    ("arrivals", "said"),
    [
        ([(IDS[0], 1), (IDS[0], 3)], "version 3 came after version 1"),
        ([(IDS[0], 2), (IDS[0], 1)], "version 2 came after version 0"),
        ([(IDS[0], 1), (IDS[0], 2), (IDS[0], 3), (IDS[0], 4)], "version 4 came and was never written"),
        ([(uuid4(), 1)], "not of this run"),
    ],
)
async def test_a_gap_a_swap_and_a_stranger_are_noticed(arrivals: list[tuple[UUID, int]], said: str) -> None:
    listener = await received(record_of(3), arrivals)
    assert said in listener.order.found()[0]
    assert not listener.has_all()


async def test_an_update_may_come_twice() -> None:
    listener = await received(record_of(2), [(IDS[0], 1), (IDS[0], 1), (IDS[0], 2), (IDS[0], 1)])
    assert listener.order.found() == ()
    assert listener.repeated == 2


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(hours=2), timedelta(hours=-2)])
async def test_delays_allow_for_a_clock_of_another_machine(ahead: timedelta) -> None:
    record = record_of(1)
    listener = await received(record, [(i, 1) for i in IDS], datetime.now(UTC) + ahead)
    assert len(listener.all_delays()) == 3
    assert np.abs(listener.all_delays()).max() < 2


def test_window_means_are_of_windows_aligned_to_1970() -> None:
    width = WINDOW // timedelta(microseconds=1)
    begin = 400_000_000 * width
    recorded = np.array([begin - 3, begin - 1, begin, begin + 5, begin + width, begin + 2 * width])
    values = np.array([1.0, 3.0, 5.0, np.nan, np.nan, 8.0])
    means = window_means("x", recorded, values)
    assert [value for _, _, value in means] == [2, 5, 8]
    micros = [round(moment.timestamp() * 1e6) for moment, _, _ in means]
    assert micros == [begin - 3, begin, begin + 2 * width]


async def test_together_keeps_order_and_bounds_how_many_run() -> None:
    running, most = 0, 0

    async def call(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001 * (5 - number))
        running -= 1
        return number

    assert await together(2, [lambda n=n: call(n) for n in range(5)]) == [0, 1, 2, 3, 4]
    assert most == 2


async def test_together_raises_the_error_itself_and_leaves_nothing_running() -> None:
    async def fail() -> None:
        raise LookupError("this one")

    before = asyncio.all_tasks()
    with pytest.raises(LookupError, match="this one"):
        async with asyncio.timeout(5):
            await together(4, [fail, lambda: asyncio.sleep(60), lambda: asyncio.sleep(60)])
    assert asyncio.all_tasks() == before
