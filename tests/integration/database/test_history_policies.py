"""What history keeps by policy: a model in Python beside the database, repeated revisions, and what is never lost."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from freeagentics_persistence import (
    DEFAULT_TENANT_ID,
    Agent,
    BeliefBatch,
    Beliefs,
    Factor,
    HistoryPolicy,
    Persistence,
    RowStatus,
    Settings,
    new_revision,
    new_revisions,
)
from freeagentics_persistence.database.engine import Database
from freeagentics_persistence.errors import InvalidInput
from freeagentics_persistence.operations.servers import ServerUrls
from tests.conftest import settings_of
from tests.integration.database.test_hot_updates import updates
from tests.support.relay import making_readers, read_all

SLOW = examples(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


async def an_agent(store: Persistence, agent_type: str = "t") -> UUID:
    return (await store.agents.save_agent(Agent(name="a", agent_type=agent_type, beliefs=[0.5, 0.5]))).id


async def kept(store: Persistence, agent_id: UUID) -> list[int]:
    return [change.version async for change in store.agents.get_belief_history(agent_id)]


async def test_policies_are_stored_for_all_writers(quiet_store: Persistence, settings: Settings) -> None:
    history = quiet_store.history
    policies = {
        "bees": HistoryPolicy.every(10),
        "ants": HistoryPolicy.interval(timedelta(minutes=1, microseconds=3)),
        "owls": HistoryPolicy.divergence(0.25),
    }
    for agent_type, policy in policies.items():
        await history.set_policy(agent_type, policy)
    async with Persistence.open(settings, relay="off") as other:
        assert await other.history.get_policies() == policies
        guest = await other.create_tenant("guest")
        assert await guest.history.get_policies() == {}
    await history.set_policy("bees", HistoryPolicy.interval(timedelta(days=1)))
    await history.set_policy("owls", None)
    await history.set_policy("ants", HistoryPolicy.every(1))
    assert await history.get_policies() == {"bees": HistoryPolicy.interval(timedelta(days=1))}


@pytest.mark.parametrize(
    "make",
    [
        lambda: HistoryPolicy.every(0),
        lambda: HistoryPolicy.every(1.5),
        lambda: HistoryPolicy.interval(timedelta(0)),
        lambda: HistoryPolicy.interval(60),
        lambda: HistoryPolicy.divergence(-0.1),
        lambda: HistoryPolicy.divergence(math.nan),
        lambda: HistoryPolicy(),
        lambda: HistoryPolicy(every_updates=2, min_divergence=0.1),
    ],
)
def test_a_policy_out_of_bounds_is_refused(make: Any) -> None:
    with pytest.raises(InvalidInput):
        make()


async def test_a_wrong_policy_is_refused(quiet_store: Persistence) -> None:
    with pytest.raises(InvalidInput, match="Pass a HistoryPolicy"):
        await quiet_store.history.set_policy("t", 10)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="agent_type"):
        await quiet_store.history.set_policy("", None)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("update"), st.integers(0, 2), st.sampled_from([0.1, 0.3, 0.5, 0.52, 0.9, 1.0])),
        st.tuples(st.just("again"), st.integers(0, 2), st.just(0.5)),  # the agent's last revision once more
        st.tuples(st.just("conflict"), st.integers(0, 2), st.just(0.5)),
        st.tuples(st.just("save"), st.integers(0, 2), st.sampled_from([0.2, 0.5])),
        st.tuples(st.just("delete"), st.integers(0, 2), st.just(0.5)),
    ),
    min_size=1,
    max_size=14,
)
policies = st.sampled_from(
    [
        None,
        HistoryPolicy.every(2),
        HistoryPolicy.every(3),
        HistoryPolicy.divergence(0.0),
        HistoryPolicy.divergence(0.05),
        HistoryPolicy.interval(timedelta(days=1)),
        HistoryPolicy.interval(timedelta(microseconds=1)),
    ]
)


class Model:
    """What one agent's history should be."""

    def __init__(self) -> None:
        self.version = 1
        self.exists = True
        self.belief = 0.5
        self.history: dict[int, float | None] = {1: 0.5}
        self.last_kept = 1
        self.known: int | None = None  # the version whose beliefs the writing process remembers
        self.revisions: dict[UUID, int] = {}

    def change(self, policy: HistoryPolicy | None, belief: float, revision: UUID) -> None:
        self.version += 1
        self.belief = belief
        self.revisions[revision] = self.version
        if self.keeps(policy, belief):
            self.history[self.version] = belief
            self.last_kept = self.version
            # the process learns what it wrote; of another policy nothing
            self.known = self.version if policy is not None and policy.min_divergence is not None else None

    def keeps(self, policy: HistoryPolicy | None, belief: float) -> bool:
        if policy is None:
            return True
        if policy.every_updates is not None:
            return self.version - self.last_kept >= policy.every_updates
        if policy.min_interval is not None:
            return policy.min_interval < timedelta(hours=1)
        if self.known != self.last_kept or self.history[self.last_kept] is None:
            return True
        old = self.history[self.last_kept]
        assert old is not None
        assert policy.min_divergence is not None
        return not Beliefs([belief, 1 - belief]).divergence(Beliefs([old, 1 - old])) <= policy.min_divergence

    def save(self, belief: float | None, *, exists: bool) -> None:
        self.version += 1
        self.exists, self.belief = exists, belief or 0.0
        self.history[self.version] = belief
        self.last_kept = self.version


@SLOW
@given(policy=policies, batches=st.lists(steps, min_size=1, max_size=3))
async def test_history_is_that_of_the_model(
    quiet_store: Persistence, policy: HistoryPolicy | None, batches: list[list[tuple[str, int, float]]]
) -> None:
    """Batches with duplicates, repeated revisions, conflicts, saves and deletions in any order, by any policy."""
    store = await quiet_store.create_tenant(uuid4().hex)
    await store.history.set_policy("t", policy)
    agents = [Agent(name=f"a{i}", agent_type="t", beliefs=[0.5, 0.5]) for i in range(3)]
    (await store.agents.save_agents(agents)).raise_for_conflicts()
    models = [Model() for _ in agents]
    for batch in batches:
        writes: list[tuple[int, float, UUID, int]] = []
        for kind, i, belief in batch:
            model = models[i]
            if kind == "update":
                writes.append((i, belief, new_revision(), -1))
            elif kind == "again" and model.revisions:
                writes.append((i, belief, next(reversed(model.revisions)), -1))
            elif kind == "conflict":
                writes.append((i, belief, new_revision(), 10**6))
            elif kind == "save":
                again = Agent(id=agents[i].id, name="a", agent_type="t", beliefs=[belief, 1 - belief])
                await store.agents.save_agent(again)
                model.save(belief, exists=True)
            elif kind == "delete" and model.exists:
                await store.agents.delete_agent(agents[i].id)
                model.save(None, exists=False)
        if not writes:
            continue
        result = await store.agents.update_beliefs_many(
            [agents[i].id for i, *_ in writes],
            BeliefBatch(np.array([[b, 1 - b] for _, b, *_ in writes])),
            revisions=[revision for *_, revision, _ in writes],
            expected_versions=[expected for *_, expected in writes],
        )
        for row, (i, belief, revision, expected) in enumerate(writes):
            model, status = models[i], RowStatus(result.status[row])
            if not model.exists:
                assert status is RowStatus.UNKNOWN_AGENT
            elif revision in model.revisions:
                assert (status, result.versions[row]) == (RowStatus.REPEATED, model.revisions[revision])
            elif expected >= 0:
                assert (status, result.versions[row] > 0) == (RowStatus.CONFLICT, True)
            else:
                model.change(policy, belief, revision)
                assert (status, result.versions[row]) == (RowStatus.WRITTEN, model.version)
    for agent, model in zip(agents, models, strict=True):
        found = [
            (change.version, None if change.beliefs is None else float(change.beliefs[0][0]))
            async for change in store.agents.get_belief_history(agent.id)
        ]
        assert found == list(model.history.items())
        now = await store.agents.get_beliefs_at([agent.id], datetime.now(UTC) + timedelta(hours=1))
        assert now.versions is not None
        assert (now.versions[0], now.present[0]) == (model.version, model.exists)
        assert not model.exists or now[0][0][0] == model.belief


async def test_each_policy_keeps_what_it_says(quiet_store: Persistence, admin: asyncpg.Connection) -> None:
    agents, history = quiet_store.agents, quiet_store.history
    await history.set_policy("t", HistoryPolicy.every(3))
    agent = await an_agent(quiet_store)
    for i in range(7):
        assert (await agents.update_beliefs(agent, [i / 10, 1 - i / 10])).version == 2 + i
    assert await kept(quiet_store, agent) == [1, 4, 7]
    await history.set_policy("t", HistoryPolicy.interval(timedelta(hours=1)))
    await agents.update_beliefs(agent, [0.5, 0.5])  # version 7 was kept a moment ago
    assert await kept(quiet_store, agent) == [1, 4, 7]
    await admin.execute("UPDATE agents SET kept_at = kept_at - interval '1 hour'")
    await agents.update_beliefs(agent, [0.4, 0.6])
    assert await kept(quiet_store, agent) == [1, 4, 7, 10]
    await history.set_policy("t", None)
    await agents.update_beliefs(agent, [0.5, 0.5])
    assert await kept(quiet_store, agent) == [1, 4, 7, 10, 11]


async def test_a_whole_agent_that_is_saved_is_what_is_counted_from(quiet_store: Persistence) -> None:
    await quiet_store.history.set_policy("t", HistoryPolicy.every(3))
    agent = await an_agent(quiet_store)
    await quiet_store.agents.update_beliefs(agent, [0.1, 0.9])
    await quiet_store.agents.save_agent(Agent(id=agent, name="again", agent_type="t", beliefs=[0.5, 0.5]))
    for i in range(4):
        await quiet_store.agents.update_beliefs(agent, [i / 4, 1 - i / 4])
    assert await kept(quiet_store, agent) == [1, 3, 6]


async def test_other_types_are_kept_whole_in_the_same_batch(quiet_store: Persistence) -> None:
    await quiet_store.history.set_policy("t", HistoryPolicy.every(100))
    some, others = await an_agent(quiet_store), await an_agent(quiet_store, "whole")
    for _ in range(3):
        result = await quiet_store.agents.update_beliefs_many([some, others], [np.full((2, 2), 0.5)])
        result.raise_for_conflicts()
    assert (await kept(quiet_store, some), await kept(quiet_store, others)) == ([1], [1, 2, 3, 4])


async def test_what_history_skips_is_present_cached_delivered_and_measured(
    quiet_store: Persistence, relay_database: Database
) -> None:
    agents = quiet_store.agents
    await quiet_store.history.set_policy("t", HistoryPolicy.every(100))
    agent = await an_agent(quiet_store)
    moments = []
    for i in range(4):
        moments.append((await agents.update_beliefs(agent, [i / 4, 1 - i / 4], free_energy=float(i))).recorded_at)
    for level in ("session", "strong"):
        assert await agents.get_beliefs(agent, consistency=level) == Beliefs([0.75, 0.25])  # type: ignore[arg-type]
    for at, first in ((moments[-1], 0.75), (datetime.now(UTC), 0.75), (moments[-1] - timedelta(microseconds=1), 0.5)):
        assert (await agents.get_beliefs_at([agent], at))[0][0][0] == first
    connection = await relay_database.connect()
    async with making_readers(relay_database) as make_reader:
        reader = make_reader(connection, "cache", quiet_store.epoch, 100)
        await reader.load()
        events = [event for event in await read_all(reader) if event.type == "beliefs.updated"]
    await connection.close()
    assert [(event.version, event.free_energy) for event in events] == [(2, 0.0), (3, 1.0), (4, 2.0), (5, 3.0)]
    assert all(event.envelope and event.entropy is not None for event in events)


async def test_a_skipped_revision_is_recognised_and_expires(
    quiet_store: Persistence, admin: asyncpg.Connection
) -> None:
    agents = quiet_store.agents
    await quiet_store.history.set_policy("t", HistoryPolicy.every(100))
    agent = await an_agent(quiet_store)
    revisions = new_revisions(3)
    first = await agents.update_beliefs(agent, [0.1, 0.9], revision=revisions[0])
    await agents.update_beliefs(agent, [0.2, 0.8], revision=revisions[1])
    again = await agents.update_beliefs(agent, [0.1, 0.9], revision=revisions[0])
    assert (again.repeated, again.version, again.recorded_at) == (True, 2, first.recorded_at)
    result = await agents.update_beliefs_many([agent] * 3, [np.full((3, 2), 0.5)], revisions=revisions, atomic=True)
    assert result.status.tolist() == [RowStatus.REPEATED, RowStatus.REPEATED, RowStatus.WRITTEN]
    assert result.versions.tolist() == [2, 3, 4]
    await admin.execute("UPDATE accepted_revisions SET recorded_at = recorded_at - interval '1 day'")
    assert (await agents.update_beliefs(agent, [0.1, 0.9], revision=revisions[0])).repeated  # for 24 hours and a little


async def test_code_of_the_first_version_goes_on_writing(quiet_store: Persistence, app_database: Database) -> None:
    call = "SELECT * FROM write_beliefs($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
    await quiet_store.history.set_policy("t", HistoryPolicy.every(2))
    await quiet_store.history.set_policy("far", HistoryPolicy.divergence(10))
    ids = [await an_agent(quiet_store), await an_agent(quiet_store, "far")]
    revisions = new_revisions(2)
    for version in (2, 3, 4):
        revisions = new_revisions(2)
        columns = (ids, [None] * 2, revisions, [b"sealed"] * 2, *[[0.5] * 2] * 4)
        row = await app_database.call(call, DEFAULT_TENANT_ID, *columns, timedelta(hours=24))
        assert set(row.keys()) == {"statuses", "versions", "recorded"}
        assert (row["statuses"], row["versions"]) == ([0, 0], [version, version])
    again = await app_database.call(call, DEFAULT_TENANT_ID, *columns, timedelta(hours=24))
    assert (again["statuses"], again["versions"], again["recorded"]) == ([1, 1], [4, 4], row["recorded"])
    async with app_database.read(DEFAULT_TENANT_ID) as connection:
        found = await connection.exec_driver_sql("SELECT agent_id, version FROM agent_history ORDER BY version")
        versions = [(UUID(int=row.agent_id.int), row.version) for row in found]
    assert [version for agent_id, version in versions if agent_id == ids[0]] == [1, 3]
    assert [version for agent_id, version in versions if agent_id == ids[1]] == [1, 2, 3, 4]


async def test_two_writers_by_divergence_keep_what_neither_can_compare(
    quiet_store: Persistence, settings: Settings
) -> None:
    await quiet_store.history.set_policy("t", HistoryPolicy.divergence(0.1))
    agent = await an_agent(quiet_store)
    async with Persistence.open(settings, relay="off") as other:
        writes = [
            (quiet_store, 0.50, True),  # nobody remembers what was saved
            (quiet_store, 0.52, False),
            (other, 0.52, True),  # it never wrote this agent
            (other, 0.53, False),
            (quiet_store, 0.53, True),  # what it remembers is no longer the last that is kept
            (other, 0.53, True),
            (other, 0.90, True),  # far away
            (other, 1.00, True),  # 0.105 nats from the last
            (other, 1.00, False),
            (other, 0.99, True),  # infinitely far: the last one ruled it out
        ]
        expected = [1]
        for version, (store, p, is_kept) in enumerate(writes, start=2):
            await store.agents.update_beliefs(agent, [p, 1 - p])
            expected += [version] if is_kept else []
            assert await kept(quiet_store, agent) == expected


async def test_other_factors_and_changed_raw_ones_are_far(quiet_store: Persistence) -> None:
    await quiet_store.history.set_policy("t", HistoryPolicy.divergence(100))
    agent = await an_agent(quiet_store)
    raw = Factor(np.array([1.0, np.nan]), "raw", "state")
    near = Factor([0.5, 0.5], name="place")
    for beliefs, is_kept in (
        ([near, raw], True),
        ([Factor([0.6, 0.4], name="place"), raw], False),
        ([near, Factor(np.array([1.0, 2.0]), "raw", "state")], True),
        ([near], True),
        ([Factor([0.5, 0.25, 0.25], name="place")], True),
        ([Factor(np.array([0.5, 0.25, 0.25], dtype=np.float32), name="place")], False),
        ([Factor([2.0, 3.0], "dirichlet", "place")], True),
        ([Factor([2.0, 3.5], "dirichlet", "place")], False),
        ([raw], True),
        ([raw], False),
    ):
        before = await kept(quiet_store, agent)
        version = (await quiet_store.agents.update_beliefs(agent, Beliefs(beliefs))).version
        assert (await kept(quiet_store, agent))[len(before) :] == ([version] if is_kept else [])


async def test_remembered_beliefs_are_bounded_and_forgotten(urls: ServerUrls) -> None:
    async with Persistence.open(settings_of(urls, history={"memory_megabytes": 1}), relay="off") as store:
        await store.history.set_policy("t", HistoryPolicy.divergence(0.1))
        agents = [Agent(name="a", agent_type="t", beliefs=Beliefs.uniform(2)) for _ in range(200)]
        (await store.agents.save_agents(agents)).raise_for_conflicts()
        ids, q = [agent.id for agent in agents], np.full((200, 1024), 1 / 1024)
        for _ in range(2):
            (await store.agents.update_beliefs_many(ids, q)).raise_for_conflicts()
        # 200 rows of 8 KiB do not fit into 1 MiB, and the last hundred or so do
        assert [await kept(store, ids[0]), await kept(store, ids[-1])] == [[1, 2, 3], [1, 2]]
        assert store._parts.kept._bytes <= 2**20
        await store.history.set_policy("t", HistoryPolicy.every(2))
        (await store.agents.update_beliefs_many(ids, q)).raise_for_conflicts()
        assert store._parts.kept._bytes == 0


async def test_skipped_updates_are_hot(settings: Settings, admin: asyncpg.Connection) -> None:
    async with Persistence.open(settings, relay="off") as store:
        await store.history.set_policy("t", HistoryPolicy.every(100))
        agents = [Agent(name="a", agent_type="t", beliefs=Beliefs.uniform(16)) for _ in range(200)]
        (await store.queries.bulk_load_agents(agents)).raise_for_conflicts()
        for _ in range(5):
            q = np.full((200, 16), 1 / 16)
            (await store.agents.update_beliefs_many([agent.id for agent in agents], q)).raise_for_conflicts()
    count, hot = await updates(admin, 1000)
    assert (count, hot / count) == (1000, pytest.approx(1, abs=0.02))
