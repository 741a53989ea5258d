"""Two kinds of real pymdp agents on a small world, and what each needs to go on bit for bit after a stop.

Seven neighbouring H3 cells, one of which has food that now and then moves. Each agent infers where it is and where
the food is, and chooses where to go. Besides the constants in this file, its run is made of:

    qs              the posterior: categorical factors, so that the store can tell their entropy
    the last action the next prior is what that action should lead to
    the generators  JAX: the agent's PRNG key; legacy: numpy's global Mersenne Twister, 624 words and a position
    A, B, pA, pB    only of agents that learn; raw, as their probabilities run along the first axis, not the last
    the world       its state and its generator, here because the world is simulated too

Inference over a window of time (mmp, vmp) also needs the observations and actions in that window.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # sums on a GPU may round differently from run to run

import equinox as eqx
import h3
import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from pymdp.agent import Agent as JaxAgent
from pymdp.legacy.agent import Agent as LegacyAgent

from freeagentics_persistence import BeliefBatch, Beliefs

# The generative model, in pymdp's layout: A[m][observation, states ...], B[f][to, from, action].

CELLS = h3.grid_disk(h3.latlng_to_cell(52.37, 4.90, 9), 1)
HERE = np.eye(len(CELLS))
SCENT = np.where(HERE > 0, 0.8, 0.15)  # [my cell, the food's cell]
A = [HERE, np.stack([1 - SCENT, SCENT])]  # modalities: the cell I see, whether I smell food
GO, STAY = np.repeat(HERE[:, None, :], len(CELLS), 1), np.repeat(HERE[:, :, None], len(CELLS), 2)
DRIFT = np.where(HERE > 0, 0.9, 0.1 / (len(CELLS) - 1))
B = [0.9 * GO + 0.1 * STAY, DRIFT[:, :, None]]  # factors: my cell, the food's cell; the action is where to go
C = [np.zeros(len(CELLS)), np.array([0.0, 2.0])]
D = [HERE[0], np.full(len(CELLS), 1 / len(CELLS))]
PA, PB = [10 * a + 0.5 for a in A], [10 * b + 0.5 for b in B]  # where learning starts: A and B, blurred

DEPENDENCIES = {"A": [[0], [0, 1]], "B": [[0], [1]]}
CHOICE = {"action_selection": "stochastic", "sampling_mode": "marginal", "alpha": 2.0}
LEARNED = ("A", "B", "pA", "pB")


class World:
    """What is really the case for one agent: its cell, the food's cell, and the chance behind both."""

    def __init__(self, seed: Sequence[int]) -> None:
        self.rng = np.random.default_rng(seed)
        self.states = np.array([0, self.rng.integers(len(CELLS))])

    def step(self, action: np.ndarray) -> list[int]:
        """Let the agent go (action[0] is a cell) and the food drift; return what the agent observes."""
        for f in range(len(B)):
            self.states[f] = self.rng.choice(len(CELLS), p=B[f][:, self.states[f], int(action[f])])
        return [int(self.states[0]), int(self.rng.random() < SCENT[tuple(self.states)])]

    def arrays(self) -> dict[str, np.ndarray]:
        """All there is to store. PCG64 has two integers of 128 bits: they become four words of 32 bits each."""
        pcg = self.rng.bit_generator.state
        wide = pcg["state"]["state"], pcg["state"]["inc"]
        words = [number >> shift & 0xFFFFFFFF for number in wide for shift in (0, 32, 64, 96)]
        rng = np.array([*words, pcg["has_uint32"], pcg["uinteger"]], dtype=np.uint32)
        return {"world": self.states, "world_rng": rng}

    def restore(self, world: np.ndarray, world_rng: np.ndarray) -> None:
        """The reverse of arrays()."""
        words = world_rng.tolist()
        state, inc = (sum(word << 32 * i for i, word in enumerate(words[at : at + 4])) for at in (0, 4))
        self.states = world.copy()  # stored arrays are read-only
        self.rng.bit_generator.state = {
            "bit_generator": "PCG64",
            "state": {"state": state, "inc": inc},
            "has_uint32": words[8],
            "uinteger": words[9],
        }


# ---------------------------------------------------------------------------------------------------------------
# pymdp 1.x: one Agent object is a whole batch; qs is a list of (batch, 1, states) float32 arrays.


class JaxSwarm:
    """A batch of JAX agents. Each has a PRNG key of its own, so that what is stored of it is complete."""

    def __init__(self, agents: int, seed: int, *, learns: bool) -> None:
        model: dict[str, Any] = {"A": jax_arrays(A), "B": jax_arrays(B)}
        if learns:
            model = {"A": jax_arrays(p / p.sum(0) for p in PA), "B": jax_arrays(p / p.sum(0) for p in PB)}
            model |= {"pA": jax_arrays(PA), "pB": jax_arrays(PB), "learn_A": True, "learn_B": True}
        self.agent = JaxAgent(
            **model,
            C=jax_arrays(C),
            D=jax_arrays(D),
            A_dependencies=DEPENDENCIES["A"],
            B_dependencies=DEPENDENCIES["B"],
            batch_size=agents,
            **CHOICE,
        )
        self.learned = LEARNED if learns else ()
        self.qs = [prior[:, None] for prior in self.agent.D]
        self.action = jnp.zeros((agents, len(B)), jnp.int32)
        self.keys = random.split(random.PRNGKey(seed), agents)
        self.free_energy: np.ndarray | None = None
        self.worlds = [World([seed, i]) for i in range(agents)]

    def step(self) -> None:
        """Let every agent act, perceive, learn and choose what to do next."""
        seen = [world.step(action) for world, action in zip(self.worlds, np.asarray(self.action), strict=True)]
        observations = [jnp.asarray(column, jnp.int32)[:, None] for column in zip(*seen, strict=True)]
        self.agent, self.qs, self.action, self.keys, free_energy = perceive_and_act(
            self.agent, self.qs, self.action, self.keys, observations
        )
        self.free_energy = np.asarray(free_energy, dtype=np.float64)

    def beliefs(self) -> BeliefBatch:
        """All that these agents need to go on: one array per factor, one row per agent."""
        raw = {"action": self.action, "rng": self.keys}
        raw |= {name: np.stack([world.arrays()[name] for world in self.worlds]) for name in ("world", "world_rng")}
        raw |= {f"{name}_{i}": x for name in self.learned for i, x in enumerate(getattr(self.agent, name))}
        return BeliefBatch(
            [np.asarray(x) for x in (*self.qs, *raw.values())],
            names=[*(f"factor_{f}" for f in range(len(self.qs))), *raw],
            families=["categorical"] * len(self.qs) + ["raw"] * len(raw),
        )

    def restore(self, batch: BeliefBatch) -> None:
        """The reverse of beliefs()."""
        stored = {spec.name: values for spec, values in zip(batch.layout, batch.factors, strict=True)}
        self.qs = [jnp.asarray(q) for q in batch.to_pymdp()]
        self.action, self.keys = jnp.asarray(stored["action"]), jnp.asarray(stored["rng"])
        for i, world in enumerate(self.worlds):
            world.restore(stored["world"][i], stored["world_rng"][i])
        for name in self.learned:
            arrays = [jnp.asarray(stored[f"{name}_{i}"]) for i in range(2)]
            self.agent = eqx.tree_at(lambda agent, name=name: getattr(agent, name), self.agent, arrays)


@eqx.filter_jit
def perceive_and_act(agent: JaxAgent, before: list, action: jax.Array, keys: jax.Array, observations: list) -> tuple:
    """One step of the batch: infer states, learn, plan, act. Also returns the variational free energy in nats."""
    prior = agent.update_empirical_prior(action, before)
    qs, info = agent.infer_states(observations, prior, return_info=True)
    if agent.learn_A or agent.learn_B:
        transitions = [jnp.concatenate(pair, axis=1) for pair in zip(before, qs, strict=True)]
        agent = agent.infer_parameters(qs, observations, action[:, None], beliefs_B=transitions)
    q_pi, _ = agent.infer_policies(qs)
    keys = jax.vmap(random.split)(keys)  # (batch, 2, 2): one key to keep, one to use, for each agent
    return agent, qs, agent.sample_action(q_pi, rng_key=keys[:, 1]), keys[:, 0], info["vfe"].reshape(-1)


def jax_arrays(arrays: Iterable[np.ndarray]) -> list[jax.Array]:
    """pymdp 1.x takes lists of float32 arrays."""
    return [jnp.asarray(array, jnp.float32) for array in arrays]


# ---------------------------------------------------------------------------------------------------------------
# Legacy pymdp: one Agent object an agent; qs is an object array of float64 arrays; chance is numpy's global one.


class LegacySwarm:
    """Agents of the numpy API. numpy's global generator is given to one agent at a time."""

    def __init__(self, agents: int, seed: int) -> None:
        model = {"A": A, "B": B, "C": C, "D": D, "pA": PA, "pB": PB}
        factors = {"A_factor_list": DEPENDENCIES["A"], "B_factor_list": DEPENDENCIES["B"]}
        self.agents = [
            LegacyAgent(
                **{name: object_array(arrays) for name, arrays in model.items()}, **factors, gamma=1.0, **CHOICE
            )
            for _ in range(agents)
        ]
        for agent in self.agents:
            agent.qs, agent.action = agent.D, np.zeros(len(B))
        self.rngs = [np.random.RandomState(seed + i).get_state() for i in range(agents)]
        self.worlds = [World([seed, i]) for i in range(agents)]

    def step(self) -> None:
        """Let every agent act, perceive, learn and choose what to do next."""
        for i, (agent, world) in enumerate(zip(self.agents, self.worlds, strict=True)):
            np.random.set_state(self.rngs[i])
            observation, before = world.step(agent.action), agent.qs
            agent.infer_states(observation)
            agent.update_A(observation)
            agent.update_B(before)
            agent.infer_policies()
            agent.sample_action()
            self.rngs[i] = np.random.get_state()

    def beliefs(self) -> BeliefBatch:
        """All that these agents need to go on, one row per agent."""
        return BeliefBatch.from_rows([self.beliefs_of(i) for i in range(len(self.agents))])

    def beliefs_of(self, i: int) -> Beliefs:
        """All that agent i needs to go on."""
        agent, (_, words, position, has_normal, normal) = self.agents[i], self.rngs[i]
        return Beliefs.from_pymdp(
            agent.qs,
            action=agent.action,
            rng=words,
            rng_position=np.array([position, has_normal]),
            rng_normal=np.array(normal),
            **self.worlds[i].arrays(),
            **{f"{name}_{k}": x for name in LEARNED for k, x in enumerate(getattr(agent, name))},
        )

    def restore(self, batch: BeliefBatch) -> None:
        """The reverse of beliefs()."""
        for i, (agent, world) in enumerate(zip(self.agents, self.worlds, strict=True)):
            stored = batch[i]
            agent.qs, agent.action = stored.to_object_array(), stored["action"]
            self.rngs[i] = ("MT19937", stored["rng"], *stored["rng_position"].tolist(), float(stored["rng_normal"]))
            world.restore(stored["world"], stored["world_rng"])
            for name in LEARNED:
                setattr(agent, name, object_array([stored[f"{name}_{k}"] for k in range(2)]))


def object_array(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Legacy pymdp takes object arrays; np.array(arrays, dtype=object) would merge arrays of equal shape."""
    out = np.empty(len(arrays), dtype=object)
    for i, array in enumerate(arrays):
        out[i] = array
    return out
