"""The swarm that everybody updates and reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import md5
from uuid import UUID

import numpy as np
import numpy.typing as npt

from benchmarks.place import Place
from freeagentics_persistence import Agent, Beliefs, Persistence

STEPS = 3  # different beliefs for the whole swarm, written in turn


@dataclass(frozen=True, slots=True)
class Swarm:
    """N agents of the default tenant; ``steps[k]`` (N, d) float64 and ``free_energy`` (N,) in nats.

    What was written last is ``steps[-1]``, and every step is in the staged table as the store itself sealed it.
    """

    dimension: int
    ids: Sequence[UUID]
    steps: Sequence[npt.NDArray[np.float64]]
    free_energy: npt.NDArray[np.float64]

    @property
    def label(self) -> str:
        """As the tables call it."""
        return f"d={self.dimension}"


def agent_ids(count: int) -> list[UUID]:
    """Ids that look random and that SQL can make too: agent n, from 1, has ``md5(n::text)::uuid``."""
    return [UUID(md5(str(n).encode(), usedforsecurity=False).hexdigest()) for n in range(1, count + 1)]


async def make_swarm(place: Place, agents: int, dimension: int) -> Swarm:
    """Replace all agents by a new swarm, and stage every step of it."""
    rng = np.random.default_rng(dimension)
    ids = agent_ids(agents)
    uniform = Beliefs.uniform(dimension)
    made = [Agent(id=ids[i], name=f"agent {i}", agent_type="benchmark", beliefs=uniform) for i in range(agents)]
    steps = [rng.dirichlet(np.ones(dimension), agents) for _ in range(STEPS)]
    swarm = Swarm(dimension, ids, steps, rng.uniform(1.0, 5.0, agents))
    async with Persistence.open(place.settings, relay="off") as store:  # which also makes the tables
        await place.server.forget_swarm()
        await place.forget_cached()  # versions begin again, which no store could bring about
        await place.server.prepare_stage()
        (await store.agents.save_agents(made)).raise_for_conflicts()
        await place.server.forget_events()
        for step, beliefs in enumerate(swarm.steps):
            result = await store.agents.update_beliefs_many(ids, beliefs, free_energy=swarm.free_energy)
            result.raise_for_conflicts()
            await place.server.stage(ids, step)
    return swarm
