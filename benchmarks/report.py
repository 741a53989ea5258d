"""The figures as tables, or as JSON."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.plan import Plan
from benchmarks.reads import Read


@dataclass(slots=True)
class Figures:
    """All of one dimension: updates per second of each contender, round by round, reads, and milliseconds."""

    dimension: int
    envelope_bytes: int
    rates: dict[str, list[float]]
    yardsticks: tuple[str, ...]
    reads: list[Read] = field(default_factory=list)
    latency: dict[str, float] = field(default_factory=dict)

    def ratio(self, name: str, yardstick: str) -> float:
        """The median over rounds of a contender's rate divided by a yardstick's rate in the same round."""
        pairs = zip(self.rates[name], self.rates[yardstick], strict=True)
        return median(rate / limit for rate, limit in pairs)


def as_json(plan: Plan, server: dict[str, str], all_figures: list[Figures]) -> str:
    """Everything that was measured."""
    parts = []
    for figures in all_figures:
        ratios = {
            name: {yardstick: figures.ratio(name, yardstick) for yardstick in figures.yardsticks}
            for name in figures.rates
            if name not in figures.yardsticks
        }
        parts.append({**asdict(figures), "ratios": ratios})
    return json.dumps({"plan": asdict(plan), "cpus": os.cpu_count(), "server": server, "figures": parts}, indent=2)


def show(console: Console, server: dict[str, str], all_figures: list[Figures]) -> None:
    """Print tables."""
    facts = ", ".join(f"{name} {value}" for name, value in server.items())
    console.print(f"{os.cpu_count()} CPUs shared by all; PostgreSQL: {facts}", highlight=False)
    for figures in all_figures:
        console.print(_writes(figures))
        console.print(_reads(figures))
        shown = ", ".join(f"{name} {value:.1f} ms" for name, value in figures.latency.items())
        console.print(f"From commit to subscriber, d = {figures.dimension}: {shown}", highlight=False)


def _writes(figures: Figures) -> Table:
    rounds = len(next(iter(figures.rates.values())))
    table = Table(
        title=f"Updates per second, d = {figures.dimension} float64, {rounds} rounds, "
        f"envelopes of {figures.envelope_bytes:,} bytes",
        title_justify="left",
    )
    table.add_column("who", no_wrap=True)
    for title in ("median", "least", "most"):
        table.add_column(title, justify="right")
    for yardstick in figures.yardsticks:
        table.add_column(f"/ {yardstick}", justify="right", max_width=8)
    for name, rates in figures.rates.items():
        own = name in figures.yardsticks
        ratios = ["" if own else f"{figures.ratio(name, yardstick):.2f}" for yardstick in figures.yardsticks]
        cells = [f"{value:,.0f}" for value in (median(rates), min(rates), max(rates))]
        table.add_row(name, *cells, *ratios, style="dim" if own else None)
    return table


def _reads(figures: Figures) -> Table:
    table = Table(title=f"Reads by one caller, d = {figures.dimension} float64", title_justify="left")
    table.add_column("call")
    table.add_column("agents/s", justify="right")
    table.add_column("median of a call, ms", justify="right")
    for read in figures.reads:
        table.add_row(read.name, f"{read.agents_per_second:,.0f}", f"{read.milliseconds:.2f}")
    return table
