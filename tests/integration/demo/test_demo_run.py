"""The main job on real servers: that it ends well, and that its checks see what is wrong in each store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from io import StringIO
from uuid import uuid4

import asyncpg
import pytest
from redis.asyncio import Redis
from rich.console import Console

from freeagentics_persistence.demo.report import Check
from freeagentics_persistence.demo.runner import Run, run_demo
from freeagentics_persistence.demo.view import LiveView, PlainView
from freeagentics_persistence.errors import InvalidInput
from freeagentics_persistence.operations.servers import ServerUrls
from freeagentics_persistence.persistence import Persistence, TenantStore
from freeagentics_persistence.settings import Settings
from tests.conftest import settings_of
from tests.support.influx import InfluxServer, influx_server

AGENTS, STEPS = 30, 9


def plain_view() -> PlainView:
    return PlainView(Console(file=StringIO()))


async def until(reached: Callable[[], bool]) -> None:
    while not reached():
        await asyncio.sleep(0.02)


async def test_every_store_holds_what_the_agents_believe(settings: Settings) -> None:
    file = StringIO()
    report = await run_demo(
        agents=AGENTS, steps=STEPS, settings=settings, pace=0, view=PlainView(Console(file=file, width=200))
    )
    assert report.ok, [check.differences for check in report.checks]
    writes = 1 + STEPS + 2
    compared = {(check.store, check.what.split()[0]): check.compared for check in report.checks}
    assert compared["PostgreSQL", "beliefs,"] == compared["cache", "beliefs"] == AGENTS
    assert compared["feed", "every"] == compared["feed", "the"] == AGENTS * writes
    assert compared["history", "beliefs"] == 6 * AGENTS
    assert compared["history", "every"] == 20 * writes
    assert report.figures.received == AGENTS * writes
    assert report.figures.updates == AGENTS * STEPS
    assert report.figures.entropy < report.entropy_at_start
    assert report.figures.latency.p99 > 0
    assert "Every store holds exactly what the agents believe" in file.getvalue()


async def test_it_runs_again_over_the_same_data_and_live_on_a_terminal(settings: Settings) -> None:
    first = await run_demo(agents=10, steps=2, settings=settings, pace=0, view=plain_view())
    screen = StringIO()
    view = LiveView(Console(file=screen, force_terminal=True, width=120, height=40))
    second = await run_demo(agents=10, steps=2, settings=settings, pace=0, view=view)
    assert first.ok
    assert second.ok
    assert first.tenant_id != second.tenant_id
    assert (first.figures.entropy, first.figures.free_energy) == (second.figures.entropy, second.figures.free_energy)
    assert "2/2" in screen.getvalue()


async def test_without_a_relay_the_feed_is_what_differs(settings: Settings) -> None:
    file = StringIO()
    view = PlainView(Console(file=file))
    report = await run_demo(agents=10, steps=3, settings=settings, relay="off", pace=0, patience=0.2, view=view)
    assert not report.ok
    wrong = {check.store for check in report.checks if not check.ok}
    assert wrong == {"feed", "history", "metrics"}
    assert "Every store holds" not in file.getvalue()
    order = next(check for check in report.checks if check.what.startswith("every version of every"))
    assert "came to version 0 of 5" in order.differences[0]


@pytest.mark.parametrize("wrong", [{"agents": 0}, {"steps": 0}, {"seed": -1}, {"pace": float("nan")}])
async def test_bad_input_is_refused_before_anything_starts(settings: Settings, wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        await run_demo(**{"settings": settings, "view": plain_view(), **wrong})


async def test_an_interrupted_run_closes_what_it_opened(settings: Settings) -> None:
    others = asyncio.all_tasks()
    screen = StringIO()
    view = LiveView(Console(file=screen, force_terminal=True, width=120, height=40))
    running = asyncio.create_task(run_demo(agents=10, steps=1000, settings=settings, pace=0.05, view=view))
    await until(lambda: "received" in screen.getvalue())
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert asyncio.all_tasks() == others
    assert screen.getvalue().endswith("\x1b[?25h")  # the cursor is visible again


# What follows changes one store behind the demo's back, between its last step and its check.


@pytest.fixture
async def lived(settings: Settings) -> AsyncIterator[tuple[TenantStore, Run]]:
    """A small run whose steps are over and delivered, and that is not checked yet."""
    async with Persistence.open(settings) as store:
        tenant = await store.create_tenant("a run to be changed")
        run = Run(tenant, AGENTS, STEPS, 7, plain_view())
        async with run.listening():
            await run.live(pace=0)
            await until(run.listener.has_all)
            yield tenant, run


async def differing(run: Run, patience: float = 5.0) -> dict[str, Check]:
    """The checks that found a difference, by store and first word."""
    checks = await run.check(patience)
    return {f"{check.store} {check.what.split()[0]}": check for check in checks if not check.ok}


async def test_nothing_differs_where_nothing_was_changed(lived: tuple[TenantStore, Run]) -> None:
    assert await differing(lived[1]) == {}


async def test_another_writer_is_seen_everywhere(lived: tuple[TenantStore, Run]) -> None:
    store, run = lived
    agent_id = run.record.ids[3]
    await store.agents.update_beliefs(agent_id, [0.5, 0.5])
    await until(lambda: bool(run.listener.order.found()))
    found = await differing(run, patience=0)
    assert {"PostgreSQL beliefs,", "cache beliefs", "feed every"} <= found.keys()
    for name in ("PostgreSQL beliefs,", "cache beliefs", "feed every"):
        assert str(agent_id) in found[name].differences[0]


async def test_a_lost_cache_entry_is_seen(lived: tuple[TenantStore, Run], urls: ServerUrls) -> None:
    _, run = lived
    redis = Redis.from_url(urls.redis)
    lost = [key async for key in redis.scan_iter(match=f"*{run.record.ids[0]}*")]
    await redis.delete(*lost)
    await redis.aclose()
    found = await differing(run)
    assert found.keys() == {"cache beliefs"}
    assert found["cache beliefs"].differences == (f"cache: agent {run.record.ids[0]} is missing",)


async def test_a_changed_history_is_seen(lived: tuple[TenantStore, Run], admin: asyncpg.Connection) -> None:
    _, run = lived
    await admin.execute(
        "UPDATE agent_history SET free_energy = free_energy + 1e-6 WHERE agent_id = $1", run.record.ids[0]
    )
    found = await differing(run, patience=0)
    assert found.keys() == {"history every", "metrics free"}
    assert str(run.record.ids[0]) in found["history every"].differences[0]


async def test_beliefs_of_another_moment_are_seen(lived: tuple[TenantStore, Run], admin: asyncpg.Connection) -> None:
    """History moved by a microsecond: the first version is not there yet at the moment when it was recorded."""
    _, run = lived
    await admin.execute(
        "UPDATE agent_history SET recorded_at = recorded_at + interval '1 second' WHERE agent_id = $1 AND version = 1",
        run.record.ids[0],
    )
    found = await differing(run, patience=0)
    assert "history beliefs" in found
    assert str(run.record.ids[0]) in found["history beliefs"].differences[0]


async def test_a_moved_agent_is_seen(lived: tuple[TenantStore, Run], admin: asyncpg.Connection) -> None:
    _, run = lived
    await admin.execute("UPDATE agents SET location_h3 = NULL WHERE id = $1", run.record.ids[5])
    found = await differing(run)
    assert found.keys() == {"PostgreSQL beliefs,"}


async def test_a_changed_coalition_is_seen(lived: tuple[TenantStore, Run]) -> None:
    store, run = lived
    page = await store.coalitions.list_coalitions()
    first, second = [coalition for coalition in page if coalition.status != "dissolved"][:2]
    last = (await store.coalitions.rank_members(first.id)).items[-1]
    await store.coalitions.update_contributions(first.id, {last.agent_id: Decimal("999.99")})
    await store.coalitions.dissolve_coalition(second.id)
    found = await differing(run)
    assert found.keys() == {"coalitions ranked"}
    assert len(found["coalitions ranked"].differences) == 2


@pytest.fixture(scope="module")
def influx() -> Iterator[InfluxServer]:
    """A real InfluxDB."""
    with influx_server() as server:
        yield server


async def test_the_same_run_against_influxdb(urls: ServerUrls, influx: InfluxServer) -> None:
    bucket = f"demo_{uuid4().hex}"
    group = {"url": influx.url, "token": influx.token, "org": influx.org, "bucket": bucket}
    report = await run_demo(
        agents=AGENTS, steps=STEPS, settings=settings_of(urls, influx=group), pace=0, view=plain_view()
    )
    try:
        assert report.ok, [check.differences for check in report.checks]
        compared = [check.compared for check in report.checks if check.store == "metrics"]
        assert len(compared) == 2
        assert min(compared) > 0
    finally:
        influx.delete_bucket(bucket)
