"""Two processes write one agent's beliefs: blind, the last wins; with expected versions, one writer a version."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from freeagentics_persistence import Agent, Beliefs, Persistence, Settings
from freeagentics_persistence.operations.servers import ServerUrls
from tests.faults.test_relay_killed import environment

WRITES = 60
WRITER = """
import asyncio, json, sys
from uuid import UUID
from freeagentics_persistence import Persistence
from freeagentics_persistence.errors import ConcurrentUpdate

async def main(agent_id, mode, mine, writes):
    written, conflicts = [], 0
    async with Persistence.open(relay="off") as store:
        version = 1
        while len(written) < writes:
            expected = version if mode == "expected" else None
            try:
                result = await store.agents.update_beliefs(
                    UUID(agent_id), [mine, 1 - mine], expected_version=expected)
                written.append(result.version)
                version = result.version
            except ConcurrentUpdate as error:
                conflicts += 1
                version = error.actual
    print(json.dumps({"written": written, "conflicts": conflicts}))

asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])))
"""


@pytest.mark.parametrize("mode", ["blind", "expected"])
async def test_two_processes_on_one_agent(settings: Settings, urls: ServerUrls, mode: str) -> None:
    async with Persistence.open(settings) as store:
        agent = await store.agents.save_agent(Agent(name="a", agent_type="t", beliefs=Beliefs.uniform(2)))
        processes = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", WRITER, str(agent.id), mode, mine, str(WRITES)),
                env=environment(urls, settings),
                stdout=asyncio.subprocess.PIPE,
            )
            for mine in ("0.25", "0.75")
        ]
        outputs = [json.loads((await process.communicate())[0]) for process in processes]
        versions = [version for output in outputs for version in output["written"]]
        assert sorted(versions) == list(range(2, 2 * WRITES + 2))
        assert all(output["written"] == sorted(output["written"]) for output in outputs)
        if mode == "blind":
            assert [output["conflicts"] for output in outputs] == [0, 0]
        changes = {change.version: change.beliefs async for change in store.agents.get_belief_history(agent.id)}
        last = 0 if max(versions) in outputs[0]["written"] else 1
        assert await store.agents.get_beliefs(agent.id) == Beliefs([[0.25, 0.75], [0.75, 0.25]][last])
        for output, mine in zip(outputs, (0.25, 0.75), strict=True):
            assert all(changes[version] == Beliefs([mine, 1 - mine]) for version in output["written"])
