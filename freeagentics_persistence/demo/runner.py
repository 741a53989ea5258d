"""The main job: a swarm lives in a city, and every step of it is stored, received, read and, at the end, checked."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

import numpy as np

from freeagentics_persistence.cache.updates.real_time_updates import ALL
from freeagentics_persistence.demo.city import City, World
from freeagentics_persistence.demo.coalitions import Coalitions
from freeagentics_persistence.demo.concurrency import together
from freeagentics_persistence.demo.generative_model import GenerativeModel
from freeagentics_persistence.demo.ledger import Ledger
from freeagentics_persistence.demo.listener import Listener
from freeagentics_persistence.demo.record import Differences, Record, batch_of, cell_numbers
from freeagentics_persistence.demo.report import Check, DemoReport, Figures, Reads, Spread
from freeagentics_persistence.demo.swarm import Swarm
from freeagentics_persistence.demo.verify import Verifier
from freeagentics_persistence.domain.agents import Agent
from freeagentics_persistence.domain.validation import require_finite, require_int
from freeagentics_persistence.persistence import Persistence

if TYPE_CHECKING:
    from freeagentics_persistence.assembly import TenantStore
    from freeagentics_persistence.demo.view import View
    from freeagentics_persistence.domain.beliefs.batch import BeliefBatch
    from freeagentics_persistence.settings import Settings

MAX_AGENTS = 100_000
MAX_STEPS = 10_000
STEPS_A_ROUND = 8
READ_AT_ONCE = 8
READ_A_STEP = 40
BUFFER = 20_000


async def run_demo(
    *,
    agents: int = 500,
    steps: int = 60,
    settings: Settings | None = None,
    relay: Literal["auto", "off"] = "auto",
    seed: int = 7,
    pace: float = 0.2,
    patience: float = 30.0,
    view: View,
) -> DemoReport:
    """Run the demo in a tenant of its own and compare every store with what the agents believe.

    ``pace``: least seconds a step takes, so that people can watch. ``patience``: seconds to wait, at the end, for
    what the relay still has to carry. Differences are in the report; raises InvalidInput, and whatever the store
    raises. Cancelling it closes everything it opened.
    """
    require_int("agents", agents, low=1, high=MAX_AGENTS)
    require_int("steps", steps, low=1, high=MAX_STEPS)
    require_int("seed", seed, low=0, high=2**63 - 1)
    require_finite("pace", pace)
    began = time.monotonic()
    try:
        async with Persistence.open(settings, relay=relay, progress=view.say) as store:
            opening_seconds = time.monotonic() - began
            tenant = await store.create_tenant(f"demo {uuid4()}")
            run = Run(tenant, agents, steps, seed, view)
            async with run.listening():
                await run.live(pace)
                view.stop()
                view.say("reading back through every store")
                checks = await run.check(patience)
            figures = run.figures(steps)
            seconds = time.monotonic() - began
    finally:
        view.stop()
    report = DemoReport(
        agents=agents,
        steps=steps,
        seed=seed,
        tenant_id=tenant.tenant_id,
        figures=figures,
        checks=checks,
        entropy_at_start=run.entropy_at_start,
        seconds=seconds,
        opening_seconds=opening_seconds,
    )
    view.finish(report)
    return report


class Run:
    """One swarm, its city, and the tenant in which it is stored."""

    def __init__(self, store: TenantStore, agents: int, steps: int, seed: int, view: View) -> None:
        rng = np.random.default_rng(seed)
        model = GenerativeModel.of_demand()
        self._store = store
        self._view = view
        self._steps = steps
        self._city = City.amsterdam(agents)
        self._cells = cell_numbers(self._city)
        self._swarm = Swarm(agents, World(self._city, model.B, model.D, rng), model, rng)
        self._coalitions = Coalitions(self._swarm, rng)
        self._sampling = np.random.default_rng(seed + 1)
        writes = 1 + steps + -(-steps // STEPS_A_ROUND)
        self._agents = self._new_agents()
        batch = batch_of(self._swarm, self._cells)
        size = sum(values.nbytes for values in batch.factors)
        self.record = Record([agent.id for agent in self._agents], writes, size)
        self.listener = Listener(self.record, writes)
        self._ledger = Ledger(store, self._city, self.record.ids)
        self._calls: list[float] = []
        self._reads = Reads()
        self._stale = Differences()
        self._formed = self._dissolved = 0
        self._listening: list[asyncio.Task[None]] = []

    @property
    def entropy_at_start(self) -> float:
        """Mean entropy in nats of the agents before their first step."""
        return float(self.record.writes[0].entropy.mean())

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Subscribe to the swarm before its first agent is stored, until the end."""
        async with self._store.updates.subscribe_to_agent_updates(ALL, buffer=BUFFER, overflow="wait") as updates:
            self._listening = [
                asyncio.create_task(self.listener.listen(updates)),
                asyncio.create_task(self.listener.open_beliefs()),
            ]
            try:
                yield
            finally:
                for task in self._listening:
                    task.cancel()
                await asyncio.gather(*self._listening, return_exceptions=True)

    async def live(self, pace: float) -> None:
        """Store the swarm, then let it live its steps."""
        await self._save_agents(0)
        self._view.start(self._city, len(self._swarm), self._steps)
        for step in range(1, self._steps + 1):
            due = time.monotonic() + pace
            self._swarm.step()
            await self._store_step(step)
            if step % STEPS_A_ROUND == 0 or step == self._steps:
                await self._save_agents(step)
                await self._play_round()
            await self._read_some()
            self._view.step(self.figures(step), self._swarm.doubt_by_cell())
            self._raise_what_ended_the_subscription()
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def check(self, patience: float) -> tuple[Check, ...]:
        """Wait for what is under way, then compare every store with what the agents believe."""
        deadline = time.monotonic() + patience
        while not self.listener.has_all() and time.monotonic() < deadline:
            self._raise_what_ended_the_subscription()
            await asyncio.sleep(0.02)
        await self._until_opened()
        verifier = Verifier(self._store, self.record, self.listener, self._ledger, self._agents)
        stale = Check("reads", "beliefs read between the steps", self._reads.agents, self._stale.found())
        return (*await verifier.check_all(deadline), stale)

    def figures(self, step: int) -> Figures:
        """How things stand after a step; at the end over the whole run."""
        ended = step == self._steps
        delays = self.listener.all_delays() if ended else self.listener.recent_delays()
        return Figures(
            step=step,
            updates=len(self._calls) * len(self._swarm),
            received=self.listener.received,
            busy=sum(self._calls),
            call=Spread.of(np.array(self._calls)),
            latency=Spread.of(delays),
            reads=self._reads,
            entropy=float(self._swarm.entropy.mean()),
            free_energy=float(self._swarm.free_energy.mean()),
            truth=float(self._swarm.belief_in_truth().mean()),
            coalitions=len(self._coalitions.active),
            members=sum(len(coalition.members) for coalition in self._coalitions.active),
            formed=self._formed,
            dissolved=self._dissolved,
            revenue=self._coalitions.revenue,
        )

    async def _store_step(self, step: int) -> None:
        """The whole swarm's step in one call."""
        beliefs = self._announce(step, inferred=True)
        began = time.monotonic()
        with self.record.timed():
            result = await self._store.agents.update_beliefs_many(
                self.record.ids, beliefs, free_energy=self._swarm.free_energy
            )
        self._calls.append(time.monotonic() - began)
        result.raise_for_conflicts()

    async def _save_agents(self, step: int) -> None:
        """Save whole agents: new ones, and later where they have moved to."""
        beliefs = self._announce(step, inferred=False)
        self._agents = [
            dataclasses.replace(agent, location=location, beliefs=beliefs[i])
            for i, (agent, location) in enumerate(zip(self._agents, self._locations(), strict=True))
        ]
        with self.record.timed():
            result = await self._store.agents.save_agents(self._agents, on_conflict="update" if step else "error")
        result.raise_for_conflicts()

    async def _play_round(self) -> None:
        played = self._coalitions.play_round()
        self._formed += len(played.formed)
        self._dissolved += len(played.dissolved)
        await self._ledger.store_round(played)

    async def _read_some(self) -> None:
        """Read some agents' beliefs as another service would: from the cache, and from PostgreSQL on a miss."""
        sample = self._sampling.permutation(len(self._swarm))[:READ_A_STEP].tolist()
        hits = await together(READ_AT_ONCE, [partial(self._read_one, number) for number in sample])
        self._reads = Reads(self._reads.agents + len(hits), self._reads.hits + sum(hits))

    async def _read_one(self, number: int) -> bool:
        agent_id, expected = self.record.ids[number], self._beliefs[number]
        cached = await self._store.cache.get_cached_beliefs(agent_id)
        found = await self._store.agents.get_beliefs(agent_id) if cached is None else cached
        if found != expected:
            self._stale.add(f"agent {agent_id}: other beliefs were read after version {len(self.record)} was stored")
        return cached is not None

    def _announce(self, step: int, *, inferred: bool) -> BeliefBatch:
        self._beliefs = batch_of(self._swarm, self._cells)
        last = step == self._steps
        self.record.announce(step, self._swarm, self._beliefs, last=last, inferred=inferred)
        return self._beliefs

    def _new_agents(self) -> list[Agent]:
        return [Agent(name=f"scout {number + 1}", agent_type="explorer") for number in range(len(self._swarm))]

    def _locations(self) -> list[str]:
        return [self._city.cells[position] for position in self._swarm.positions.tolist()]

    async def _until_opened(self) -> None:
        opened = asyncio.create_task(self.listener.wait_until_opened())
        await asyncio.wait([opened, *self._listening], return_when=asyncio.FIRST_COMPLETED)
        opened.cancel()
        self._raise_what_ended_the_subscription()

    def _raise_what_ended_the_subscription(self) -> None:
        for task in self._listening:
            if task.done():
                task.result()
