"""Store a swarm of real pymdp agents, stop, and go on in another process as if nothing had happened.

Three kinds of agents (see pymdp_agents.py) live --steps steps, and after every step their beliefs are stored:

    fixed     pymdp.agent.Agent (JAX): one batch of agents, stored by one call
    learning  the same, which also learns the parameters of its model (pA, pB)
    legacy    pymdp.legacy.agent.Agent (numpy), also learning: one object an agent, stored by one call an agent

Then this process lives --steps more without the store, while a second process reads the agents from the store and
lives as many. Every array that came back and every array of every later step must be the same in both, bit for bit:
type, shape and bytes. Any difference is an exit status of 1.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from uuid import UUID, uuid4, uuid5

from pymdp_agents import CELLS, JaxSwarm, LegacySwarm

from freeagentics_persistence import Agent, BeliefBatch, Persistence, PersistenceError, Settings

KINDS = {
    "fixed": partial(JaxSwarm, seed=1, learns=False),
    "learning": partial(JaxSwarm, seed=2, learns=True),
    "legacy": partial(LegacySwarm, seed=3),
}
Swarm = JaxSwarm | LegacySwarm
Fingerprints = dict[str, str]  # factor name -> family, type, shape and SHA-256 of its bytes

EXAMPLES = """\
examples:
  python examples/pymdp_swarm.py                              8 agents of each kind, 20 steps, and 20 more
  python examples/pymdp_swarm.py --agents 100 --steps 50
  python examples/pymdp_swarm.py --data-folder /tmp/swarm     embedded servers keep their data there
  python examples/pymdp_swarm.py --forget rng                 see a run go astray that did not store its generators
"""


async def save(store: Persistence, ids: Sequence[UUID], swarm: Swarm) -> None:
    """Store what the agents believe now: a batch by one call, agents that live apart by one call each."""
    if isinstance(swarm, JaxSwarm):
        result = await store.agents.update_beliefs_many(ids, swarm.beliefs(), free_energy=swarm.free_energy)
        result.raise_for_conflicts()
    else:
        rows = [swarm.beliefs_of(i) for i in range(len(ids))]
        await asyncio.gather(*(store.agents.update_beliefs(*pair) for pair in zip(ids, rows, strict=True)))


async def begin(args: argparse.Namespace, swarms: dict[str, Swarm]) -> None:
    """Make the agents, and store every one of their first steps."""
    async with Persistence.open(settings(args)) as store:
        for kind in swarms:
            names = [f"{kind} {i}" for i in range(args.agents)]
            agents = [
                Agent(id=agent_id, name=name, agent_type=f"pymdp-{kind}", location=CELLS[0])
                for agent_id, name in zip(agent_ids(args, kind), names, strict=True)
            ]
            (await store.agents.save_agents(agents)).raise_for_conflicts()
        for _ in range(args.steps):
            for kind, swarm in swarms.items():
                await asyncio.to_thread(swarm.step)  # JAX compiles for seconds, which the event loop does not have
                await save(store, agent_ids(args, kind), swarm)


async def go_on(args: argparse.Namespace, swarms: dict[str, Swarm]) -> dict[str, list[Fingerprints]]:
    """Read the agents from the store and live on: the fingerprints of what was read and of every step after it."""
    seen: dict[str, list[Fingerprints]] = {}
    async with Persistence.open(settings(args)) as store:
        for kind, swarm in swarms.items():
            ids = agent_ids(args, kind)
            stored = await store.agents.get_beliefs_many(ids, consistency="strong")
            if not stored.present.all():
                sys.exit(f"run {args.run.hex} with {args.agents} agents of each kind is not stored here")
            if args.forget:
                stored = without(stored, args.forget, swarm.beliefs())
            swarm.restore(stored)
            seen[kind] = [fingerprints(stored)]
            for _ in range(args.steps):
                await asyncio.to_thread(swarm.step)  # JAX compiles for seconds, which the event loop does not have
                await save(store, ids, swarm)
                seen[kind].append(fingerprints(swarm.beliefs()))
    return seen


def go_on_here(args: argparse.Namespace, swarms: dict[str, Swarm]) -> dict[str, list[Fingerprints]]:
    """The same steps by the agents that never stopped."""
    seen = {kind: [fingerprints(swarm.beliefs())] for kind, swarm in swarms.items()}
    for kind, swarm in swarms.items():
        for _ in range(args.steps):
            swarm.step()
            seen[kind].append(fingerprints(swarm.beliefs()))
    return seen


def go_on_elsewhere(args: argparse.Namespace) -> dict[str, list[Fingerprints]]:
    """go_on() in a fresh Python process, which knows nothing of the agents but their ids."""
    command = [sys.executable, __file__, "--continue", args.run.hex, f"--agents={args.agents}", f"--steps={args.steps}"]
    command += [f"--data-folder={args.data_folder}"] if args.data_folder else []
    command += [f"--forget={args.forget}"] if args.forget else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"the second process ended with status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def report(args: argparse.Namespace, swarms: dict[str, Swarm], here: dict, elsewhere: dict) -> int:
    """Print what was stored and how both runs compare; return how many lines of it tell of a difference."""
    print(f"{'kind':<10}{'arrays':<14}{'family':<13}{'type and shapes, per agent':<42}{'came back':<12}went on")
    differing = 0
    for kind, swarm in swarms.items():
        for stem, specs in groupby(swarm.beliefs().layout, key=lambda spec: spec.name.rstrip("_0123456789")):
            parts = list(specs)
            same = [
                all(mine[spec.name] == its[spec.name] for spec in parts)
                for mine, its in zip(here[kind], elsewhere[kind], strict=True)
            ]
            differing += not all(same)
            came_back = "exact" if same[0] else "DIFFERS"
            went_on = "equal" if all(same[1:]) else f"DIFFERS from step {args.steps + same.index(False, 1)}"
            layout = f"{parts[0].dtype} {' '.join(str(list(spec.shape)) for spec in parts)}"
            print(f"{kind:<10}{stem:<14}{parts[0].family:<13}{layout:<42}{came_back:<12}{went_on}")
    return differing


def fingerprints(batch: BeliefBatch) -> Fingerprints:
    """Two batches have the same fingerprints where every array has the same family, type, shape and bytes."""
    return {
        spec.name: f"{spec.family} {values.dtype} {values.shape} {hashlib.sha256(values.tobytes()).hexdigest()}"
        for spec, values in zip(batch.layout, batch.factors, strict=True)
    }


def without(stored: BeliefBatch, name: str, new: BeliefBatch) -> BeliefBatch:
    """``stored``, except for the arrays of that name, which are those of agents that have just been made."""
    chosen = [
        young if spec.name == name else old
        for spec, old, young in zip(stored.layout, stored.factors, new.factors, strict=True)
    ]
    return BeliefBatch(chosen, names=[s.name for s in stored.layout], families=[s.family for s in stored.layout])


def agent_ids(args: argparse.Namespace, kind: str) -> list[UUID]:
    """Ids that both processes can tell from the name of the run."""
    return [uuid5(args.run, f"{kind}/{i}") for i in range(args.agents)]


def settings(args: argparse.Namespace) -> Settings:
    """Settings from the environment, and the data folder where one is given."""
    return Settings.load(data_folder=args.data_folder) if args.data_folder else Settings.load()


def main() -> int:
    """Read the command line, and run the whole story or its second process."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--agents", type=positive, default=8, help="agents of each kind (8)")
    parser.add_argument("--steps", type=positive, default=20, help="steps before the stop, and again after it (20)")
    parser.add_argument("--data-folder", type=Path, help="where embedded servers keep their data (the user's folder)")
    parser.add_argument("--forget", metavar="ARRAY", help="go on without what was stored under this name")
    parser.add_argument("--continue", metavar="RUN", dest="run", type=UUID, help="only go on from this stored run")
    args = parser.parse_args()
    swarms: dict[str, Swarm] = {kind: make(args.agents) for kind, make in KINDS.items()}
    names = {spec.name for swarm in swarms.values() for spec in swarm.beliefs().layout}
    if args.forget not in {None, *names}:
        parser.error(f"--forget {args.forget}: stored are {', '.join(sorted(names))}")
    try:
        if args.run is not None:
            print(json.dumps(asyncio.run(go_on(args, swarms))))
            return 0
        args.run = uuid4()
        return tell(args, swarms)
    except PersistenceError as error:
        sys.exit(f"pymdp_swarm: {error}")


def tell(args: argparse.Namespace, swarms: dict[str, Swarm]) -> int:
    """The whole story; the exit status."""
    started = time.monotonic()
    print(f"{len(swarms)} x {args.agents} pymdp agents live {args.steps} steps, stored after each (run {args.run.hex})")
    asyncio.run(begin(args, swarms))
    print(f"... and {args.steps} more, here without the store, and in another process from what is stored")
    here = go_on_here(args, swarms)
    differing = report(args, swarms, here, go_on_elsewhere(args))
    verdict = (
        f"FAIL: {differing} lines of this table differ" if differing else "PASS: all arrays of all steps are bit-equal"
    )
    print(f"{verdict} ({time.monotonic() - started:.1f} s)")
    return 1 if differing else 0


def positive(text: str) -> int:
    """A whole number from 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
