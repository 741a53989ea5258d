"""Beliefs as of a time, and the iteration of history."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import numpy as np
import pytest

from freeagentics_persistence import Agent, Beliefs, Factor, Persistence
from freeagentics_persistence.errors import InvalidInput


async def test_beliefs_as_of_every_moment_of_a_life(quiet_store: Persistence) -> None:
    agents = quiet_store.agents
    agent = await agents.save_agent(Agent(name="a", agent_type="t", beliefs=Beliefs.uniform(2)))
    other = await agents.save_agent(Agent(name="b", agent_type="t"))
    assert agent.updated_at is not None
    moments = [(agent.updated_at, Beliefs.uniform(2))]
    for i in range(1, 6):
        beliefs = Beliefs([i / 10, 1 - i / 10])
        moments.append(((await agents.update_beliefs(agent.id, beliefs)).recorded_at, beliefs))
    for version, (moment, beliefs) in enumerate(moments, start=1):
        batch = await agents.get_beliefs_at([other.id, uuid4(), agent.id], moment)
        assert [batch.get(row) for row in range(3)] == [None, None, beliefs]
        assert batch.versions is not None
        assert batch.versions[2] == version
    before = await agents.get_beliefs_at([agent.id], moments[0][0] - timedelta(microseconds=1))
    assert not before.present.any()
    later = await agents.get_beliefs_at([agent.id], datetime.now(UTC) + timedelta(days=1))
    assert later[0] == moments[-1][1]


async def test_a_deleted_agent_is_absent_from_its_deletion_on(quiet_store: Persistence) -> None:
    agents = quiet_store.agents
    agent = await agents.save_agent(Agent(name="a", agent_type="t", beliefs=Beliefs.uniform(2)))
    assert agent.updated_at is not None
    await agents.delete_agent(agent.id)
    assert (await agents.get_beliefs_at([agent.id], agent.updated_at))[0] == agent.beliefs
    assert not (await agents.get_beliefs_at([agent.id], datetime.now(UTC))).present.any()


async def test_an_agent_older_than_its_history_is_still_known(
    quiet_store: Persistence, admin: asyncpg.Connection
) -> None:
    agent = await quiet_store.agents.save_agent(Agent(name="a", agent_type="t", beliefs=Beliefs.uniform(2)))
    await admin.execute("DELETE FROM agent_history")
    assert (await quiet_store.agents.get_beliefs_at([agent.id], datetime.now(UTC)))[0] == agent.beliefs
    assert not (await quiet_store.agents.get_beliefs_at([agent.id], datetime.now(UTC) - timedelta(days=1))).present[0]


async def test_history_is_iterated_page_by_page(quiet_store: Persistence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("freeagentics_persistence.database.repositories.beliefs.HISTORY_PAGE", 7)
    agents = quiet_store.agents
    agent = await agents.save_agent(Agent(name="a", agent_type="t", beliefs=Beliefs.uniform(2)))
    ids = [agent.id] * 30
    q = np.random.default_rng(1).dirichlet([1, 1], 30)
    (await agents.update_beliefs_many(ids, q, free_energy=np.arange(30))).raise_for_conflicts()
    changes = [change async for change in agents.get_belief_history(agent.id)]
    assert [change.version for change in changes] == list(range(1, 32))
    assert [change.beliefs for change in changes[1:]] == [Beliefs(row) for row in q]
    assert [change.free_energy for change in changes[1:]] == list(range(30))
    part = agents.get_belief_history(agent.id, start=changes[4].recorded_at, stop=changes[20].recorded_at, limit=9)
    assert [change.version async for change in part] == list(range(5, 14))
    assert [change async for change in agents.get_belief_history(uuid4())] == []


async def test_what_changed_between_two_moments(quiet_store: Persistence) -> None:
    agents = quiet_store.agents
    one = await agents.save_agent(Agent(name="a", agent_type="t", beliefs=[0.5, 0.5]))
    other = await agents.save_agent(Agent(name="b", agent_type="t", beliefs=[1.0, 0.0]))
    still = await agents.save_agent(Agent(name="c", agent_type="t", beliefs=Beliefs([Factor([3], "raw", "step")])))
    assert still.updated_at is not None
    start = still.updated_at
    late = await agents.save_agent(Agent(name="d", agent_type="t", beliefs=[1.0, 0.0]))
    await agents.update_beliefs(one.id, [0.9, 0.1])
    await agents.update_beliefs(other.id, [0.9, 0.1])
    ids = [one.id, other.id, still.id, late.id, uuid4()]
    changes = await quiet_store.history.diff_beliefs(ids, start, datetime.now(UTC) + timedelta(minutes=1))
    expected = 0.9 * np.log(0.9 / 0.5) + 0.1 * np.log(0.1 / 0.5)
    np.testing.assert_allclose(changes.divergence, [expected, np.inf, np.nan, np.nan, np.nan])
    entropy = -(0.9 * np.log(0.9) + 0.1 * np.log(0.1))
    np.testing.assert_allclose(changes.entropy, [entropy - np.log(2), entropy, np.nan, np.nan, np.nan])
    assert changes.start_versions.tolist() == [1, 1, 1, 0, 0]
    assert changes.stop_versions.tolist() == [2, 2, 1, 1, 0]
    assert changes.present.tolist() == [True, True, True, False, False]
    assert (list(changes.ids), len(changes)) == (ids, 5)
    nothing = await quiet_store.history.diff_beliefs(ids[:2], start, start)
    assert (nothing.divergence.tolist(), nothing.entropy.tolist()) == ([0.0, 0.0], [0.0, 0.0])
    with pytest.raises(InvalidInput, match="stop: is before start"):
        await quiet_store.history.diff_beliefs(ids, start, start - timedelta(seconds=1))


async def test_a_measurement_never_stands_in_the_way_of_an_update(
    quiet_store: Persistence, admin: asyncpg.Connection
) -> None:
    # with the clock set back, both take the moment right after the agent's last change
    agent = await quiet_store.agents.save_agent(Agent(name="a", agent_type="t", beliefs=Beliefs([1.0])))
    await admin.execute("UPDATE agents SET updated_at = clock_timestamp() + interval '1 hour'")
    await quiet_store.metrics.record_agent_belief_update(agent.id, [0.5, 0.5], 1.0)
    await quiet_store.metrics.record_agent_belief_update(agent.id, [0.5, 0.5], 2.0)
    assert (await quiet_store.agents.update_beliefs(agent.id, [0.5, 0.5])).version == 2
    await quiet_store.metrics.record_agent_belief_update(agent.id, [0.5, 0.5], 3.0)
    assert await admin.fetchval("SELECT count(*) FROM agent_history WHERE agent_id = $1", agent.id) == 5
