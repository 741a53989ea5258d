"""Metrics through the relay into InfluxDB, and what that costs the writers."""

from __future__ import annotations

import time
from dataclasses import dataclass

import aiohttp

from benchmarks.outcome import Outcome, at_least
from benchmarks.product import UpdateOne
from benchmarks.row import Entry, Slices
from benchmarks.scene import Scene
from benchmarks.swarm import Swarm, agent_ids
from benchmarks.timing import Sample, Stopwatch
from benchmarks.yardsticks.backlog import METRICS, Drain
from freeagentics_persistence import DEFAULT_TENANT_ID
from tests.support.influx import InfluxServer

RAW_BUCKET = "raw_lines"
BATCH = 5000
WITH, WITHOUT = "update_beliefs, relay with InfluxDB", "update_beliefs, relay without"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsRow:
    """``passes`` times ``agents`` events wait for the relay; ``callers`` write beside it."""

    rounds: int = 10
    seconds: float = 3.0
    agents: int = 10_000
    passes: int = 3
    callers: int = 500
    dimension: int = 256

    async def measure(self, scene: Scene) -> list[Outcome]:
        """Raises CannotRunError where there is no influxd."""
        influx = scene.influx()
        swarm = await scene.swarm(self.agents, self.dimension)
        return [await self._points(scene, swarm, influx), await self._writers(scene, swarm, influx)]

    async def _points(self, scene: Scene, swarm: Swarm, influx: InfluxServer) -> Outcome:
        store = influx.store(RAW_BUCKET)
        await store.ensure_bucket()
        await store.close()
        settings = scene.place.settings_with(influx={"url": influx.url, "token": influx.token, "org": influx.org})
        ours = MetricsDrain(Drain(scene.place, settings, self.agents, self.passes))
        raw = RawLines(influx, self.agents)
        slices = Slices(self.rounds, self.seconds, scene.say, scene.place.server.level, swarm.label)
        samples = await slices.take([ours, raw])
        notes = ["the same relay serves cache, channels and feed meanwhile"]
        return Outcome(
            f"{self.agents * self.passes:,} events, {swarm.label}",
            "points/s",
            samples,
            [at_least(0.15, ours.name, raw.name)],
            notes,
        )

    async def _writers(self, scene: Scene, swarm: Swarm, influx: InfluxServer) -> Outcome:
        with_influx = scene.place.settings_with(influx={"url": influx.url, "token": influx.token, "org": influx.org})
        contenders = [
            UpdateOne(settings, swarm, self.callers, "auto", name)
            for name, settings in ((WITH, with_influx), (WITHOUT, scene.place.settings))
        ]
        slices = Slices(self.rounds, self.seconds, scene.say, scene.place.server.level, swarm.label)
        try:
            samples = await slices.take(contenders)
        finally:
            await scene.place.server.connection.execute("DELETE FROM relay_positions WHERE sink = $1", METRICS)
        case = f"the writers, {self.callers} callers, {swarm.label}"
        return Outcome(case, "updates/s", samples, [at_least(0.8, WITH, WITHOUT)])


class MetricsDrain:
    """A drained backlog, by the rate of the metrics alone."""

    name = "the relay's metrics"

    def __init__(self, drain: Drain) -> None:
        self._drain = drain

    async def run(self, seconds: float) -> Sample:
        """Points per second."""
        sample = await self._drain.run(seconds)
        return Sample(sample.more[f"{METRICS}_per_s"], sample.more)


class RawLines:
    """Lines of the same fields, made beforehand, in batches, one request after another."""

    name = f"raw lines, batches of {BATCH:,}"

    def __init__(self, influx: InfluxServer, agents: int) -> None:
        self._influx = influx
        self._heads = [f"agent_beliefs,agent_id={each},tenant_id={DEFAULT_TENANT_ID}" for each in agent_ids(agents)]
        self._moment = (time.time_ns() // 1000) - 86_400_000_000  # microseconds; every point has its own

    async def run(self, seconds: float) -> Sample:
        """Points per second; only the requests take time."""
        url = f"{self._influx.url}/api/v2/write?org={self._influx.org}&bucket={RAW_BUCKET}&precision=us"
        headers = {"Authorization": f"Token {self._influx.token}"}
        watch, spent = Stopwatch(seconds), 0.0
        async with aiohttp.ClientSession(headers=headers) as session:
            while not watch.over:
                body = self._lines()
                began = time.perf_counter()
                async with session.post(url, data=body) as answer:
                    if answer.status != 204:
                        raise RuntimeError(f"InfluxDB refused raw lines: {await answer.text()}")
                spent += time.perf_counter() - began
                watch.done += BATCH
        return Sample(watch.done / spent)

    def _lines(self) -> bytes:
        lines = []
        for number in range(BATCH):
            self._moment += 1
            fields = f"free_energy={1.5 + number / 7},belief_entropy=2.7182818284590451,max_belief=0.1234567890123"
            head = self._heads[self._moment % len(self._heads)]
            lines.append(f"{head} {fields},belief_variance=0.0001234567890123,version={number}i {self._moment}")
        return "\n".join(lines).encode()


ENTRY = Entry(
    "metrics",
    "metrics through the relay into InfluxDB",
    MetricsRow(),
    MetricsRow(rounds=2, seconds=0.7, agents=5000, passes=1),
)
