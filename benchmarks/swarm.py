"""The swarm that everybody updates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import numpy as np
import numpy.typing as npt

from benchmarks.plan import Plan
from benchmarks.server import Server
from freeagentics_persistence import DEFAULT_TENANT_ID, Agent, Beliefs, Persistence, Settings


@dataclass(frozen=True, slots=True)
class Swarm:
    """Ids of N agents of the default tenant; ``steps[k]`` (N, d) float64 and ``free_energy`` (N,) in nats."""

    dimension: int
    ids: Sequence[UUID]
    steps: Sequence[npt.NDArray[np.float64]]
    free_energy: npt.NDArray[np.float64]


async def make_swarm(settings: Settings, server: Server, plan: Plan, dimension: int) -> Swarm:
    """Replace all agents by a new swarm, and stage every step of it as the store itself sealed it."""
    rng = np.random.default_rng(dimension)
    agents = [
        Agent(name=f"agent {i}", agent_type="benchmark", beliefs=Beliefs.uniform(dimension)) for i in range(plan.agents)
    ]
    swarm = Swarm(
        dimension,
        [agent.id for agent in agents],
        [rng.dirichlet(np.ones(dimension), plan.agents) for _ in range(plan.steps)],
        rng.uniform(1.0, 5.0, plan.agents),
    )
    async with Persistence.open(settings, relay="off") as store:  # which also makes the tables
        await server.forget_swarm()
        await server.prepare_stage()
        (await store.agents.save_agents(agents)).raise_for_conflicts()
        await server.forget_events()
        for step, beliefs in enumerate(swarm.steps):
            result = await store.agents.update_beliefs_many(swarm.ids, beliefs, free_energy=swarm.free_energy)
            result.raise_for_conflicts()
            await server.stage(DEFAULT_TENANT_ID, swarm.ids, step)
    return swarm
