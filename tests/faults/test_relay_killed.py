"""The relay as a process of its own, killed again and again: every update arrives, once, in each agent's order."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import defaultdict
from uuid import UUID

import numpy as np

from freeagentics_persistence import ALL, Agent, Beliefs, Persistence, Settings
from freeagentics_persistence.operations.servers import ServerUrls

WRITERS = 8
STEPS = 40
AGENTS = 5


def environment(urls: ServerUrls, settings: Settings) -> dict[str, str]:
    """The settings as another process reads them."""
    assert settings.encryption.key is not None
    assert urls.admin is not None
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("DATABASE_", "REDIS_"))},
        "FREEAGENTICS_ENV": "testing",
        "DATABASE_URL": urls.app,
        "DATABASE_MIGRATOR_URL": urls.migrator,
        "DATABASE_RELAY_URL": urls.relay,
        "REDIS_URL": urls.redis,
        "ENCRYPTION_KEY": settings.encryption.key.get_secret_value(),
    }


async def start_relay(variables: dict[str, str]) -> asyncio.subprocess.Process:
    command = [sys.executable, "-m", "freeagentics_persistence", "relay"]
    return await asyncio.create_subprocess_exec(
        *command, env=variables, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )


async def test_every_update_arrives_in_order_though_the_relay_is_killed(settings: Settings, urls: ServerUrls) -> None:
    variables = environment(urls, settings)
    seen: dict[UUID, list[int]] = defaultdict(list)
    expected = WRITERS * AGENTS * (STEPS + 1)
    writing = True
    async with Persistence.open(settings, relay="off") as store:

        async def writer() -> None:
            agents = [Agent(name=f"a{i}", agent_type="t", beliefs=Beliefs.uniform(2)) for i in range(AGENTS)]
            (await store.agents.save_agents(agents)).raise_for_conflicts()
            for _ in range(STEPS):
                q = np.full((AGENTS, 2), 0.5)
                (await store.agents.update_beliefs_many([a.id for a in agents], q)).raise_for_conflicts()
                await asyncio.sleep(0.15)

        async def killer() -> int:
            kills = 0
            while writing:
                relay = await start_relay(variables)
                await asyncio.sleep(1.2 + 0.1 * (kills % 5))
                relay.send_signal(signal.SIGKILL)
                await relay.wait()
                kills += 1
            return kills

        async with store.updates.subscribe_to_agent_updates(ALL, buffer=10_000) as updates:
            killing = asyncio.create_task(killer())
            await asyncio.gather(*(writer() for _ in range(WRITERS)))
            writing = False
            assert await killing >= 3
            relay = await start_relay(variables)
            try:
                async with asyncio.timeout(60):
                    for _ in range(expected):
                        update = await anext(updates)
                        seen[update.agent_id].append(update.version)
            finally:
                relay.terminate()
                assert await relay.wait() in (0, 143, -signal.SIGTERM)  # the last while it was still starting
    assert len(seen) == WRITERS * AGENTS
    assert all(versions == list(range(1, STEPS + 2)) for versions in seen.values())


async def test_of_many_relays_one_serves_each_sink(settings: Settings) -> None:
    async with Persistence.open(settings) as first, Persistence.open(settings) as second:
        async with second.updates.subscribe_to_agent_updates(ALL) as updates:
            agents = [Agent(name=f"a{i}", agent_type="t") for i in range(50)]
            await first.agents.save_agents(agents)
            received = [(await asyncio.wait_for(anext(updates), 20)).agent_id for _ in agents]
        assert sorted(received) == sorted(agent.id for agent in agents)
