"""Updates of beliefs: alone, in groups, in batches; versions, retries, row-by-row results."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import numpy as np
import pytest

from freeagentics_persistence import (
    Agent,
    BeliefBatch,
    Beliefs,
    Factor,
    Persistence,
    PersistenceError,
    Revision,
    RowStatus,
    Settings,
    new_revision,
    new_revisions,
)
from freeagentics_persistence.database.context import TenantContext
from freeagentics_persistence.database.writes.belief_rows import BeliefWrite
from freeagentics_persistence.database.writes.belief_writer import BeliefWriter
from freeagentics_persistence.database.writes.group_commit import GroupCommit
from freeagentics_persistence.domain.results import BatchResult
from freeagentics_persistence.encryption import keyring
from freeagentics_persistence.errors import (
    ConcurrentUpdate,
    InvalidInput,
    Overloaded,
    RevisionExpired,
    StoreClosed,
    TimedOut,
    UnknownAgent,
)


async def make_agents(store: Persistence, count: int, states: int = 4) -> list[UUID]:
    agents = [Agent(name=f"a{i}", agent_type="t", beliefs=Beliefs.uniform(states)) for i in range(count)]
    (await store.agents.save_agents(agents)).raise_for_conflicts()
    return [agent.id for agent in agents]


def revision_of(moment: datetime) -> UUID:
    stamp = int(moment.timestamp() * 1000)
    random = uuid4().int & ((1 << 80) - 1)
    value = (stamp << 80) | (random & ~(0xF << 76) & ~(0x3 << 62)) | (0x7 << 76) | (0x2 << 62)
    return UUID(int=value)


async def test_an_update_is_stored_with_its_statistics(quiet_store: Persistence, admin: asyncpg.Connection) -> None:
    (agent_id,) = await make_agents(quiet_store, 1)
    before = datetime.now(UTC)
    revision = await quiet_store.agents.update_beliefs(agent_id, [0.7, 0.1, 0.1, 0.1], free_energy=1.9)
    assert (revision.version, revision.repeated) == (2, False)
    assert abs(revision.recorded_at - before) < timedelta(seconds=30)
    assert await quiet_store.agents.get_beliefs(agent_id, consistency="strong") == Beliefs([0.7, 0.1, 0.1, 0.1])
    row = await admin.fetchrow("SELECT * FROM agent_history WHERE version = 2")
    assert row["free_energy"] == 1.9
    assert row["belief_entropy"] == pytest.approx(0.940448, abs=1e-6)
    assert row["max_belief"] == 0.7
    event = await admin.fetchrow("SELECT * FROM events WHERE version = 2")
    stored = await admin.fetchval("SELECT belief_state FROM agents")
    assert stored == row["belief_state"]
    assert (event["kept"], event["envelope"], event["recorded_at"]) == (True, None, row["recorded_at"])


async def test_the_last_of_two_blind_writers_wins(quiet_store: Persistence) -> None:
    (agent_id,) = await make_agents(quiet_store, 1)
    first = await quiet_store.agents.update_beliefs(agent_id, [1.0, 0, 0, 0])
    second = await quiet_store.agents.update_beliefs(agent_id, [0, 1.0, 0, 0])
    assert (first.version, second.version) == (2, 3)
    assert await quiet_store.agents.get_beliefs(agent_id) == Beliefs([0, 1.0, 0, 0])


async def test_compare_and_set(quiet_store: Persistence) -> None:
    (agent_id,) = await make_agents(quiet_store, 1)
    assert (await quiet_store.agents.update_beliefs(agent_id, [1.0, 0, 0, 0], expected_version=1)).version == 2
    with pytest.raises(ConcurrentUpdate) as caught:
        await quiet_store.agents.update_beliefs(agent_id, [0, 1.0, 0, 0], expected_version=1)
    assert (caught.value.expected, caught.value.actual) == (1, 2)
    assert await quiet_store.agents.get_beliefs(agent_id) == Beliefs([1.0, 0, 0, 0])


async def test_a_retry_with_the_same_revision_is_applied_once(quiet_store: Persistence) -> None:
    (agent_id,) = await make_agents(quiet_store, 1)
    revision = new_revision()
    first = await quiet_store.agents.update_beliefs(agent_id, [1.0, 0, 0, 0], revision=revision, expected_version=1)
    await quiet_store.agents.update_beliefs(agent_id, [0, 1.0, 0, 0])
    again = await quiet_store.agents.update_beliefs(agent_id, [1.0, 0, 0, 0], revision=revision, expected_version=1)
    assert (again.version, again.recorded_at, again.repeated) == (2, first.recorded_at, True)
    assert await quiet_store.agents.get_beliefs(agent_id) == Beliefs([0, 1.0, 0, 0])
    versions = [change.version async for change in quiet_store.agents.get_belief_history(agent_id)]
    assert versions == [1, 2, 3]


async def test_a_new_write_of_a_slower_clock_is_no_retry(quiet_store: Persistence) -> None:
    (agent_id,) = await make_agents(quiet_store, 1)
    slow = revision_of(datetime.now(UTC) - timedelta(hours=2))
    result = await quiet_store.agents.update_beliefs(agent_id, [0, 0, 1.0, 0], revision=slow)
    assert (result.version, result.repeated) == (2, False)
    assert await quiet_store.agents.get_beliefs(agent_id) == Beliefs([0, 0, 1.0, 0])
    assert (await quiet_store.agents.update_beliefs(agent_id, [0, 0, 1.0, 0], revision=slow)).repeated


async def test_an_agent_made_again_still_knows_the_revisions_it_accepted(quiet_store: Persistence) -> None:
    (agent_id,) = await make_agents(quiet_store, 1)
    ahead = revision_of(datetime.now(UTC) + timedelta(minutes=1))  # of a machine whose clock is fast
    first = await quiet_store.agents.update_beliefs(agent_id, [1.0, 0, 0, 0], revision=ahead)
    await quiet_store.agents.delete_agent(agent_id)
    again = Agent(id=agent_id, name="a", agent_type="t", beliefs=Beliefs.uniform(4))
    assert (await quiet_store.agents.save_agent(again)).version == 4
    retry = await quiet_store.agents.update_beliefs(agent_id, [1.0, 0, 0, 0], revision=ahead)
    assert (first.version, retry.version, retry.repeated) == (2, 2, True)
    assert await quiet_store.agents.get_beliefs(agent_id, consistency="strong") == Beliefs.uniform(4)


async def test_an_old_revision_is_refused_and_a_future_one_too(quiet_store: Persistence) -> None:
    (agent_id,) = await make_agents(quiet_store, 1)
    with pytest.raises(RevisionExpired, match="new revision"):
        await quiet_store.agents.update_beliefs(
            agent_id, [1.0, 0, 0, 0], revision=revision_of(datetime.now(UTC) - timedelta(hours=25))
        )
    with pytest.raises(InvalidInput, match="future"):
        await quiet_store.agents.update_beliefs(
            agent_id, [1.0, 0, 0, 0], revision=revision_of(datetime.now(UTC) + timedelta(hours=1))
        )
    assert await quiet_store.agents.get_beliefs(agent_id) == Beliefs.uniform(4)


async def test_a_step_of_a_swarm(quiet_store: Persistence) -> None:
    ids = await make_agents(quiet_store, 5000, 3)
    rng = np.random.default_rng(1)
    q = rng.dirichlet(np.ones(3), 5000)
    result = await quiet_store.agents.update_beliefs_many(ids, q, free_energy=rng.random(5000))
    assert result.ok
    assert (result.versions == 2).all()
    for consistency in ("session", "strong"):
        batch = await quiet_store.agents.get_beliefs_many(ids, consistency=consistency)
        assert np.array_equal(batch.factors[0], q)
        assert batch.present.all()
        assert (batch.versions == 2).all()


async def test_each_row_of_a_batch_stands_for_itself(quiet_store: Persistence) -> None:
    ids = await make_agents(quiet_store, 5)
    unknown = uuid4()
    q = np.full((6, 4), 0.25)
    q[1] = [np.nan, 0.5, 0.25, 0.25]
    q[2] = [0.5, 0.6, 0, 0]
    free = np.array([0.1, 0.2, 0.3, np.inf, 0.5, 0.6])
    expected = [1, 1, 1, 1, 9, 1]
    result = await quiet_store.agents.update_beliefs_many(
        [*ids, unknown], q, free_energy=free, expected_versions=expected
    )
    assert result.status.tolist() == [
        RowStatus.WRITTEN,
        RowStatus.INVALID,
        RowStatus.INVALID,
        RowStatus.INVALID,
        RowStatus.CONFLICT,
        RowStatus.UNKNOWN_AGENT,
    ]
    errors = dict(result.failures())
    assert "beliefs[1]" in str(errors[1])
    assert "sum to 1" in str(errors[2])
    assert "free_energy[3]" in str(errors[3])
    assert isinstance(errors[4], ConcurrentUpdate)
    assert (errors[4].expected, errors[4].actual) == (9, 1)
    assert isinstance(errors[5], UnknownAgent)
    with pytest.raises(InvalidInput):
        result.raise_for_conflicts()
    versions = (await quiet_store.agents.get_beliefs_many(ids, consistency="strong")).versions
    assert versions is not None
    assert versions.tolist() == [2, 1, 1, 1, 1]


async def test_an_atomic_batch_is_all_or_nothing(quiet_store: Persistence) -> None:
    ids = await make_agents(quiet_store, 10)
    q = np.tile([1.0, 0, 0, 0], (10, 1))
    expected = np.ones(10, dtype=int)
    expected[7] = 5
    result = await quiet_store.agents.update_beliefs_many(ids, q, expected_versions=expected, atomic=True)
    assert result.status[7] == RowStatus.CONFLICT
    assert (np.delete(result.status, 7) == RowStatus.NOT_WRITTEN).all()
    assert result.versions.tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 0, 0]
    batch = await quiet_store.agents.get_beliefs_many(ids, consistency="strong")
    assert np.array_equal(batch.factors[0], np.full((10, 4), 0.25))
    expected[7] = 1
    assert (await quiet_store.agents.update_beliefs_many(ids, q, expected_versions=expected, atomic=True)).ok


async def test_repeated_ids_are_written_in_turn(quiet_store: Persistence) -> None:
    first, second = await make_agents(quiet_store, 2)
    q = np.eye(4)
    result = await quiet_store.agents.update_beliefs_many([first, second, first, first], q)
    assert result.versions.tolist() == [2, 2, 3, 4]
    assert await quiet_store.agents.get_beliefs(first) == Beliefs(q[3])
    assert await quiet_store.agents.get_beliefs(second) == Beliefs(q[1])


async def test_ragged_batches_and_raw_factors(quiet_store: Persistence) -> None:
    ids = await make_agents(quiet_store, 3)
    rows = [
        Beliefs([0.5, 0.5]),
        Beliefs([Factor(np.ones((2, 3), dtype=np.float32), "dirichlet", "pA"), Factor(np.arange(5), "raw", "rng")]),
        Beliefs.uniform(2, 3),
    ]
    assert (await quiet_store.agents.update_beliefs_many(ids, BeliefBatch.from_rows(rows))).ok
    batch = await quiet_store.agents.get_beliefs_many([ids[2], uuid4(), ids[0], ids[1]])
    assert [batch.get(i) for i in range(4)] == [rows[2], None, rows[0], rows[1]]
    assert batch.present.tolist() == [True, False, True, True]


async def test_many_callers_share_statements_and_keep_each_agents_order(
    quiet_store: Persistence, admin: asyncpg.Connection
) -> None:
    ids = await make_agents(quiet_store, 50)
    calls = [quiet_store.agents.update_beliefs(ids[i % 50], np.eye(4)[i // 50]) for i in range(200)]
    revisions = await asyncio.gather(*calls)
    assert [revision.version for revision in revisions] == [2 + i // 50 for i in range(200)]
    transactions = await admin.fetchval("SELECT count(DISTINCT xid::text) FROM events WHERE version > 1")
    assert transactions < 50
    batch = await quiet_store.agents.get_beliefs_many(ids)
    assert np.array_equal(batch.factors[0], np.tile(np.eye(4)[3], (50, 1)))


@pytest.mark.parametrize("neighbour", [np.full(4, 0.25), np.full(3, 1 / 3), Beliefs.uniform(4)])
async def test_a_caller_with_a_bad_array_is_told_of_it_alone(
    quiet_store: Persistence, admin: asyncpg.Connection, neighbour: np.ndarray
) -> None:
    ids = await make_agents(quiet_store, 5)
    given = [neighbour, np.array([0.5, 0.6, 0, 0]), neighbour, np.array([np.nan, 1, 0, 0]), neighbour]
    answers = await asyncio.gather(*map(quiet_store.agents.update_beliefs, ids, given), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Revision, InvalidInput, Revision, InvalidInput, Revision]
    assert [(answer.field, answer.problem) for answer in answers if isinstance(answer, InvalidInput)] == [
        ("beliefs", "does not sum to 1"),
        ("beliefs", "holds NaN or infinity"),
    ]
    assert await admin.fetchval("SELECT count(*) FROM agents WHERE version > 1") == 3


async def test_what_was_given_is_stored_whatever_becomes_of_the_array(quiet_store: Persistence) -> None:
    (agent_id,) = await make_agents(quiet_store, 1)
    q = np.array([[0.1, 0.2], [0.9, 0.8]])[:, 0]
    call = asyncio.create_task(quiet_store.agents.update_beliefs(agent_id, q))
    await asyncio.sleep(0)
    q[:] = 0
    await call
    assert await quiet_store.agents.get_beliefs(agent_id, consistency="strong") == Beliefs(np.array([0.1, 0.9]))


class EndingTogether(BeliefWriter):
    """Writes; every answer is given in the turn of the loop in which the gate opens."""

    def __init__(self, context: TenantContext) -> None:
        super().__init__(context)
        self.gate = asyncio.Event()
        self.written = 0

    async def write_each(
        self, write: BeliefWrite
    ) -> tuple[BatchResult, list[datetime | None], dict[int, BaseException]]:
        """See BeliefWriter."""
        done = await super().write_each(write)
        self.written += 1
        await self.gate.wait()
        return done


async def test_an_update_right_after_two_that_end_together_is_not_left_waiting(quiet_store: Persistence) -> None:
    first, second = await make_agents(quiet_store, 2)
    writer = EndingTogether(quiet_store.agents._context)
    group = GroupCommit(writer, queue_limit=100)

    async def update(agent_id: UUID, times: int) -> None:
        for _ in range(times):
            await group.update(agent_id, Beliefs.uniform(4), None, None, new_revision())

    async with asyncio.timeout(10):
        calls = []
        for agent_id, times in ((first, 2), (second, 1)):
            calls.append(asyncio.create_task(update(agent_id, times)))
            while writer.written < len(calls):
                await asyncio.sleep(0.01)
        writer.gate.set()
        await asyncio.gather(*calls)
        await group.close()


async def test_a_closing_that_is_cut_short_leaves_nobody_waiting(settings: Settings, admin: asyncpg.Connection) -> None:
    opened = Persistence.open(settings, relay="off")
    store = await opened.__aenter__()
    ids = await make_agents(store, 300)
    lock = admin.transaction()
    await lock.start()
    await admin.execute("SELECT FROM agents FOR UPDATE")
    calls = [asyncio.create_task(store.agents.update_beliefs(agent_id, [1.0, 0, 0, 0])) for agent_id in ids * 2]
    await asyncio.sleep(0.2)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await opened.__aexit__(None, None, None)
    await lock.rollback()
    async with asyncio.timeout(20):
        answers = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(answer, Revision | PersistenceError) for answer in answers), answers
    assert any(isinstance(answer, StoreClosed) for answer in answers)


async def test_atomic_batches_seal_before_they_lock(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    single = settings.model_copy(update={"database": settings.database.model_copy(update={"pool_size": 1})})
    async with Persistence.open(single, relay="off") as store:
        ids = await make_agents(store, 3)
        monkeypatch.setattr(keyring, "REFRESH_SECONDS", 0.0)  # each use reads the keyring, over a connection
        async with asyncio.timeout(5):
            assert (await store.agents.update_beliefs_many(ids, np.eye(4)[:3], atomic=True)).ok


async def test_callers_that_share_a_flush_get_each_their_own_answer(
    settings: Settings, admin: asyncpg.Connection
) -> None:
    hasty = settings.model_copy(update={"database": settings.database.model_copy(update={"statement_timeout": 1.0})})
    async with Persistence.open(hasty, relay="off") as store:
        ids = await make_agents(store, 3)
        large = [Beliefs(Factor(np.zeros(600_000 + i), "raw", "state")) for i in range(3)]  # a statement each
        async with admin.transaction():
            await admin.execute("SELECT FROM agents WHERE id = $1 FOR UPDATE", ids[1])
            calls = [store.agents.update_beliefs(i, beliefs) for i, beliefs in zip(ids, large, strict=True)]
            first, locked, last = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(first, Revision)
        assert isinstance(last, Revision)
        assert isinstance(locked, TimedOut)


async def test_a_ragged_batch_is_cut_by_bytes(quiet_store: Persistence, admin: asyncpg.Connection) -> None:
    ids = await make_agents(quiet_store, 6)
    rows = [Beliefs(Factor(np.zeros(size), "raw", "state")) for size in (600_000, 10, 600_001, 600_002, 20, 30)]
    assert (await quiet_store.agents.update_beliefs_many(ids, BeliefBatch.from_rows(rows))).ok
    # 8 MiB a statement: two large rows never share one
    found = await admin.fetch("SELECT count(*) AS n FROM events WHERE version > 1 GROUP BY xid ORDER BY min(id)")
    assert sorted(row["n"] for row in found) == [1, 2, 3]


async def test_a_bad_row_of_any_shape_does_not_fail_its_neighbours(quiet_store: Persistence) -> None:
    ids = await make_agents(quiet_store, 4)
    rows = [[0.5, 0.5], [0.7, 0.7], None, [0.2, 0.3, 0.5]]
    result = await quiet_store.agents.update_beliefs_many(ids, BeliefBatch.from_rows(rows))
    invalid, written = RowStatus.INVALID, RowStatus.WRITTEN
    assert result.status.tolist() == [written, invalid, invalid, written]
    assert [error.field for _, error in result.failures()] == ["beliefs[1]", "beliefs[2]"]
    atomic = await quiet_store.agents.update_beliefs_many(ids, BeliefBatch.from_rows(rows), atomic=True)
    undone = RowStatus.NOT_WRITTEN
    assert atomic.status.tolist() == [undone, invalid, invalid, undone]


async def test_cancelling_one_caller_does_not_cancel_the_others(quiet_store: Persistence) -> None:
    ids = await make_agents(quiet_store, 40)
    tasks = [asyncio.create_task(quiet_store.agents.update_beliefs(i, [1.0, 0, 0, 0])) for i in ids]
    await asyncio.sleep(0.002)
    tasks[3].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[3], asyncio.CancelledError)
    assert all(not isinstance(result, BaseException) for i, result in enumerate(results) if i != 3)


async def test_callers_that_gave_up_do_not_fill_the_queue(settings: Settings, admin: asyncpg.Connection) -> None:
    bounded = settings.model_copy(update={"database": settings.database.model_copy(update={"write_queue": 10})})
    async with Persistence.open(bounded, relay="off") as store:
        locked, free = await make_agents(store, 2)
        async with admin.transaction():
            await admin.execute("SELECT FROM agents WHERE id = $1 FOR UPDATE", locked)
            calls = [asyncio.create_task(store.agents.update_beliefs(locked, [1.0, 0, 0, 0])) for _ in range(10)]
            await asyncio.sleep(0.1)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            assert (await store.agents.update_beliefs(free, [1.0, 0, 0, 0])).version == 2
        batch = await store.agents.get_beliefs_many([locked], consistency="strong")
        assert batch.versions is not None
        assert batch.versions.tolist() in ([1], [2])  # the one that was under way


async def test_an_update_of_a_set_of_ids_is_refused(quiet_store: Persistence) -> None:
    ids = await make_agents(quiet_store, 3)
    for wrong in (set(ids), dict.fromkeys(ids), iter(ids), str(ids[0]), None, 5):
        with pytest.raises(InvalidInput, match=r"ids: .* is not a sequence"):
            await quiet_store.agents.update_beliefs_many(wrong, np.eye(4)[:3])  # type: ignore[arg-type]
        with pytest.raises(InvalidInput, match=r"ids: .* is not a sequence"):
            await quiet_store.agents.get_beliefs_many(wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"revisions: .* is not a sequence"):
        await quiet_store.agents.update_beliefs_many(ids, np.eye(4)[:3], revisions=set(new_revisions(3)))  # type: ignore[arg-type]
    for moments in (np.zeros(3, dtype="M8[s]"), np.ma.array([1.0, 2.0, 3.0])):
        with pytest.raises(InvalidInput, match="free_energy: is no array"):
            await quiet_store.agents.update_beliefs_many(ids, np.eye(4)[:3], free_energy=moments)
    masked = np.ma.array(np.eye(4)[:3], mask=np.eye(4)[:3] > 0)
    for beliefs in (masked, [masked]):
        with pytest.raises(InvalidInput, match="is a masked array"):
            await quiet_store.agents.update_beliefs_many(ids, beliefs)
    with pytest.raises(InvalidInput, match="is a masked array"):
        await quiet_store.agents.update_beliefs(ids[0], masked[0])


async def test_an_empty_batch_is_no_error(quiet_store: Persistence) -> None:
    agents, none = quiet_store.agents, np.zeros((0, 4))
    assert len(await agents.save_agents([])) == 0
    assert len(await agents.update_beliefs_many([], none)) == 0
    assert len(await agents.update_beliefs_many([], none, atomic=True)) == 0
    assert len(await agents.get_beliefs_many([])) == 0
    assert await agents.get_agents([]) == {}


async def test_too_many_waiting_updates_are_refused(settings: Settings) -> None:
    bounded = settings.model_copy(update={"database": settings.database.model_copy(update={"write_queue": 10})})
    async with Persistence.open(bounded, relay="off") as store:
        ids = await make_agents(store, 60)
        calls = [store.agents.update_beliefs(agent_id, [1.0, 0, 0, 0]) for agent_id in ids]
        results = await asyncio.gather(*calls, return_exceptions=True)
        refused = [result for result in results if isinstance(result, Overloaded)]
        assert refused
        assert "DATABASE_WRITE_QUEUE" in str(refused[0])
        batch = await store.agents.get_beliefs_many(ids, consistency="strong")
        assert batch.versions is not None
        assert (batch.versions == 2).sum() == 60 - len(refused)


async def test_a_closed_store_takes_no_updates(settings: Settings) -> None:
    async with Persistence.open(settings, relay="off") as store:
        (agent_id,) = await make_agents(store, 1)
    with pytest.raises(StoreClosed):
        await store.agents.update_beliefs(agent_id, [1.0, 0, 0, 0])


async def test_concurrent_batches_over_the_same_agents_never_deadlock(quiet_store: Persistence) -> None:
    ids = await make_agents(quiet_store, 300)
    rng = np.random.default_rng(5)

    async def step() -> None:
        order = rng.permutation(300)
        result = await quiet_store.agents.update_beliefs_many([ids[i] for i in order], np.full((300, 4), 0.25))
        assert result.ok

    await asyncio.gather(*(step() for _ in range(10)))
    batch = await quiet_store.agents.get_beliefs_many(ids, consistency="strong")
    assert batch.versions is not None
    assert (batch.versions == 11).all()


async def test_history_moments_rise_strictly(quiet_store: Persistence) -> None:
    (agent_id,) = await make_agents(quiet_store, 1)
    await asyncio.gather(*(quiet_store.agents.update_beliefs(agent_id, [1.0, 0, 0, 0]) for _ in range(50)))
    moments = [change.recorded_at async for change in quiet_store.agents.get_belief_history(agent_id)]
    assert all(a < b for a, b in itertools.pairwise(moments))


async def test_a_row_that_postgresql_refuses_does_not_fail_its_neighbours(
    quiet_store: Persistence, admin: asyncpg.Connection
) -> None:
    ids = await make_agents(quiet_store, 9)
    await admin.execute(f"ALTER TABLE events ADD CONSTRAINT poison CHECK (version = 1 OR subject_id <> '{ids[4]}')")
    result = await quiet_store.agents.update_beliefs_many(ids, np.full((9, 4), 0.25))
    assert result.status.tolist() == [0, 0, 0, 0, RowStatus.REFUSED, 0, 0, 0, 0]
    assert "poison" in str(dict(result.failures())[4])


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda s, i: s.agents.update_beliefs(i, [0.5, 0.6]), "beliefs"),
        (lambda s, i: s.agents.update_beliefs(i, [-0.5, 1.5]), "beliefs"),
        (lambda s, i: s.agents.update_beliefs(i, [float("inf"), 0]), "beliefs"),
        (lambda s, i: s.agents.update_beliefs(i, [0.5, 0.5], free_energy=float("nan")), "free_energy"),
        (lambda s, i: s.agents.update_beliefs(i, [0.5, 0.5], expected_version="1"), "expected_version"),
        (lambda s, i: s.agents.update_beliefs(i, [0.5, 0.5], revision=uuid4()), "revision"),
        (lambda s, i: s.agents.update_beliefs("x", [0.5, 0.5]), "agent_id"),
        (lambda s, i: s.agents.update_beliefs_many([i], np.ones((2, 1))), "beliefs"),
        (lambda s, i: s.agents.update_beliefs_many([i], np.ones((1, 1)), free_energy=[1, 2]), "free_energy"),
        (
            lambda s, i: s.agents.update_beliefs_many([i], np.ones((1, 1)), expected_versions=[1.5]),
            "expected_versions",
        ),
        (lambda s, i: s.agents.update_beliefs_many([i], np.ones((1, 1)), expected_versions=[-7]), "expected_versions"),
        (
            lambda s, i: s.agents.update_beliefs_many(
                [i], np.ones((1, 1)), expected_versions=np.array([2**64 - 1], dtype=np.uint64)
            ),
            "expected_versions",
        ),
        (lambda s, i: s.agents.update_beliefs_many([i], np.ones((1, 1)), free_energy=["1.5"]), "free_energy"),
        (lambda s, i: s.agents.update_beliefs_many([i], np.ones((1, 1)), revisions=new_revisions(2)), "revisions"),
        (lambda s, i: s.agents.get_beliefs_at([i], datetime(2026, 1, 1)), "at"),  # noqa: DTZ001
    ],
)
async def test_bad_input_writes_nothing(
    quiet_store: Persistence, admin: asyncpg.Connection, call: object, field: str
) -> None:
    (agent_id,) = await make_agents(quiet_store, 1)
    with pytest.raises(InvalidInput) as caught:
        await call(quiet_store, agent_id)  # type: ignore[operator]
    assert caught.value.field == field
    assert await admin.fetchval("SELECT max(version) FROM events") == 1
