"""What a person sees of a run: a live view on a terminal, plain lines anywhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from freeagentics_persistence.demo.city_map import CityMap

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console, RenderableType

    from freeagentics_persistence.demo.city import City
    from freeagentics_persistence.demo.report import DemoReport, Figures

PLAIN_LINES = 12
SPARKS = "▁▂▃▄▅▆▇█"


class View(Protocol):
    """Where a run shows itself. Every method returns at once."""

    def say(self, text: str) -> None:
        """Announce what happens now."""

    def start(self, city: City, agents: int, steps: int) -> None:
        """The swarm is stored and the first step comes."""

    def step(self, figures: Figures, doubt: NDArray[np.float64]) -> None:
        """A step is stored. ``doubt`` (C,): see ``Swarm.doubt_by_cell``."""

    def stop(self) -> None:
        """No step comes any more; called also when the run fails or is interrupted."""

    def finish(self, report: DemoReport) -> None:
        """The run is over and checked."""


def view_for(console: Console) -> View:
    """The live view where ``console`` is a terminal, else plain lines."""
    return LiveView(console) if console.is_terminal and not console.is_dumb_terminal else PlainView(console)


class PlainView:
    """Some lines for a log: one every few steps."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._steps = 0

    def say(self, text: str) -> None:
        """Print it."""
        self._line(text)

    def start(self, city: City, agents: int, steps: int) -> None:
        """Say what runs."""
        self._steps = steps
        self._line(f"{agents:,} agents on {len(city.cells)} cells of Amsterdam, {steps} steps")

    def step(self, figures: Figures, doubt: NDArray[np.float64]) -> None:
        """A line for the first step, the last one, and some between."""
        every = max(1, self._steps // PLAIN_LINES)
        if figures.step in (1, self._steps) or figures.step % every == 0:
            self._line(f"step {figures.step:>3}/{self._steps}  " + "  ".join(_short(figures)))

    def stop(self) -> None:
        """Nothing is open."""

    def finish(self, report: DemoReport) -> None:
        """The outcome, one line a figure and a line for each store."""
        for name, value in _figures(report.figures):
            self._line(f"{name}: {value}")
        for check in report.checks:
            self._line(f"{'ok  ' if check.ok else 'FAIL'} {check.store}: {check.what} ({check.compared:,} compared)")
            for difference in check.differences:
                self._line(f"     {difference}")
        self._line(_verdict(report))

    def _line(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)


class LiveView:
    """A picture of the run that is redrawn in place: progress, figures and a map of the city."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._map: CityMap | None = None
        self._entropies: list[float] = []
        self._progress = Progress(
            TextColumn("steps"), BarColumn(None), MofNCompleteColumn(), TimeElapsedColumn(), console=console
        )

    def say(self, text: str) -> None:
        """Print it above the picture."""
        self._console.print(text, highlight=False, markup=False, style="dim")

    def start(self, city: City, agents: int, steps: int) -> None:
        """Open the picture."""
        self.say(f"{agents:,} agents on {len(city.cells)} cells of Amsterdam infer its hidden demand")
        self._map = CityMap.that_fits(city, self._console)
        self._task = self._progress.add_task("steps", total=steps)
        self._live = Live(self._progress, console=self._console, refresh_per_second=8)
        self._live.start()

    def step(self, figures: Figures, doubt: NDArray[np.float64]) -> None:
        """Redraw."""
        if self._live is None:
            return
        self._entropies.append(figures.entropy)
        self._progress.update(self._task, completed=figures.step)
        rows = Table.grid(padding=(0, 1))
        for name, value in _figures(figures):
            rows.add_row(Text(name, "dim"), Text(value))
        curve = sparkline(self._entropies, ascii_only=self._console.options.ascii_only)
        rows.add_row(Text("entropy curve", "dim"), Text(curve))
        body: RenderableType = rows
        if self._map is not None:
            body = Table.grid(padding=(0, 2))
            body.add_row(self._map.draw(doubt), rows)
        self._live.update(Group(body, self._progress))

    def stop(self) -> None:
        """Leave the last picture on the screen."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def finish(self, report: DemoReport) -> None:
        """A table of what every store held."""
        table = Table("", "store", "read back and compared with what the agents believe", "values", box=None)
        for check in report.checks:
            mark = Text("same", "green") if check.ok else Text("differs", "red")
            table.add_row(mark, Text(check.store), Text(check.what), f"{check.compared:,}")
            for difference in check.differences:
                table.add_row("", "", Text(difference, "red"), "")
        self._console.print(table)
        self._console.print(
            _verdict(report), markup=False, style="bold green" if report.ok else "bold red", highlight=False
        )


def sparkline(values: list[float], *, width: int = 24, ascii_only: bool = False) -> str:
    """The last ``width`` values as small bars between their least and greatest."""
    recent = values[-width:]
    low, high = min(recent), max(recent)
    sparks = "_.-=#" if ascii_only else SPARKS
    return "".join(sparks[round((value - low) / (high - low or 1) * (len(sparks) - 1))] for value in recent)


def _figures(figures: Figures) -> list[tuple[str, str]]:
    return [
        ("stored", f"{figures.updates:,} updates, {figures.updates_per_second:,.0f}/s"),
        ("call of a step", str(figures.call)),
        ("received", f"{figures.received:,} by the subscriber"),
        ("to subscriber", str(figures.latency)),
        ("cache hits", str(figures.reads)),
        ("entropy", f"mean {figures.entropy:.3f} nats"),
        ("free energy", f"mean {figures.free_energy:.3f} nats"),
        ("truth", f"believed at {figures.truth:.1%}"),
        ("coalitions", f"{figures.coalitions} of {figures.members} agents"),
        ("so far", f"{figures.formed} formed, {figures.dissolved} dissolved"),
        ("revenue", f"{figures.revenue:,.2f}"),
    ]


def _short(figures: Figures) -> list[str]:
    share = figures.reads.hits / figures.reads.agents if figures.reads.agents else float("nan")
    return [
        f"{figures.updates:,} updates",
        f"{figures.updates_per_second:,.0f}/s",
        f"received {figures.received:,}",
        f"commit to subscriber {figures.latency}",
        f"cache hits {share:.1%}",
        f"entropy {figures.entropy:.3f} nats",
        f"free energy {figures.free_energy:.3f} nats",
        f"coalitions {figures.coalitions}",
    ]


def _verdict(report: DemoReport) -> str:
    took = f"{report.seconds:.1f} s, of which {report.opening_seconds:.1f} s opening the store"
    learned = f"Mean entropy went from {report.entropy_at_start:.2f} to {report.figures.entropy:.2f} nats."
    if report.ok:
        return f"{learned} Every store holds exactly what the agents believe ({took})."
    count = sum(not check.ok for check in report.checks)
    return f"{count} of {len(report.checks)} checks found a difference ({took})."
