"""What a run shows, on a terminal and in a log."""

from __future__ import annotations

import json
from decimal import Decimal
from io import StringIO
from uuid import UUID

import numpy as np
import pytest
from rich.console import Console

from freeagentics_persistence.demo.city import AMSTERDAM, City
from freeagentics_persistence.demo.report import Check, DemoReport, Figures, Reads, Spread
from freeagentics_persistence.demo.view import LiveView, PlainView, sparkline, view_for

CITY = City.around(*AMSTERDAM, radius=3)
SAME = Check("cache", "beliefs of every agent", 500)
OTHER = Check("history", "beliefs as of a time", 500, ("agent 4 [at step 3]: other bytes",))


def figures(step: int, latency: Spread | None = None) -> Figures:
    return Figures(
        step=step,
        updates=500 * step,
        received=490 * step,
        busy=0.1 * step,
        call=Spread(12, 13, 14),
        latency=latency or Spread(10, 20, 30.25),
        reads=Reads(1000, 998),
        entropy=6.5 - 0.01 * step,
        free_energy=1.25,
        truth=0.7,
        coalitions=50,
        members=400,
        formed=60,
        dissolved=10,
        revenue=Decimal("1234.50"),
    )


def report(*checks: Check) -> DemoReport:
    return DemoReport(500, 60, 7, UUID(int=1), figures(60), checks, 7.8, seconds=12.34, opening_seconds=2.1)


def shown(console: Console, *checks: Check) -> str:
    view = view_for(console)
    view.say("opening the store")
    view.start(CITY, 500, 60)
    for step in range(1, 61):
        view.step(figures(step), np.full(len(CITY.cells), 0.5))
    view.stop()
    view.finish(report(*checks))
    file = console.file
    assert isinstance(file, StringIO)
    return file.getvalue()


def test_a_log_gets_plain_lines_one_every_few_steps() -> None:
    console = Console(file=StringIO(), width=80)
    assert isinstance(view_for(console), PlainView)
    lines = shown(console, SAME).splitlines()
    steps = [line for line in lines if line.startswith("step ")]
    assert 10 <= len(steps) <= 15
    assert steps[0].startswith("step   1/60  500 updates  5,000/s  received 490")
    assert "commit to subscriber p50 10.0 p95 20.0 p99 30.2 ms" in steps[-1]
    assert "cache hits 99.8%" in steps[-1]
    assert "\x1b" not in "".join(lines)
    assert lines[-1].startswith(
        "Mean entropy went from 7.80 to 5.90 nats. Every store holds exactly what the agents believe (12.3 s"
    )


@pytest.mark.parametrize("terminal", [True, False])
def test_a_difference_is_named_in_full(terminal: bool) -> None:
    text = shown(Console(file=StringIO(), force_terminal=terminal, width=140, height=50), SAME, OTHER)
    assert "agent 4 [at step 3]: other bytes" in text
    assert "1 of 2 checks found a difference" in text


def test_a_terminal_gets_a_live_picture_with_a_map() -> None:
    console = Console(file=StringIO(), force_terminal=True, width=140, height=50)
    assert isinstance(view_for(console), LiveView)
    text = shown(console, SAME)
    assert "⬢" in text
    for wanted in ("to subscriber", "p99 30.2 ms", "mean 5.900 nats", "coalitions", "cache hits", "60/60", "30,000"):
        assert wanted in text


@pytest.mark.parametrize("markup", [True, False])
def test_styles_never_show_as_text(markup: bool) -> None:
    text = shown(Console(file=StringIO(), force_terminal=True, width=140, height=50, markup=markup), SAME, OTHER)
    assert not any(f"[{style}]" in text for style in ("dim", "green", "red"))


def test_a_small_terminal_gets_no_map() -> None:
    text = shown(Console(file=StringIO(), force_terminal=True, width=50, height=24), SAME)
    assert "⬢" not in text
    assert "mean 5.900 nats" in text


def test_a_run_that_ended_early_can_be_stopped_before_it_started() -> None:
    for view in (LiveView(Console(file=StringIO(), force_terminal=True)), PlainView(Console(file=StringIO()))):
        view.stop()


def test_a_sparkline_spans_its_values() -> None:
    assert sparkline([3.0, 1.0, 2.0]) == "█▁▅"
    assert sparkline([1.0, 1.0]) == "▁▁"
    assert len(sparkline([float(i) for i in range(99)])) == 24
    assert sparkline([0.0, 1.0], ascii_only=True).isascii()


def test_a_report_is_ok_only_where_every_store_was_read_and_equal() -> None:
    assert report(SAME).ok
    assert not report().ok
    assert not report(SAME, OTHER).ok


def test_a_report_is_json_without_nan() -> None:
    unknown = DemoReport(1, 1, 7, UUID(int=1), figures(1, Spread.of(np.array([]))), (OTHER,), 7.8, 1.0, 0.5)
    read = json.loads(unknown.to_json())
    assert read["ok"] is False
    assert read["figures"]["latency"]["p50"] is None
    assert read["figures"]["revenue"] == "1234.50"
    assert read["figures"]["updates_per_second"] == pytest.approx(5000)
    assert read["checks"][0]["differences"] == list(OTHER.differences)


def test_percentiles_are_in_milliseconds() -> None:
    spread = Spread.of(np.arange(1, 101) / 1000)
    assert spread.p50 == pytest.approx(50.5)
    assert spread.p99 == pytest.approx(99.01)
    assert str(Spread.of(np.array([1.5]))) == "p50 1500 p95 1500 p99 1500 ms"
