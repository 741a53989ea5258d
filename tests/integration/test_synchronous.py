"""The synchronous facade: the same API, by ordinary calls, for callers without an event loop."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import re
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg
import h3
import numpy as np
import psutil
import pytest

from freeagentics_persistence import ALL, Agent, Beliefs, Coalition, Persistence, Settings, SynchronousStore
from freeagentics_persistence.errors import (
    ConcurrentUpdate,
    ConfigurationError,
    InvalidInput,
    StoreClosed,
    TimedOut,
    UnknownAgent,
    UnknownTenant,
    UpdatesError,
)
from freeagentics_persistence.operations.servers import ServerUrls
from freeagentics_persistence.persistence import TenantStore
from freeagentics_persistence.synchronous import background_loop
from tests.conftest import settings_of

PROGRAMS = Path(__file__).parents[1] / "support" / "synchronous_programs.py"
CONNECTIONS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'freeagentics%'
"""


@pytest.fixture
def store(settings: Settings) -> Iterator[SynchronousStore]:
    """An open store with its relay."""
    with Persistence.open_sync(settings) as opened:
        yield opened


def new_agent(name: str = "a") -> Agent:
    return Agent(name=name, agent_type="t", beliefs=[0.5, 0.5])


def saved(store: SynchronousStore, name: str = "a") -> Agent:
    return store.agents.save_agent(new_agent(name))


def run_program(name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A program's status and output, after which nothing of its servers may run."""
    environment = {key: value for key, value in os.environ.items() if "_URL" not in key}
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", str(PROGRAMS), name, str(folder / "data")],
        env=environment | {"PYTHONPATH": str(PROGRAMS.parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert not servers_in(folder / "data"), done.stderr
    return done


def servers_in(folder: Path) -> list[str]:
    """Names of the processes whose command or working folder is there."""
    found = []
    for process in psutil.process_iter(["name", "cmdline", "cwd"]):
        about = [*(process.info["cmdline"] or ()), process.info["cwd"] or ""]
        if any(str(folder) in text for text in about):
            found.append(process.info["name"])
    return found


def test_quick_start(store: SynchronousStore) -> None:
    scout = Agent(
        name="scout",
        agent_type="explorer",
        location=h3.latlng_to_cell(52.37, 4.90, 9),
        beliefs=Beliefs.uniform(4),
    )
    seen = []
    with store.updates.subscribe_to_agent_updates(scout.id) as updates:
        scout = store.agents.save_agent(scout)
        store.agents.update_beliefs(scout.id, [0.7, 0.1, 0.1, 0.1], free_energy=1.9)
        for _ in range(2):
            update = next(updates)
            seen.append((update.version, update.type, update.beliefs()[0].tolist()))
        assert updates.position == update.position
    assert seen == [(1, "agent.saved", [0.25] * 4), (2, "beliefs.updated", [0.7, 0.1, 0.1, 0.1])]
    assert store.agents.get_beliefs_at([scout.id], at=scout.updated_at)[0] == Beliefs.uniform(4)
    (point,) = store.metrics.query_agent_performance_history(scout.id, hours=1, fields=["free_energy"])
    assert (point.field, point.value) == ("free_energy", 1.9)


def test_a_loop_of_inference(store: SynchronousStore) -> None:
    random = np.random.default_rng(3)
    swarm = [Agent(name=f"scout {i}", agent_type="explorer") for i in range(50)]
    ids = [agent.id for agent in swarm]
    store.agents.save_agents(swarm).raise_for_conflicts()
    qs = np.full((50, 16), 1 / 16)
    with store.updates.subscribe_to_agent_updates(ALL) as updates:
        for step in range(5):
            qs = qs * random.random((50, 16))
            qs /= qs.sum(axis=1, keepdims=True)
            store.agents.update_beliefs_many(ids, qs).raise_for_conflicts()
            told = {}
            while len(told) < 50:
                update = updates.next(timeout=10)
                if update.version == step + 2:
                    told[update.agent_id] = update.beliefs()[0]
            assert np.array_equal([told[agent_id] for agent_id in ids], qs)
    batch = store.agents.get_beliefs_many(ids)
    assert np.array_equal(batch.factors[0], qs)


def test_tenants_are_facades_too(store: SynchronousStore) -> None:
    guest = store.create_tenant("guest")
    agent = saved(guest)
    assert store.agents.get_agent(agent.id) is None
    assert store.tenant(guest.tenant_id).agents.get_agent(agent.id) == agent
    assert store.require_tenant(guest.tenant_id) is None
    with pytest.raises(UnknownTenant):
        store.require_tenant(agent.id)


def test_coalitions_and_cache(store: SynchronousStore) -> None:
    agent, coalition = saved(store), Coalition(name="c", business_model="m")
    store.coalitions.save_coalition(coalition)
    store.coalitions.add_members(coalition.id, [agent.id])
    assert store.cache.is_coalition_member(coalition.id, agent.id)
    assert store.coalitions.get_coalition_beliefs(coalition.id)[0] == agent.beliefs
    assert store.cache.get_cached_beliefs(agent.id) == agent.beliefs


def test_history_is_iterated(store: SynchronousStore) -> None:
    agent = saved(store)
    for i in range(10):
        store.agents.update_beliefs(agent.id, [i / 10, 1 - i / 10])
    history = store.agents.get_belief_history(agent.id)
    assert next(history).version == 1
    assert [revision.version for revision in history] == list(range(2, 12))
    assert next(history, None) is None
    for _ in range(20):  # more than the pool has connections
        left = store.agents.get_belief_history(agent.id)
        next(left)
        left.close()
        assert list(left) == []


def test_waiting_for_an_update_can_be_bounded(store: SynchronousStore) -> None:
    agent = new_agent()
    with store.updates.subscribe_to_agent_updates(agent.id) as updates:
        store.agents.save_agent(agent)
        assert updates.next(timeout=10).version == 1
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            updates.next(timeout=0.2)
        assert 0.2 <= time.monotonic() - began < 5
        store.agents.update_beliefs(agent.id, [0.1, 0.9])
        assert updates.next(timeout=10).version == 2
        for bad in (float("nan"), float("inf"), "5", True):
            with pytest.raises(InvalidInput, match="timeout"):
                updates.next(timeout=bad)
    with pytest.raises(StopIteration):  # it was left
        updates.next(timeout=5)
    with pytest.raises(UpdatesError, match="used before"), updates:
        pass


def test_many_threads(store: SynchronousStore) -> None:
    agents = [saved(store, f"a{i}") for i in range(16)]

    def work(agent: Agent) -> int:
        for i in range(25):
            store.agents.update_beliefs(agent.id, [i / 100, 1 - i / 100])
            assert store.agents.get_beliefs(agent.id) == Beliefs([i / 100, 1 - i / 100])
        return store.agents.get_agent(agent.id).version

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(work, agents)) == [26] * 16


def test_a_thread_that_waits_holds_up_no_other(store: SynchronousStore) -> None:
    agent = new_agent()
    with ThreadPoolExecutor(1) as pool, store.updates.subscribe_to_agent_updates(agent.id) as updates:
        store.agents.save_agent(agent)
        assert updates.next(timeout=10).version == 1
        following = pool.submit(updates.next, timeout=20)
        time.sleep(0.2)
        store.agents.update_beliefs(agent.id, [0.1, 0.9])
        assert following.result(timeout=10).version == 2


def test_errors_keep_class_and_traceback(store: SynchronousStore) -> None:
    agent = saved(store)
    with pytest.raises(ConcurrentUpdate) as caught:
        store.agents.update_beliefs(agent.id, [0.1, 0.9], expected_version=7)
    assert (caught.value.expected, caught.value.actual) == (7, 1)
    names = [frame.name for frame in traceback.extract_tb(caught.tb)]
    assert names[0] == "test_errors_keep_class_and_traceback"
    assert "update_beliefs" in names
    with pytest.raises(UnknownAgent):
        store.agents.update_beliefs(store.epoch, [0.1, 0.9])
    with pytest.raises(InvalidInput, match="buffer"):
        store.updates.subscribe_to_agent_updates(agent.id, buffer=0)
    with pytest.raises(TypeError, match="beleifs"):
        store.agents.update_beliefs(agent.id, beleifs=[0.1, 0.9])


def test_opening_raises_what_open_raises(urls: ServerUrls) -> None:
    before = threading.active_count()
    with pytest.raises(InvalidInput, match="relay"):
        Persistence.open_sync(settings_of(urls), relay="on")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="ENCRYPTION_KEY"):
        Persistence.open_sync(settings_of(urls, encryption={}))
    assert threading.active_count() == before
    assert not background_loop._open  # or the end of the program would close it again


async def test_time_outs_are_those_of_the_settings(urls: ServerUrls, admin: asyncpg.Connection) -> None:
    short = {"url": urls.app, "migrator_url": urls.migrator, "relay_url": urls.relay, "statement_timeout": 0.5}
    with Persistence.open_sync(settings_of(urls, database=short), relay="off") as store:
        agent = saved(store)
        async with admin.transaction():
            await admin.execute("LOCK TABLE agents")
            began = time.monotonic()
            with pytest.raises(TimedOut):
                store.agents.update_beliefs(agent.id, [0.1, 0.9])
            assert time.monotonic() - began < 20


async def test_closing_ends_a_call_that_the_database_holds_up(settings: Settings, admin: asyncpg.Connection) -> None:
    store = Persistence.open_sync(settings, relay="off")
    agent = saved(store)
    async with admin.transaction():
        await admin.execute("LOCK TABLE agents")
        call = asyncio.create_task(asyncio.to_thread(store.agents.get_agent, agent.id))
        await asyncio.sleep(0.3)
        assert not call.done()
        began = time.monotonic()
        store.close()
        with pytest.raises(StoreClosed, match="while this call waited"):
            await call
        assert time.monotonic() - began < 5


def test_closing_ends_calls_that_wait(settings: Settings) -> None:
    store = Persistence.open_sync(settings)
    agent = new_agent()
    updates = store.updates.subscribe_to_agent_updates(agent.id).__enter__()
    store.agents.save_agent(agent)
    assert next(updates).version == 1
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(next, updates) for _ in range(2)]
        time.sleep(0.3)
        assert not any(call.done() for call in calls)
        began = time.monotonic()
        store.close()
        for call in calls:
            assert isinstance(call.exception(timeout=5), StoreClosed)
        assert time.monotonic() - began < 5
    store.close()
    for late in (lambda: store.agents.get_agent(agent.id), lambda: next(updates), lambda: store.tenant(store.epoch)):
        with pytest.raises(StoreClosed):
            late()


async def test_inside_a_running_loop(settings: Settings, admin: asyncpg.Connection) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(tick())
    store = Persistence.open_sync(settings)
    agent = saved(store)
    assert store.agents.get_agent(agent.id) == agent
    assert ticks == 0  # the caller's own loop stands still meanwhile
    assert (await asyncio.to_thread(store.agents.get_agent, agent.id)) == agent
    assert ticks > 0
    assert await admin.fetchval(CONNECTIONS) > 0
    store.close()
    assert await admin.fetchval(CONNECTIONS) == 0
    task.cancel()


async def test_a_store_that_nothing_refers_to_is_closed(settings: Settings) -> None:
    agents = Persistence.open_sync(settings).agents
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "freeagentics store"]
    gc.collect()
    assert agents.get_agents([]) == {}  # any object of a store keeps it open
    del agents
    gc.collect()
    await asyncio.to_thread(thread.join, 10)
    assert not thread.is_alive()


def test_its_own_thread_is_refused(settings: Settings) -> None:
    with Persistence.open_sync(settings, relay="off") as store:
        loop = store._lease.loop
        with pytest.raises(Exception, match="own thread"):
            loop.call(lambda: store.agents.get_agents([]))
        assert store.agents.get_agents([]) == {}


ATTRIBUTES = ("agents", "coalitions", "cache", "updates", "metrics")


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_methods_show_what_they_are(store: SynchronousStore, attribute: str) -> None:
    original = type(getattr(store._target, attribute))
    facing = getattr(store, attribute)
    names = [name for name, value in vars(original).items() if inspect.isfunction(value) and name[0] != "_"]
    assert names
    assert set(names) <= set(dir(facing))
    for name in names:
        expected = inspect.signature(getattr(getattr(store._target, attribute), name))
        shown = inspect.signature(getattr(facing, name))
        assert shown.parameters == expected.parameters, name
        assert str(shown.return_annotation) == re.sub("^Async", "", str(expected.return_annotation)), name
        assert inspect.getdoc(getattr(facing, name)) == inspect.getdoc(getattr(original, name))
        assert not inspect.iscoroutinefunction(getattr(facing, name))


def test_a_store_shows_what_it_has(store: SynchronousStore) -> None:
    assert {*ATTRIBUTES, "epoch", "tenant", "create_tenant", "require_tenant", "make_relay", "close"} <= set(dir(store))
    assert {*ATTRIBUTES, "tenant_id"} <= set(dir(store.tenant(store.create_tenant("guest").tenant_id)))
    assert not {"open", "open_sync"} & set(dir(store))
    for name in ("open", "agent", "_parts"):
        with pytest.raises(AttributeError, match=name):
            getattr(store, name)
    assert store.agents == store.agents
    assert store.agents != store.create_tenant("other").agents


def test_nothing_async_slips_through(store: SynchronousStore) -> None:
    """Whatever of the API returns something that needs an event loop is met here, or the facade leaks."""
    agent = saved(store)

    def loops(value: Any) -> bool:
        return any(hasattr(value, name) for name in ("__await__", "__anext__", "__aiter__", "__aenter__"))

    values = [store, *(getattr(store, name) for name in ATTRIBUTES), store.tenant(agent.tenant_id)]
    values += [store.agents.get_belief_history(agent.id), store.updates.subscribe_to_agent_updates(agent.id)]
    values += [store.make_relay(), agent, store.agents.get_agent(agent.id), store.create_tenant("guest")]
    with store.updates.subscribe_to_agent_updates(agent.id) as updates:
        store.agents.update_beliefs(agent.id, [0.1, 0.9])
        values += [updates, updates.next(timeout=10)]
    assert not [value for value in values if loops(value)]
    assert not isinstance(store.tenant(agent.tenant_id), TenantStore)


def test_ctrl_c_ends_the_call_alone(tmp_path: Path) -> None:
    done = run_program("interrupted", tmp_path)
    assert (done.returncode, done.stdout) == (0, "interrupted\n" * 3 + "2 [0.1 0.9]\n"), done.stderr


def test_ctrl_c_while_opening_leaves_nothing(tmp_path: Path) -> None:
    done = run_program("interrupted_while_opening", tmp_path)
    assert (done.returncode, done.stdout) == (0, "interrupted\n[]\n1\n"), done.stderr


@pytest.mark.parametrize(("name", "status", "said"), [("forgotten", 0, "1\nclosed\n"), ("failed", 1, "")])
def test_a_store_left_open_is_closed_at_exit(tmp_path: Path, name: str, status: int, said: str) -> None:
    began = time.monotonic()
    done = run_program(name, tmp_path)
    assert (done.returncode, done.stdout) == (status, said), done.stderr
    assert time.monotonic() - began < 15
    assert len(done.stderr.splitlines()) == status  # the reason to die, and no more
    assert "received fast shutdown request" in (tmp_path / "data" / "logs" / "postgres.log").read_text()


def test_a_forked_child_is_refused(tmp_path: Path) -> None:
    done = run_program("forked", tmp_path)
    refused, *rest = done.stdout.splitlines()
    assert re.fullmatch(r"this store was opened by process \d+, .* forked\. Open a store in the new process.*", refused)
    assert (done.returncode, rest) == (0, ["7", "1"]), done.stderr
