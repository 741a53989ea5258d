"""The relay alone: a backlog is written with no relay running, then carried to every sink."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.outcome import Outcome, at_least
from benchmarks.row import CannotRunError, Contender, Entry, Slices
from benchmarks.scene import Scene
from benchmarks.yardsticks.backlog import Drain
from benchmarks.yardsticks.in_server import QUICK_ROWS, ROWS, best_in_server

WITH_INFLUX = "the relay, InfluxDB too"


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayRow:
    """``passes`` times ``agents`` events wait."""

    rounds: int = 10
    seconds: float = 2.0
    limit_rounds: int = 3
    limit_seconds: float = 1.5
    limit_rows: Sequence[int] = ROWS
    agents: int = 10_000
    passes: int = 3
    dimension: int = 256

    async def measure(self, scene: Scene) -> list[Outcome]:
        """Into cache, channels and feed; and into InfluxDB too where there is one."""
        swarm = await scene.swarm(self.agents, self.dimension)
        limit, lean = await best_in_server(scene, swarm, self.limit_rounds, self.limit_seconds, self.limit_rows)
        relay = Drain(scene.place, scene.place.settings, self.agents, self.passes)
        contenders: list[Contender] = [relay, limit, lean]
        checks = [at_least(0.6, relay.name, limit.name, reached=0.4)]
        notes = [f"{self.agents * self.passes:,} events"]
        try:
            influx = scene.influx()
            settings = scene.place.settings_with(influx={"url": influx.url, "token": influx.token, "org": influx.org})
            contenders.append(Drain(scene.place, settings, self.agents, self.passes, WITH_INFLUX))
            checks.append(at_least(0.4, WITH_INFLUX, limit.name, reached=0.26))
        except CannotRunError as error:
            notes.append(f"without InfluxDB: {error}")
        slices = Slices(self.rounds, self.seconds, scene.say, scene.place.server.level, swarm.label)
        return [Outcome(swarm.label, "events/s", await slices.take(contenders), checks, notes)]


ENTRY = Entry(
    "relay",
    "the relay alone",
    RelayRow(),
    RelayRow(rounds=2, seconds=0.4, limit_rounds=1, limit_seconds=0.3, limit_rows=QUICK_ROWS, agents=5000, passes=3),
)
