"""Loads of many agents: row by row, with history and events; after a crash they go on, and store nothing twice."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import h3
import numpy as np
import pytest

from freeagentics_persistence import (
    DEFAULT_TENANT_ID,
    Agent,
    BeliefBatch,
    Beliefs,
    LoadProgress,
    Persistence,
    RowStatus,
    new_revision,
)
from freeagentics_persistence.domain.identifiers import revision_time, revision_within
from freeagentics_persistence.errors import AlreadyExists, InvalidInput, OutcomeUnknown, RevisionExpired
from freeagentics_persistence.settings import Settings

CELL = h3.latlng_to_cell(52.37, 4.90, 9)
WRITTEN, REPEATED, EXISTS, INVALID, REFUSED = (
    RowStatus.WRITTEN,
    RowStatus.REPEATED,
    RowStatus.EXISTS,
    RowStatus.INVALID,
    RowStatus.REFUSED,
)


def make(count: int, **values: object) -> list[Agent]:
    given = {"agent_type": "t", "beliefs": Beliefs.uniform(4), **values}
    return [Agent(name=f"a{i}", **given) for i in range(count)]  # type: ignore[arg-type]


@pytest.fixture
def settings(urls: object, settings: Settings) -> Settings:
    """Statements of 100 rows, so that a few hundred agents are many chunks."""
    database = settings.database.model_copy(update={"batch_rows": 100})
    return settings.model_copy(update={"database": database})


async def counts(admin: asyncpg.Connection) -> tuple[int, int, int]:
    """Agents, and what was recorded of them in history and events."""
    tables = ("agents", "agent_history", "events")
    found = [await admin.fetchval(f"SELECT count(*) FROM {table}") for table in tables]
    return found[0], found[1], found[2]


async def test_loaded_agents_are_stored_as_saved_ones(quiet_store: Persistence, admin: asyncpg.Connection) -> None:
    agents = [
        *make(250, location=CELL, personality={"a": 1}, energy=7, status="inactive"),
        *make(1, beliefs=None),
        *make(1, beliefs=Beliefs([np.array([0.5, 0.5]), np.array([1.0])])),
    ]
    reports: list[LoadProgress] = []
    result = await quiet_store.queries.bulk_load_agents(agents, progress=reports.append)
    result.raise_for_conflicts()
    assert (result.written, result.versions.tolist(), len(set(result.revisions))) == (252, [1] * 252, 252)
    assert [agent.id for agent in agents] == list(result.ids)
    assert await counts(admin) == (252, 252, 252)
    assert [report.done for report in reports] == sorted(report.done for report in reports)
    assert reports[-1] == LoadProgress(done=252, stored=252, total=252)
    stored = await quiet_store.agents.get_agents([agent.id for agent in agents])
    for agent, revision in zip(agents, result.revisions, strict=True):
        kept = stored[agent.id]
        expected = dataclasses.replace(
            agent,
            tenant_id=kept.tenant_id,
            version=1,
            revision=revision,
            created_at=kept.created_at,
            updated_at=kept.created_at,
            last_active_at=kept.created_at,
        )
        assert kept == expected
    history = [change async for change in quiet_store.agents.get_belief_history(agents[0].id)]
    assert [(change.version, change.revision, change.beliefs) for change in history] == [
        (1, result.revisions[0], agents[0].beliefs)
    ]
    events = await admin.fetch("SELECT type, version, data FROM events WHERE subject_id = $1", agents[0].id)
    assert [(event["type"], event["version"]) for event in events] == [("agent.saved", 1)]
    assert Beliefs.uniform(4).factors[0].values.tobytes() not in await admin.fetchval(
        "SELECT belief_state FROM agents WHERE id = $1", agents[0].id
    )
    saved = await quiet_store.agents.save_agent(dataclasses.replace(agents[0], id=uuid4()))
    data = "SELECT data - 'location' FROM events WHERE subject_id = $1"
    assert await admin.fetchval(data, saved.id) == await admin.fetchval(data, agents[0].id)


async def test_a_batch_takes_the_place_of_the_agents_own_beliefs(quiet_store: Persistence) -> None:
    agents = make(230)
    q = np.random.default_rng(1).dirichlet(np.ones(6), 230)
    (await quiet_store.queries.bulk_load_agents(iter(agents), beliefs=BeliefBatch(q))).raise_for_conflicts()
    stored = await quiet_store.agents.get_beliefs_many([agent.id for agent in agents])
    assert np.array_equal(stored.factors[0], q)


async def test_rows_fail_alone(quiet_store: Persistence, admin: asyncpg.Connection) -> None:
    old, fresh = await quiet_store.agents.save_agent(make(1)[0]), make(205)
    poison = Agent.from_stored(
        **{f.name: getattr(fresh[7], f.name) for f in dataclasses.fields(Agent)} | {"energy": 999}
    )
    agents = [*fresh[:7], poison, *fresh[8:], old, fresh[0]]
    q = np.full((207, 2), 0.5)
    q[3] = np.nan
    result = await quiet_store.queries.bulk_load_agents(agents, beliefs=BeliefBatch(q))
    wrong = {int(row): RowStatus(result.status[row]) for row in np.flatnonzero(result.status)}
    assert wrong == {3: INVALID, 7: REFUSED, 205: EXISTS, 206: INVALID}
    said = {row: str(error) for row, error in result.failures()}
    assert "beliefs[3]" in said[3]
    assert "energy" in said[7]
    assert str(old.id) in said[205]
    assert "twice" in said[206]
    assert await counts(admin) == (204, 204, 204)
    ragged = BeliefBatch.from_rows([[0.5, 0.5], None, [0.5, 0.9], [1.0]])
    result = await quiet_store.queries.bulk_load_agents(make(4), beliefs=ragged)
    assert result.status.tolist() == [WRITTEN, WRITTEN, INVALID, WRITTEN]


async def test_agents_that_exist_are_told_left_or_replaced(quiet_store: Persistence) -> None:
    agents = make(150)
    (await quiet_store.agents.save_agents(agents[:120])).raise_for_conflicts()
    changed = [dataclasses.replace(agent, energy=1) for agent in agents]
    result = await quiet_store.queries.bulk_load_agents(changed[:130])
    assert result.status.tolist() == [EXISTS] * 120 + [WRITTEN] * 10
    with pytest.raises(AlreadyExists):
        result.raise_for_conflicts()
    result = await quiet_store.queries.bulk_load_agents(changed[:140], on_conflict="skip")
    assert result.raise_for_conflicts().status.tolist() == [REPEATED] * 130 + [WRITTEN] * 10
    load = new_revision()
    for again in (False, True):
        result = await quiet_store.queries.bulk_load_agents(changed, on_conflict="update", revision=load)
        assert result.raise_for_conflicts().versions.tolist() == [2] * 140 + [1] * 10
        assert (result.written, again) in ((150, False), (0, True))
    stored = await quiet_store.agents.get_agents([agent.id for agent in agents])
    assert {agent.energy for agent in stored.values()} == {1}


async def test_a_deleted_agent_goes_on_counting_versions(quiet_store: Persistence) -> None:
    agents = make(5)
    (await quiet_store.agents.save_agents(agents)).raise_for_conflicts()
    await quiet_store.agents.delete_agent(agents[2].id)
    result = await quiet_store.queries.bulk_load_agents(agents[2:])
    assert (result.status.tolist(), result.versions.tolist()) == ([WRITTEN, EXISTS, EXISTS], [3, 1, 1])
    assert await quiet_store.agents.get_beliefs(agents[2].id) == agents[2].beliefs


async def test_a_load_that_was_broken_off_goes_on(quiet_store: Persistence, admin: asyncpg.Connection) -> None:
    agents, load = make(1000), new_revision()

    def stop(report: LoadProgress) -> None:
        if report.done >= 300:
            raise KeyError("stop")

    with pytest.raises(KeyError):
        await quiet_store.queries.bulk_load_agents(agents, revision=load, progress=stop)
    before = (await counts(admin))[0]
    assert 300 <= before < 1000
    # an update, a whole new state and a deletion meanwhile are not undone
    stored = [row["id"] for row in await admin.fetch("SELECT id FROM agents LIMIT 2")]
    updated, gone = UUID(int=stored[0].int), UUID(int=stored[1].int)
    await quiet_store.agents.update_beliefs(updated, [1.0, 0.0])
    await quiet_store.agents.delete_agent(gone)
    result = await quiet_store.queries.bulk_load_agents(agents, revision=load)
    assert result.ok
    assert result.written == 1000 - before
    assert await quiet_store.agents.get_beliefs(updated) == Beliefs([1.0, 0.0])
    assert await quiet_store.agents.get_agent(gone) is None
    repeated = await quiet_store.queries.bulk_load_agents(agents, revision=load)
    assert (repeated.ok, repeated.written) == (True, 0)
    assert repeated.revisions == result.revisions
    # one of each for every agent, and for the update and the deletion
    assert await counts(admin) == (999, 1002, 1002)


LOADER = """
import asyncio, sys
from uuid import UUID
from freeagentics_persistence import Agent, Beliefs, Persistence
from freeagentics_persistence.settings import Settings

async def main() -> None:
    database = {"url": sys.argv[1], "migrator_url": sys.argv[1], "auto_migrate": False, "batch_rows": 100}
    redis, encryption = {"url": sys.argv[2]}, {"key": sys.argv[3]}
    settings = Settings.load(env="testing", database=database, redis=redis, encryption=encryption)
    agents = (Agent(id=UUID(int=i + 1), name="a", agent_type="t", beliefs=Beliefs.uniform(4)) for i in range(20_000))
    async with Persistence.open(settings, relay="off") as store:
        await store.queries.bulk_load_agents(
            agents, revision=UUID(sys.argv[4]), progress=lambda report: print(report.done, flush=True)
        )

asyncio.run(main())
"""


async def test_a_load_goes_on_after_its_process_was_killed(
    quiet_store: Persistence, settings: Settings, admin: asyncpg.Connection
) -> None:
    key = settings.encryption.key
    assert settings.database.url is not None
    assert settings.redis.url is not None
    assert key is not None
    load = new_revision()
    secrets = (settings.database.url, settings.redis.url, key)
    arguments = [value if isinstance(value, str) else value.get_secret_value() for value in secrets]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LOADER, *arguments, str(load), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    while int(await process.stdout.readline() or 20_000) < 2000:
        pass
    process.kill()
    await process.wait()
    before = (await counts(admin))[0]
    assert 0 < before < 20_000
    agents = [Agent(id=UUID(int=i + 1), name="a", agent_type="t", beliefs=Beliefs.uniform(4)) for i in range(20_000)]
    result = await quiet_store.queries.bulk_load_agents(agents, revision=load)
    assert result.ok
    # a statement that was under way when the process died may have been committed since
    assert 20_000 - before - 200 <= result.written <= 20_000 - before
    assert await counts(admin) == (20_000, 20_000, 20_000)


async def test_two_loads_of_the_same_agents_at_once_store_each_once(
    quiet_store: Persistence, admin: asyncpg.Connection
) -> None:
    agents, load = make(600), new_revision()
    both = [quiet_store.queries.bulk_load_agents(order, revision=load) for order in (agents, agents[::-1])]
    first, second = await asyncio.gather(*both)
    assert first.ok
    assert second.ok
    assert first.written + second.written == 600
    assert await counts(admin) == (600, 600, 600)


async def test_few_agents_are_in_memory_at_once(quiet_store: Persistence) -> None:
    given = done = most = 0

    def agents() -> Iterator[Agent]:
        nonlocal given, most
        for agent in make(3000):
            given += 1
            most = max(most, given - done)
            yield agent

    def note(report: LoadProgress) -> None:
        nonlocal done
        done = report.done
        assert report.total is None

    await quiet_store.queries.bulk_load_agents(agents(), progress=note)
    assert (given, done) == (3000, 3000)
    assert most <= 500  # of statements of 100 rows: two under way, one ready, one being gathered


async def test_a_lost_connection_leaves_a_load_that_goes_on(
    quiet_store: Persistence, admin: asyncpg.Connection
) -> None:
    agents = make(5000)
    lock = admin.transaction()
    await lock.start()
    # an agent that somebody else is about to insert keeps one statement under way until the cut
    await admin.execute(
        "INSERT INTO agents (tenant_id, id, name, agent_type, revision, newest_revision) "
        "VALUES ($1, $2, 'a', 't', $2, $2)",
        DEFAULT_TENANT_ID,
        agents[-1].id,
    )
    loading = asyncio.create_task(quiet_store.queries.bulk_load_agents(agents))
    while not await admin.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"):
        await asyncio.sleep(0.005)
    await admin.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await lock.rollback()
    with pytest.raises(OutcomeUnknown, match="goes on") as caught:
        await loading
    await asyncio.sleep(0.1)  # the pool hears of the last connections that were cut
    (load,) = caught.value.revisions
    result = await quiet_store.queries.bulk_load_agents(agents, revision=load)
    assert result.ok
    assert 0 < result.written < 5000
    assert await counts(admin) == (5000, 5000, 5000)


def test_revisions_of_a_load_are_its_own_and_the_same_each_time() -> None:
    load, other, agent = new_revision(), new_revision(), uuid4()
    part = revision_within(load, agent)
    assert part == revision_within(load, agent)
    assert part.version == 7
    assert revision_time(part) == revision_time(load)
    assert len({part, revision_within(load, uuid4()), revision_within(other, agent), load}) == 4


async def test_an_empty_load_is_no_error(quiet_store: Persistence) -> None:
    result = await quiet_store.queries.bulk_load_agents([])
    assert (result.ok, len(result)) == (True, 0)


OLD = UUID(int=int((datetime.now(UTC) - timedelta(days=2)).timestamp() * 1000) << 80 | 0x7 << 76 | 0b10 << 62)
AHEAD = UUID(int=int((datetime.now(UTC) + timedelta(days=2)).timestamp() * 1000) << 80 | 0x7 << 76 | 0b10 << 62)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"on_conflict": "replace"}, InvalidInput, "on_conflict"),
        ({"progress": 3}, InvalidInput, "progress"),
        ({"revision": uuid4()}, InvalidInput, "revision"),
        ({"revision": AHEAD}, InvalidInput, "future"),
        ({"revision": OLD}, RevisionExpired, "skip"),
        ({"beliefs": np.full((2, 2), 0.5)}, InvalidInput, "beliefs: is a ndarray"),
        ({"beliefs": BeliefBatch(np.full((3, 2), 0.5))}, InvalidInput, "3 rows for 2 agents"),
        ({"beliefs": BeliefBatch(np.full((1, 2), 0.5))}, InvalidInput, "1 rows for 2 agents"),
        ({"agents": iter(["a"])}, InvalidInput, r"agents\[0\]"),
        ({"agents": "abc"}, InvalidInput, "agents"),
        ({"agents": 3}, InvalidInput, "agents"),
        ({"agents": iter(make(2)), "beliefs": BeliefBatch(np.full((1, 2), 0.5))}, InvalidInput, "beliefs"),
    ],
)
async def test_bad_input_is_refused_and_nothing_is_written(
    quiet_store: Persistence, admin: asyncpg.Connection, arguments: dict[str, object], error: type, said: str
) -> None:
    given = {"agents": make(2), **arguments}
    with pytest.raises(error, match=said):
        await quiet_store.queries.bulk_load_agents(**given)  # type: ignore[arg-type]
    assert await counts(admin) == (0, 0, 0)


async def test_a_generator_that_ends_too_early_says_what_is_stored(quiet_store: Persistence) -> None:
    with pytest.raises(InvalidInput, match="3 rows for 2 agents") as caught:
        await quiet_store.queries.bulk_load_agents(iter(make(2)), beliefs=BeliefBatch(np.full((3, 2), 0.5)))
    assert "2 agents before it are stored" in caught.value.__notes__
    assert len(await quiet_store.agents.list_agents()) == 2
