"""A belief is plaintext in the caller's process alone: no store's bytes hold its numbers, raw or as text."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import asyncpg
import numpy as np
import pytest
import redis.asyncio

from freeagentics_persistence import ALL, Agent, Beliefs, Persistence, Settings
from freeagentics_persistence.errors import EnvelopeRejected, KeyUnavailable
from tests.conftest import settings_of

SECRET = np.array([0.123456789012, 0.345678901234, 0.530864309754])  # each of them unlike any length or count


def traces() -> list[bytes]:
    """What would give the beliefs away: their bytes in either order and width, base64 of them, their text."""
    found: list[bytes] = []
    for dtype in ("<f8", ">f8", "<f4"):
        for value in SECRET.astype(dtype):
            found.append(value.tobytes())
        raw = SECRET.astype(dtype).tobytes()
        found += [base64.b64encode(raw[skip:])[2:14] for skip in range(3)]
    return [*found, b"0.1234567", b"0.3456789"]


async def dump_postgresql(admin: asyncpg.Connection) -> bytes:
    """Every row of every table, as bytes and as text."""
    parts: list[bytes] = []
    tables = await admin.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    for (table,) in tables:
        for row in await admin.fetch(f"SELECT * FROM {table}"):
            parts += [value if isinstance(value, bytes) else repr(value).encode() for value in row.values()]
    return b"\n".join(parts)


async def dump_redis(url: str) -> bytes:
    """Every key and value."""
    parts: list[bytes] = []
    async with redis.asyncio.Redis.from_url(url) as client:
        async for key in client.scan_iter(count=1000):
            parts += [key, await client.dump(key) or b""]
            if await client.type(key) == b"stream":
                for entry in await client.xrange(key):
                    parts += [part for pair in entry[1].items() for part in pair]
            elif await client.type(key) == b"string":
                parts.append(await client.get(key) or b"")
    return b"\n".join(parts)


async def test_no_store_holds_a_plaintext_belief(settings: Settings, admin: asyncpg.Connection) -> None:
    assert settings.redis.url is not None
    async with Persistence.open(settings) as store, store.updates.subscribe_to_agent_updates(ALL) as updates:
        agent = await store.agents.save_agent(Agent(name="a", agent_type="t", beliefs=Beliefs(SECRET)))
        await store.agents.update_beliefs(agent.id, SECRET, free_energy=1.0)
        await store.updates.publish_agent_update(agent.id, "thought", {"beliefs": SECRET.tolist()})
        await store.metrics.record_agent_belief_update(agent.id, Beliefs(SECRET))
        seen = [await anext(updates) for _ in range(3)]
        assert await seen[1].beliefs() == Beliefs(SECRET)
        assert [update.type for update in seen] == ["agent.saved", "beliefs.updated", "thought"]
        everything = await dump_postgresql(admin) + await dump_redis(settings.redis.url.get_secret_value())
        assert len(everything) > 3000
        assert b"fa:" in everything
        assert [trace for trace in traces() if trace in everything] == []
        assert "0.1234567" not in repr(agent) + repr(seen) + repr(settings)


async def test_a_wrong_key_opens_nothing(settings: Settings, urls: object) -> None:
    async with Persistence.open(settings) as store:
        await store.agents.save_agent(Agent(name="a", agent_type="t", beliefs=Beliefs.uniform(2)))
    with pytest.raises(KeyUnavailable, match="sealed under the key env:"):
        async with Persistence.open(settings_of(urls)):  # type: ignore[arg-type]
            pass


@pytest.mark.parametrize("damage", ["flip", "cut", "swap", "plain", "other tenant"])
async def test_a_damaged_envelope_raises_from_every_reader(
    quiet_store: Persistence, admin: asyncpg.Connection, damage: str
) -> None:
    agents = [Agent(name=n, agent_type="t", beliefs=Beliefs(q)) for n, q in (("a", [1.0, 0]), ("b", [0, 1.0]))]
    (await quiet_store.agents.save_agents(agents)).raise_for_conflicts()
    agent = agents[0]
    sealed = await admin.fetchval("SELECT belief_state FROM agents WHERE id = $1", agent.id)
    if damage == "other tenant":
        other = await quiet_store.create_tenant("other")
        await other.agents.save_agent(agent)
        bad = await admin.fetchval("SELECT belief_state FROM agents WHERE tenant_id = $1", other.tenant_id)
    else:
        bad = {
            "flip": bytes([*sealed[:-1], sealed[-1] ^ 1]),
            "cut": sealed[:-1],
            "swap": await admin.fetchval("SELECT belief_state FROM agents WHERE id = $1", agents[1].id),
            "plain": Beliefs([1.0, 0]).to_bytes(),
        }[damage]
    await admin.execute("UPDATE agents SET belief_state = $1 WHERE id = $2", bad, agent.id)
    await admin.execute("UPDATE agent_history SET belief_state = $1 WHERE agent_id = $2", bad, agent.id)
    moment = datetime.now(UTC)

    async def history() -> None:
        _ = [change async for change in quiet_store.agents.get_belief_history(agent.id)]

    for read in (
        quiet_store.agents.get_agent(agent.id),
        quiet_store.agents.get_beliefs(agent.id, consistency="strong"),
        quiet_store.agents.get_beliefs_many([agents[1].id, agent.id], consistency="strong"),
        quiet_store.agents.get_beliefs_at([agent.id], moment),
        history(),
    ):
        with pytest.raises((EnvelopeRejected, KeyUnavailable)):
            await read


async def test_a_damaged_cache_entry_raises(store: Persistence, settings: Settings) -> None:
    assert settings.redis.url is not None
    agent = await store.agents.save_agent(Agent(name="a", agent_type="t", beliefs=Beliefs.uniform(2)))
    async with redis.asyncio.Redis.from_url(settings.redis.url.get_secret_value()) as client:
        keys = [key async for key in client.scan_iter(match=f"*agent:beliefs:*{agent.id}*")]
        assert len(keys) == 1
        entry = await client.get(keys[0])
        assert entry is not None
        await client.set(keys[0], entry[:-1] + bytes([entry[-1] ^ 1]))
    with pytest.raises(EnvelopeRejected):
        await store.agents.get_beliefs(agent.id)
    assert await store.agents.get_beliefs(agent.id, consistency="strong") == agent.beliefs
