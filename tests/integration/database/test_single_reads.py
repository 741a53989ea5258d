"""Single reads of many callers share statements and round trips, and each caller gets its own answer alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID, uuid4

import asyncpg
import numpy as np
import pytest

from freeagentics_persistence import DEFAULT_TENANT_ID, Agent, Beliefs, Persistence, Settings
from freeagentics_persistence.cache.connection import RedisConnection
from freeagentics_persistence.cache.keys import TenantKeys
from freeagentics_persistence.cache.redis_cache import RedisCache
from freeagentics_persistence.database.engine import Database
from freeagentics_persistence.database.epochs import begin_epoch
from freeagentics_persistence.domain.epochs import Epoch
from freeagentics_persistence.errors import EnvelopeRejected, NewEpoch, Overloaded
from freeagentics_persistence.operations.servers import ServerUrls

Read = Callable[[Persistence, UUID], Awaitable[Agent | Beliefs | None]]
READS: dict[str, Read] = {
    "get_agent": lambda store, agent_id: store.agents.get_agent(agent_id),
    "get_beliefs, strong": lambda store, agent_id: store.agents.get_beliefs(agent_id, consistency="strong"),
    "get_beliefs, session": lambda store, agent_id: store.agents.get_beliefs(agent_id),
    "get_beliefs, bounded": lambda store, agent_id: store.agents.get_beliefs(
        agent_id, consistency="bounded", max_staleness=timedelta(seconds=1 + agent_id.int % 7)
    ),
}
CALLS = "SELECT sum(calls)::int FROM pg_stat_user_functions WHERE funcname IN ('read_agents', 'read_beliefs')"


def beliefs_of(found: Agent | Beliefs | None) -> Beliefs | None:
    return found.beliefs if isinstance(found, Agent) else found


async def make(store: Persistence, count: int) -> list[Agent]:
    q = np.random.default_rng(3).dirichlet(np.ones(4), count)
    agents = [Agent(name=f"a{i}", agent_type="t", beliefs=row) for i, row in enumerate(q)]
    (await store.agents.save_agents(agents)).raise_for_conflicts()
    return agents


async def forget_cached(store: Persistence, urls: ServerUrls) -> None:
    async with RedisConnection(urls.redis) as connection:
        await RedisCache(connection, Epoch(store.epoch)).forget_all()


async def redis_calls(urls: ServerUrls, command: str) -> int:
    async with RedisConnection(urls.redis) as connection:
        stats = (await connection.execute("INFO", "commandstats")).decode()
    lines = [line for line in stats.splitlines() if line.startswith(f"cmdstat_{command}:")]
    return int(lines[0].partition("calls=")[2].partition(",")[0]) if lines else 0


@pytest.mark.parametrize("name", READS)
async def test_many_callers_take_one_statement(
    settings: Settings, urls: ServerUrls, admin: asyncpg.Connection, name: str
) -> None:
    await admin.execute(
        f"ALTER DATABASE {await admin.fetchval('SELECT current_database()')} SET track_functions = 'pl'"
    )
    async with Persistence.open(settings, relay="off") as store:
        agents = await make(store, 60)
        await forget_cached(store, urls)
        found = await asyncio.gather(*(READS[name](store, agent.id) for agent in agents * 4))
        assert [beliefs_of(each) for each in found] == [agent.beliefs for agent in agents] * 4
    async with asyncio.timeout(20):  # servers count what a connection did by the time that it ends
        while (calls := await admin.fetchval(CALLS)) is None:
            await asyncio.sleep(0.02)
    assert calls == 1


async def test_cached_reads_of_many_callers_take_one_request(quiet_store: Persistence, urls: ServerUrls) -> None:
    agents = await make(quiet_store, 60)
    before = await redis_calls(urls, "mget")
    found = await asyncio.gather(*(quiet_store.agents.get_beliefs(agent.id) for agent in agents * 4))
    assert found == [agent.beliefs for agent in agents] * 4
    assert await redis_calls(urls, "mget") - before == 1


async def test_a_batch_that_misses_takes_few_requests(quiet_store: Persistence, urls: ServerUrls) -> None:
    agents = await make(quiet_store, 600)
    await forget_cached(quiet_store, urls)
    before = [await redis_calls(urls, command) for command in ("mget", "eval")]
    batch = await quiet_store.agents.get_beliefs_many([agent.id for agent in agents])
    assert list(batch) == [agent.beliefs for agent in agents]
    after = [await redis_calls(urls, command) for command in ("mget", "eval")]
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, 4]  # two for leases, two to fill
    again = await quiet_store.agents.get_beliefs_many([agent.id for agent in agents])
    assert list(again) == list(batch)
    assert await redis_calls(urls, "eval") == after[1]


@pytest.mark.parametrize("name", READS)
async def test_one_envelope_that_does_not_open_fails_its_own_caller_alone(
    quiet_store: Persistence, urls: ServerUrls, admin: asyncpg.Connection, name: str
) -> None:
    agents = await make(quiet_store, 20)
    await admin.execute(
        "UPDATE agents SET belief_state = (SELECT belief_state FROM agents WHERE id = $1) WHERE id = $2",
        agents[3].id,
        agents[7].id,
    )
    await forget_cached(quiet_store, urls)
    calls = [READS[name](quiet_store, agent.id) for agent in agents]
    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(ended[7], EnvelopeRejected)
    assert str(agents[7].id) in str(ended[7])
    others = [beliefs_of(each) for i, each in enumerate(ended) if i != 7]  # type: ignore[arg-type]
    assert others == [agent.beliefs for i, agent in enumerate(agents) if i != 7]


async def test_a_foreign_entry_in_the_cache_fails_its_own_caller_alone(
    quiet_store: Persistence, urls: ServerUrls
) -> None:
    agents = await make(quiet_store, 20)
    key = TenantKeys(quiet_store.epoch, DEFAULT_TENANT_ID).beliefs
    async with RedisConnection(urls.redis) as connection:
        theirs = await connection.execute("GET", key(agents[3].id))
        await connection.execute("SET", key(agents[7].id), theirs)  # well formed, and sealed for another agent
        await connection.execute("SET", key(agents[8].id), b'{"beliefs": [0.5, 0.5]}')
    calls = [quiet_store.agents.get_beliefs(agent.id) for agent in agents]
    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert [i for i, each in enumerate(ended) if isinstance(each, EnvelopeRejected)] == [7, 8]
    assert [each for i, each in enumerate(ended) if i not in (7, 8)] == [
        agent.beliefs for i, agent in enumerate(agents) if i not in (7, 8)
    ]


@pytest.mark.parametrize("name", READS)
async def test_tenants_never_share_a_flight(quiet_store: Persistence, name: str) -> None:
    guest = await quiet_store.create_tenant("guest")
    own = await make(quiet_store, 20)
    theirs = [Agent(id=agent.id, name="g", agent_type="t", beliefs=Beliefs.uniform(3)) for agent in own[:10]]
    (await guest.agents.save_agents(theirs)).raise_for_conflicts()
    mine = [READS[name](quiet_store, agent.id) for agent in own]
    found = await asyncio.gather(*mine, *(READS[name](guest, agent.id) for agent in own))  # type: ignore[arg-type]
    assert [beliefs_of(each) for each in found[:20]] == [agent.beliefs for agent in own]
    assert [beliefs_of(each) for each in found[20:]] == [Beliefs.uniform(3)] * 10 + [None] * 10


@pytest.mark.parametrize("name", READS)
async def test_a_read_shows_what_was_written_before_it_began(quiet_store: Persistence, name: str) -> None:
    (agent,) = await make(quiet_store, 1)

    async def read_on() -> None:
        while True:
            await READS[name](quiet_store, agent.id)

    others = [asyncio.create_task(read_on()) for _ in range(4)]  # so that flights are always under way
    for number in range(20):
        q = np.array([1 / (number + 2), 1 - 1 / (number + 2)])
        await quiet_store.agents.update_beliefs(agent.id, q)
        found = await asyncio.gather(*(READS[name](quiet_store, agent.id) for _ in range(5)))
        assert [beliefs_of(each) for each in found] == [Beliefs(q)] * 5
    for other in others:
        other.cancel()
    await asyncio.wait(others)


async def test_a_caller_who_goes_away_disturbs_nobody(quiet_store: Persistence) -> None:
    agents = await make(quiet_store, 50)
    calls = [asyncio.create_task(quiet_store.agents.get_agent(agent.id)) for agent in agents]
    await asyncio.sleep(0)
    for call in calls[::2]:
        call.cancel()
    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(each, asyncio.CancelledError) for each in ended[::2])
    assert [each.name for each in ended[1::2]] == [agent.name for agent in agents[1::2]]  # type: ignore[union-attr]
    assert await quiet_store.agents.get_agent(agents[0].id) is not None


async def test_too_many_waiting_reads_are_refused(settings: Settings) -> None:
    bounded = settings.model_copy(update={"database": settings.database.model_copy(update={"read_queue": 10})})
    async with Persistence.open(bounded, relay="off") as store:
        calls = [store.agents.get_agent(uuid4()) for _ in range(30)]
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(each, Overloaded) for each in ended) == 20
        assert sum(each is None for each in ended) == 10


async def test_once_the_epoch_has_ended_all_are_told(quiet_store: Persistence, owner_database: Database) -> None:
    agents = await make(quiet_store, 5)
    await begin_epoch(owner_database, "restored from a backup")
    ended: list[object] = []
    async with asyncio.timeout(20):
        while not any(isinstance(each, NewEpoch) for each in ended):
            await asyncio.sleep(0.05)
            calls = [read(quiet_store, agent.id) for agent in agents for read in READS.values()]
            ended = list(await asyncio.gather(*calls, return_exceptions=True))
    assert all(isinstance(each, NewEpoch) for each in ended)


async def test_revisions_of_a_batch_are_made_once(store: Persistence) -> None:
    saved = await store.agents.save_agent(Agent(name="a", agent_type="t", beliefs=[0.5, 0.5]))
    batch = await store.agents.get_beliefs_many([saved.id, uuid4(), saved.id])
    assert batch.revisions == (saved.revision, None, saved.revision)
    assert batch.revisions is batch.revisions
