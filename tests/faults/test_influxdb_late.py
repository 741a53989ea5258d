"""InfluxDB is away when the store opens: everything else goes on, and nothing of the series is lost."""

from __future__ import annotations

import asyncio
import logging
import secrets
import tempfile
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from freeagentics_persistence import Agent, Beliefs, Persistence
from freeagentics_persistence.errors import AuthenticationFailed, MetricsUnavailable
from freeagentics_persistence.operations.servers import ServerUrls
from tests.conftest import settings_of
from tests.support.influx import MISSING, find_influxd, free_port, set_up, start_influxd, stop, wait_until_ready


def influxd() -> str:
    program = find_influxd()
    if program is None:
        pytest.skip(MISSING)
    return program


async def test_points_wait_for_influxdb(urls: ServerUrls, caplog: pytest.LogCaptureFixture) -> None:
    program, port = influxd(), free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="influxd-", ignore_cleanup_errors=True) as folder:
        process = start_influxd(program, Path(folder) / "data", port)
        assert wait_until_ready(url, process)
        token = set_up(url).token
        stop(process)
        influx = {"url": url, "token": token, "bucket": f"late-{secrets.token_hex(4)}", "timeout": 2}
        with caplog.at_level(logging.WARNING):
            async with Persistence.open(settings_of(urls, influx=influx)) as store:
                assert "metrics wait for InfluxDB" in caplog.text
                agents = [Agent(name=f"a{i}", agent_type="t", beliefs=Beliefs.uniform(2)) for i in range(20)]
                ids = [agent.id for agent in agents]
                (await store.agents.save_agents(agents)).raise_for_conflicts()
                for free in (1.0, 3.0):
                    result = await store.agents.update_beliefs_many(
                        ids, np.full((20, 2), 0.5), free_energy=np.full(20, free)
                    )
                    assert result.ok
                with pytest.raises(MetricsUnavailable, match=url):
                    await store.metrics.query_agent_performance_history(ids[0])
                process = start_influxd(program, Path(folder) / "data", port)
                try:
                    assert wait_until_ready(url, process)
                    async with asyncio.timeout(30):
                        while not await arrived(store, ids[-1]):
                            await asyncio.sleep(0.1)
                    for agent_id in ids:
                        assert await means(store, agent_id) == [2.0]
                finally:
                    stop(process)


async def arrived(store: Persistence, agent_id: UUID) -> bool:
    """Whether its points are there; until the relay is back there is not even a bucket."""
    try:
        return bool(await means(store, agent_id))
    except MetricsUnavailable:
        return False


async def means(store: Persistence, agent_id: UUID) -> list[float]:
    points = await store.metrics.query_agent_performance_history(agent_id, every="24h", fields=["free_energy"])
    return [point.value for point in points]


async def test_a_wrong_token_is_told_at_once(urls: ServerUrls) -> None:
    program, port = influxd(), free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="influxd-", ignore_cleanup_errors=True) as folder:
        process = start_influxd(program, Path(folder) / "data", port)
        try:
            assert wait_until_ready(url, process)
            set_up(url)
            with pytest.raises(AuthenticationFailed, match="INFLUXDB_TOKEN"):
                async with Persistence.open(settings_of(urls, influx={"url": url, "token": "wrong"})):
                    pass
        finally:
            stop(process)
