"""Runs the processes, follows the feed beside them, and judges what they left."""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from collections.abc import Mapping
from datetime import timedelta
from itertools import chain
from pathlib import Path
from uuid import UUID

from freeagentics_persistence import ALL, Agent, Beliefs, Persistence, Settings
from tests.consistency.journal import entries
from tests.consistency.verdict import Verdict, judge

STALENESS = timedelta(seconds=1)
Changes = dict[str, list[tuple[int, str]]]


async def check_consistency(
    settings: Settings,
    environment: Mapping[str, str],
    folder: Path,
    *,
    seconds: float,
    processes: int,
    callers: int,
    agents: int,
) -> Verdict:
    """``environment`` is that of the processes: it names the same servers as ``settings``."""
    async with (
        Persistence.open(settings) as store,
        store.updates.subscribe_to_agent_updates(ALL, buffer=100_000, overflow="wait") as updates,
    ):
        made = [Agent(name=f"hot {i}", agent_type="checked", beliefs=Beliefs.uniform(2)) for i in range(agents)]
        (await store.agents.save_agents(made)).raise_for_conflicts()
        ids = [agent.id for agent in made]
        received: Changes = defaultdict(list)

        async def follow() -> None:
            async for update in updates:
                received[str(update.agent_id)].append((update.version, str(update.revision)))

        following = asyncio.create_task(follow())
        try:
            journals = [folder / f"journal-{number}.jsonl" for number in range(processes)]
            runs = [_run(environment, journal, seconds, callers, seed, ids) for seed, journal in enumerate(journals)]
            await asyncio.gather(*runs)
            history = {str(agent_id): await _history(store, agent_id) for agent_id in ids}
            await _arrived(following, history, received)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        verdict = judge(chain.from_iterable(map(entries, journals)), history, received)
        await _judge_levels(verdict, store, ids, history)
    return verdict


async def _run(
    environment: Mapping[str, str], journal: Path, seconds: float, callers: int, seed: int, ids: list[UUID]
) -> None:
    given = [str(journal), str(seconds), str(callers), str(seed), *map(str, ids)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.consistency.worker", *given),
        env=dict(environment),
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    if process.returncode != 0:
        raise AssertionError(f"a process of the checker failed:\n{said.decode()}")


async def _history(store: Persistence, agent_id: UUID) -> list[tuple[int, str]]:
    return [(change.version, str(change.revision)) async for change in store.agents.get_belief_history(agent_id)]


async def _arrived(following: asyncio.Task[None], history: Changes, received: Changes) -> None:
    """Wait until the feed has brought the newest version of every agent, or can bring no more."""
    async with asyncio.timeout(60):
        while any(not received[agent] or received[agent][-1][0] < len(changes) for agent, changes in history.items()):
            if following.done():
                following.result()
            await asyncio.sleep(0.02)


async def _judge_levels(verdict: Verdict, store: Persistence, ids: list[UUID], history: Changes) -> None:
    """With no writer left for as long as ``bounded`` may be behind, every level answers with the newest version."""
    await asyncio.sleep(STALENESS.total_seconds())
    for level in ("strong", "session", "bounded"):
        staleness = STALENESS if level == "bounded" else None
        batch = await store.agents.get_beliefs_many(ids, consistency=level, max_staleness=staleness)  # type: ignore[arg-type]
        found = list(zip(map(int, batch.versions), map(str, batch.revisions), strict=True))
        newest = [tuple(history[str(agent_id)][-1]) for agent_id in ids]
        verdict.require(found == newest, f"read at the level {level}, the end is not the newest version")
