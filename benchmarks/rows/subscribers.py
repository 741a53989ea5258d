"""One publisher, many subscribers in one process."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import redis.asyncio as redis

from benchmarks.outcome import Outcome, at_least
from benchmarks.place import Place
from benchmarks.row import Entry, Slices
from benchmarks.scene import Scene
from benchmarks.swarm import Swarm
from benchmarks.timing import Sample
from freeagentics_persistence import ALL, DEFAULT_TENANT_ID, Persistence
from freeagentics_persistence.cache.keys import TenantKeys

CHANNEL = "benchmark:updates"
TIMEOUT = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscribersRow:
    """Each of ``subscribers`` receives every one of ``updates``."""

    rounds: int = 10
    seconds: float = 2.0
    agents: int = 10_000
    updates: int = 1000
    subscribers: int = 100
    dimensions: Sequence[int] = (256, 16)

    async def measure(self, scene: Scene) -> list[Outcome]:
        """Every dimension, as messages are larger with more values."""
        return [await self._case(scene, await scene.swarm(self.agents, d)) for d in self.dimensions]

    async def _case(self, scene: Scene, swarm: Swarm) -> Outcome:
        message = await captured_message(scene.place, swarm)
        ours = Subscribers(scene.place, swarm, self.updates, self.subscribers)
        plain = PlainSubscribers(scene.place, message, self.updates, self.subscribers)
        slices = Slices(self.rounds, self.seconds, scene.say, scene.place.server.level, swarm.label)
        samples = await slices.take([ours, plain])
        notes = [
            f"messages of {len(message):,} B, decoded by every subscriber",
            "ours includes the write and the relay",
        ]
        case = f"{self.subscribers} subscribers, {swarm.label}"
        return Outcome(case, "deliveries/s", samples, [at_least(10.0, ours.name, plain.name)], notes)


class Subscribers:
    """Subscriptions of one store to all agents, from the call that updates them to the last delivery."""

    def __init__(self, place: Place, swarm: Swarm, updates: int, subscribers: int) -> None:
        self.name = f"{subscribers} subscriptions"
        self._place, self._swarm, self._updates, self._subscribers = place, swarm, updates, subscribers

    async def run(self, seconds: float) -> Sample:
        """Deliveries per second; how many there are is given, so ``seconds`` are not used."""
        swarm, updates = self._swarm, self._updates
        settings = self._place.settings_with(redis={"pool_size": max(32, 2 * self._subscribers)})
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(Persistence.open(settings))
            seen = [
                await stack.enter_async_context(
                    store.updates.subscribe_to_agent_updates(ALL, buffer=updates, overflow="wait")
                )
                for _ in range(self._subscribers)
            ]

            async def listen(number: int, wanted: int) -> None:
                for _ in range(wanted):
                    await anext(seen[number])

            async def publish(wanted: int) -> float:
                began = time.perf_counter()
                async with asyncio.timeout(TIMEOUT), asyncio.TaskGroup() as group:
                    for number in range(self._subscribers):
                        group.create_task(listen(number, wanted))
                    beliefs = swarm.steps[0][:wanted]
                    (await store.agents.update_beliefs_many(swarm.ids[:wanted], beliefs)).raise_for_conflicts()
                return time.perf_counter() - began

            await publish(10)
            return Sample(updates * self._subscribers / await publish(updates))


class PlainSubscribers:
    """A PubSub connection for each subscriber, which decodes all it gets; the publisher sends in one pipeline."""

    def __init__(self, place: Place, message: bytes, updates: int, subscribers: int) -> None:
        self.name = f"{subscribers} PubSub connections"
        self._place, self._message, self._updates, self._subscribers = place, message, updates, subscribers

    async def run(self, seconds: float) -> Sample:
        """Deliveries per second."""
        async with AsyncExitStack() as stack:
            publisher = await stack.enter_async_context(self._place.redis())
            connections = [await stack.enter_async_context(followed(self._place)) for _ in range(self._subscribers)]

            async def publish(wanted: int) -> float:
                began = time.perf_counter()
                async with asyncio.timeout(TIMEOUT), asyncio.TaskGroup() as group:
                    for connection in connections:
                        group.create_task(receive(connection, wanted))
                    async with publisher.pipeline(transaction=False) as pipe:
                        for _ in range(wanted):
                            pipe.publish(CHANNEL, self._message)
                        await pipe.execute()
                return time.perf_counter() - began

            await publish(10)
            return Sample(self._updates * self._subscribers / await publish(self._updates))


@asynccontextmanager
async def followed(place: Place) -> AsyncIterator[redis.client.PubSub]:
    """A connection that follows the channel."""
    async with place.redis() as client, client.pubsub() as connection:
        await connection.subscribe(CHANNEL)
        await connection.get_message(timeout=5)
        yield connection


async def receive(connection: redis.client.PubSub, wanted: int) -> None:
    """Take and decode so many messages."""
    while wanted:
        message = await connection.get_message(ignore_subscribe_messages=True, timeout=None)
        if message is not None:
            json.loads(message["data"])
            wanted -= 1


async def captured_message(place: Place, swarm: Swarm) -> bytes:
    """A message that the relay really published."""
    async with Persistence.open(place.settings) as store, place.redis() as client, client.pubsub() as connection:
        await connection.subscribe(TenantKeys(store.epoch, DEFAULT_TENANT_ID).all_channel)
        await connection.get_message(timeout=5)
        await store.agents.update_beliefs(swarm.ids[0], swarm.steps[0][0], free_energy=1.5)
        async with asyncio.timeout(30):
            while True:
                message = await connection.get_message(ignore_subscribe_messages=True, timeout=1)
                if message is not None:
                    return bytes(message["data"])


ENTRY = Entry(
    "subscribers",
    "one publisher, many subscribers",
    SubscribersRow(),
    SubscribersRow(rounds=1, agents=5000, updates=200, dimensions=(256,)),
)
