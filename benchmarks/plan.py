"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """Seconds are those of one measurement of one contender; every round measures each contender once."""

    agents: int = 10_000
    callers: int = 500
    dimensions: tuple[int, ...] = (16, 256)
    rounds: int = 5
    seconds: float = 3.0
    pgbench_seconds: int = 8
    pgbench_clients: int = 32
    steps: int = 3  # different beliefs for the whole swarm, written in turn
    read_seconds: float = 2.0
    latency_updates: int = 1000
    latency_rate: float = 100.0  # updates per second


QUICK = Plan(rounds=2, seconds=1.0, pgbench_seconds=2, read_seconds=0.5, latency_updates=200)
