"""relay and watch as processes of their own."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from uuid import uuid4

import numpy as np
import pytest

from freeagentics_persistence.domain.agents import Agent
from freeagentics_persistence.domain.beliefs.beliefs import Beliefs
from freeagentics_persistence.encryption.key_providers import generate_key
from freeagentics_persistence.operations.servers import ServerUrls
from freeagentics_persistence.persistence import Persistence
from tests.conftest import settings_of
from tests.integration.cli.cli_helpers import Outcome, Run, ended, refuse_leaks

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
async def writer(urls: ServerUrls, own: dict[str, str]) -> AsyncIterator[Persistence]:
    """A store on the settings of the command, with a relay."""
    async with Persistence.open(settings_of(urls, encryption={"key": own["ENCRYPTION_KEY"]})) as store:
        yield store


async def lines(process: subprocess.Popen[str], count: int) -> list[str]:
    """The next lines of a command's output."""
    assert process.stdout is not None
    async with asyncio.timeout(30):
        return [await asyncio.to_thread(process.stdout.readline) for _ in range(count)]


async def until_watching(process: subprocess.Popen[str]) -> None:
    heading = (await lines(process, 1))[0]
    assert heading.split()[-2:] == ["energy", "beliefs"]


async def test_watch_shows_opened_beliefs(writer: Persistence, start: Start, own: dict[str, str]) -> None:
    watching = start("watch", "--limit", "3", own)
    await until_watching(watching)
    agent = await writer.agents.save_agent(Agent(name="a", agent_type="t", beliefs=Beliefs([0.5, 0.5])))
    await writer.agents.update_beliefs(agent.id, [0.75, 0.25], free_energy=1.25)
    await writer.updates.publish_agent_update(agent.id, "greeting", {"hello": "there"})
    saved, updated, greeting = await lines(watching, 3)
    assert str(agent.id) in saved
    assert saved.rstrip().endswith("[0.50 0.50]")
    assert "beliefs.updated" in updated
    assert updated.split()[3:6] == ["2", "0.562", "1.250"]
    assert updated.rstrip().endswith("[0.75 0.25]")
    assert "greeting" in greeting
    assert "there" not in greeting
    assert await asyncio.to_thread(watching.wait, 20) == 0


async def test_watch_prints_json_of_the_agents_named(
    writer: Persistence, start: Start, run: Run, own: dict[str, str]
) -> None:
    agents = [Agent(name=f"a{i}", agent_type="t", beliefs=Beliefs([0.5, 0.5])) for i in range(3)]
    await writer.agents.save_agents(agents)
    async with writer.updates.subscribe_to_agent_updates([agents[1].id]) as updates:
        await writer.agents.update_beliefs(agents[1].id, [0.9, 0.1])
        while (update := await anext(updates)).version < 2:
            pass
    for step in (1, 2):
        beliefs = np.array([[1.0, step]] * 3) / (1 + step)
        await writer.agents.update_beliefs_many([agent.id for agent in agents], beliefs)
    arguments = ["watch", str(agents[1].id), str(agents[2].id), "--after", update.position, "--limit", "4", "--json"]
    done = await asyncio.to_thread(run, *arguments, own)
    assert done.code == 0, done
    found = [json.loads(line) for line in done.out.splitlines()]
    versions = [(line["agent_id"], line["version"]) for line in found]
    expected = {(str(agents[n].id), version) for n, version in ((1, 3), (1, 4), (2, 2), (2, 3))}
    assert set(versions) == expected
    first = found[versions.index((str(agents[1].id), 3))]
    assert first["beliefs"] == [{"name": "", "family": "categorical", "values": [0.5, 0.5]}]
    assert first["sealed"] is False
    assert first["data"]["belief_entropy"] == pytest.approx(0.693147)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ENCRYPTION_KEY": ""}, "no key is set"),
        ({"ENCRYPTION_KEY": generate_key()}, "Give the key that it was sealed with"),
        ({"ENCRYPTION_KEY": "", "ENCRYPTION_KEY_FILE": "/nowhere/key"}, "/nowhere/key does not exist"),
    ],
    ids=["none", "another", "missing-file"],
)
async def test_without_the_key_beliefs_stay_sealed_and_it_is_said_once(
    writer: Persistence, start: Start, own: dict[str, str], changes: dict[str, str], said: str
) -> None:
    watching = start("watch", {**own, **changes})
    await until_watching(watching)
    agent = await writer.agents.save_agent(Agent(name="a", agent_type="t", beliefs=Beliefs([0.5, 0.5])))
    await writer.agents.update_beliefs(agent.id, [0.75, 0.25])
    shown = await lines(watching, 2)
    assert all(line.rstrip().endswith("(sealed)") for line in shown)
    assert "0.75" not in shown[1]
    done = await asyncio.to_thread(ended, watching, signal.SIGINT)
    assert done.code == 130
    assert done.err.count("beliefs stay sealed") == 1
    assert said in done.err
    assert "Traceback" not in done.err


async def test_no_beliefs_needs_no_key(writer: Persistence, start: Start, own: dict[str, str]) -> None:
    watching = start("watch", "--no-beliefs", "--limit", "1", {**own, "ENCRYPTION_KEY": ""})
    await until_watching(watching)
    await writer.agents.save_agent(Agent(name="a", agent_type="t", beliefs=Beliefs([0.5, 0.5])))
    assert (await lines(watching, 1))[0].rstrip().endswith("(sealed)")
    assert await asyncio.to_thread(watching.wait, 20) == 0
    assert watching.stderr is not None
    assert watching.stderr.read() == ""


async def test_watch_tells_of_a_gap_and_goes_on(writer: Persistence, start: Start, own: dict[str, str]) -> None:
    watching = start("watch", "--after", f"{uuid4()}/1-1", "--limit", "1", own)
    await until_watching(watching)
    agent = await writer.agents.save_agent(Agent(name="a", agent_type="t"))
    assert str(agent.id) in (await lines(watching, 1))[0]
    assert await asyncio.to_thread(watching.wait, 20) == 0
    assert watching.stderr is not None
    said = watching.stderr.read()
    assert "a new epoch" in said
    assert "Going on after" in said


async def test_watch_shows_one_tenant_alone(writer: Persistence, start: Start, own: dict[str, str]) -> None:
    tenant = await writer.create_tenant("acme")
    watching = start("watch", "--tenant", str(tenant.tenant_id), "--limit", "1", own)
    await until_watching(watching)
    await writer.agents.save_agent(Agent(name="other", agent_type="t"))
    agent = await tenant.agents.save_agent(Agent(name="own", agent_type="t"))
    assert str(agent.id) in (await lines(watching, 1))[0]


def wait_for(process: subprocess.Popen[str], *words: str) -> str:
    """What a command logs until all words came."""
    assert process.stderr is not None
    said, deadline = "", time.monotonic() + 30
    while not all(word in said for word in words):
        assert time.monotonic() < deadline, said
        line = process.stderr.readline()
        assert line, said
        said += line
    return said


async def test_a_relay_delivers_says_so_and_hands_over(urls: ServerUrls, start: Start, own: dict[str, str]) -> None:
    first = start("relay", "--every", "0.2", own)
    await asyncio.to_thread(wait_for, first, "cache: active here", "updates: active here")
    second = start("relay", "--every", "0.2", own)
    await asyncio.to_thread(wait_for, second, "cache: standing by", "updates: standing by")
    settings = settings_of(urls, encryption={"key": own["ENCRYPTION_KEY"]})
    async with (
        Persistence.open(settings, relay="off") as store,
        store.updates.subscribe_to_agent_updates([uuid := Agent(name="a", agent_type="t").id]) as updates,
    ):
        await store.agents.save_agent(Agent(id=uuid, name="a", agent_type="t"))
        async with asyncio.timeout(20):
            assert (await anext(updates)).version == 1
        await asyncio.to_thread(wait_for, first, "cache 1 delivered", "updates 1 delivered")
        done: Outcome = await asyncio.to_thread(ended, first, signal.SIGTERM)
        assert done.code == 143, done
        assert "relay stopped: cache 1 delivered" in done.err
        refuse_leaks(done.err, own)
        await asyncio.to_thread(wait_for, second, "cache: active here", "updates: active here")
        await store.agents.update_beliefs(uuid, [0.5, 0.5])
        async with asyncio.timeout(20):
            assert (await anext(updates)).version == 2
        assert (await asyncio.to_thread(ended, second, signal.SIGINT)).code == 130


def test_an_interrupted_command_leaves_embedded_servers(start: Start, run: Run, tmp_path: object) -> None:
    folder = f"{tmp_path}/data"
    settings = {"FREEAGENTICS_DATA_FOLDER": folder}
    watching = start("relay", settings)
    wait_for(watching, "cache: active here")
    done = ended(watching, signal.SIGTERM)
    assert done.code == 143, done
    assert "Traceback" not in done.err
    checked = run("check", "--json", settings)
    assert checked.code == 0, checked
    # a server that had been left running would not have to be started
    assert "PostgreSQL: starting" in checked.err


def test_a_demo_is_interrupted(start: Start, own: dict[str, str]) -> None:
    running = start("demo", "--agents", "20", "--steps", "1000", own)
    assert running.stdout is not None
    while "step" not in running.stdout.readline():
        pass
    done = ended(running, signal.SIGINT)
    assert done.code == 130, done
    assert "Traceback" not in done.err
