"""Runs the processes, follows the feed beside them, and judges what they left."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import timedelta
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TypeVar
from uuid import UUID

from freeagentics_persistence import ALL, Agent, Beliefs, Persistence, Settings
from freeagentics_persistence.errors import FeedGap, Unavailable
from tests.consistency.journal import entries
from tests.consistency.killer import Killer
from tests.consistency.verdict import Feed, Verdict, judge

STALENESS = timedelta(seconds=1)
Changes = dict[str, list[tuple[int, str]]]
T = TypeVar("T")


async def check_consistency(
    settings: Settings,
    environment: Mapping[str, str],
    folder: Path,
    *,
    seconds: float,
    processes: int,
    callers: int,
    agents: int,
    killer: Killer | None = None,
) -> Verdict:
    """``environment`` is that of the processes: it names the same servers as ``settings``."""
    only_relay = killer is not None and "relay" in killer.faults
    relay: Literal["auto", "off"] = "off" if only_relay else "auto"
    async with Persistence.open(settings, relay=relay) as store:
        if killer is not None:
            await killer.start()
        made = [Agent(name=f"hot {i}", agent_type="checked", beliefs=Beliefs.uniform(2)) for i in range(agents)]
        feed, ids, begun = Feed(), [agent.id for agent in made], asyncio.Event()
        following = asyncio.create_task(_follow(store, ids, feed, begun))
        try:
            await begun.wait()
            (await store.agents.save_agents(made)).raise_for_conflicts()
            journals = [folder / f"journal-{number}.jsonl" for number in range(processes)]
            shared = (seconds, callers, relay if killer is None else f"{relay},faults")
            runs = [_run(environment, journal, *shared, seed, ids) for seed, journal in enumerate(journals)]
            await _all_of(runs, killer)
            history = {str(agent_id): await _persistently(partial(_history, store, agent_id)) for agent_id in ids}
            await _arrived(following, history, feed)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            if killer is not None:
                await killer.stop()
        verdict = judge(chain.from_iterable(map(entries, journals)), history, feed)
        await _judge_levels(verdict, store, ids, history)
    if killer is not None:
        verdict.counts.update({f"faults done: {fault}": count for fault, count in killer.done.items()})
    return verdict


async def _all_of(runs: list[Coroutine[Any, Any, None]], killer: Killer | None) -> None:
    """Run the processes to their end, with faults beside them."""
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        if killer is not None:
            group.create_task(killer.go_on_until(over))
        try:
            await asyncio.gather(*runs)
        finally:
            over.set()


async def _follow(store: Persistence, ids: list[UUID], feed: Feed, begun: asyncio.Event) -> None:
    """Follow all updates; where some are gone do as the error says: read the agents again, and go on after them."""
    after: str | None = None
    while True:
        try:
            subscription = store.updates.subscribe_to_agent_updates(ALL, after=after, buffer=100_000, overflow="wait")
            async with subscription as updates:
                begun.set()
                async for update in updates:
                    feed.received(str(update.agent_id), update.version, str(update.revision))
        except FeedGap as error:
            after = error.resume_after
            batch = await _persistently(partial(store.agents.get_beliefs_many, ids, consistency="strong"))
            feed.told_of_gap(dict(zip(map(str, ids), map(int, batch.versions), strict=True)))
        except Unavailable:  # while it is being opened; an open one connects again by itself
            await asyncio.sleep(0.05)


async def _persistently(call: Callable[[], Awaitable[T]]) -> T:
    """What a read answers, once its servers do."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await call()
            except Unavailable:
                await asyncio.sleep(0.05)


async def _run(
    environment: Mapping[str, str], journal: Path, seconds: float, callers: int, mode: str, seed: int, ids: list[UUID]
) -> None:
    given = [str(journal), str(seconds), str(callers), mode, str(seed), *map(str, ids)]
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


async def _arrived(following: asyncio.Task[None], history: Changes, feed: Feed) -> None:
    """Wait until the feed has brought the newest version of every agent, or can bring no more."""
    async with asyncio.timeout(60):
        while any(feed.newest(agent) < len(changes) for agent, changes in history.items()):
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
