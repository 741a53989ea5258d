"""The figures as tables of a terminal, as Markdown, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.outcome import Finding, Outcome
from benchmarks.timing import VALUE

MET = {True: "yes", False: "no", None: ""}
RATIO_TITLES = ("row", "case", "measured", "figure", "beside", "ratio", "spread", "target", "met")
NUMBERS = frozenset({"figure", "ratio", "spread", "target", "median", "least", "most"})


@dataclass(slots=True)
class Result:
    """What became of one row: its cases, or why there are none."""

    name: str
    title: str
    outcomes: Sequence[Outcome] = ()
    skipped: str | None = None
    failed: str | None = None
    seconds: float = 0.0
    gate: list[str] = field(default_factory=list)


def show(console: Console, results: Sequence[Result]) -> None:
    """Print the ratios, and all contenders below."""
    console.print(_table("Ratios: medians over the slices", RATIO_TITLES, ratio_rows(results)))
    for result in results:
        for outcome in result.outcomes:
            title = f"{result.title}: {outcome.case}, {outcome.unit}"
            console.print(_table(title, contender_titles(outcome), contender_rows(outcome)))
            for note in outcome.notes:
                console.print(f"  {note}", highlight=False)


def markdown(facts: Mapping[str, str], results: Sequence[Result]) -> str:
    """RESULTS.md."""
    parts = [
        "# What was measured\n",
        "Made by `make bench`; what each row means is in `benchmarks/__main__.py`. A ratio is the median over the "
        "slices of one contender's figure divided by the other's in the same round; the spread is its least and "
        "most.\n",
        "".join(f"- {title}: {text}\n" for title, text in facts.items()),
        "## Ratios\n",
        _markdown_table(RATIO_TITLES, ratio_rows(results)),
        "## Contenders\n",
    ]
    for result in results:
        for outcome in result.outcomes:
            parts.append(f"### {result.title}: {outcome.case}\n")
            parts.append(f"In {outcome.unit}{''.join(f'; {note}' for note in outcome.notes)}.\n")
            parts.append(_markdown_table(contender_titles(outcome), contender_rows(outcome)))
    return "\n".join(parts)


def as_json(facts: Mapping[str, str], results: Sequence[Result]) -> str:
    """Everything, slice by slice."""
    rows = [
        {
            "row": result.name,
            "skipped": result.skipped,
            "failed": result.failed,
            "seconds": result.seconds,
            "cases": [_case(outcome) for outcome in result.outcomes],
        }
        for result in results
    ]
    return json.dumps({"facts": facts, "rows": rows}, indent=2)


def ratio_rows(results: Sequence[Result]) -> Iterator[Sequence[str]]:
    """One line for each check, and one for a row that has none."""
    for result in results:
        for outcome in result.outcomes:
            for finding in outcome.findings():
                yield (result.name, outcome.case, *_cells(outcome, finding))
        if result.skipped or result.failed:
            why = f"not run: {result.skipped}" if result.skipped else f"failed: {result.failed}"
            yield (result.name, why, *[""] * (len(RATIO_TITLES) - 2))


def contender_titles(outcome: Outcome) -> Sequence[str]:
    """The columns of an outcome's contenders."""
    return ("who", "median", "least", "most", *_more(outcome))


def contender_rows(outcome: Outcome) -> Iterator[Sequence[str]]:
    """One line for each contender; of its other figures the medians."""
    for name, samples in outcome.samples.items():
        values = outcome.figures(name)
        others = [[sample.more[figure] for sample in samples if figure in sample.more] for figure in _more(outcome)]
        cells = [median(values), min(values), max(values)]
        yield (name, *map(number, cells), *(number(median(found)) if found else "" for found in others))


def number(value: float) -> str:
    """Three significant digits, thousands with commas."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def bound_of(finding: Finding) -> str:
    """The target in words."""
    check = finding.check
    if check.bound is None:
        return ""
    return f"{'at least' if check.least else 'at most'} {check.bound:g}"


def reached_of(finding: Finding) -> str:
    """What a gate goes by instead of the target, in words."""
    return "" if finding.check.reached is None else f" ({finding.check.reached:g} was reached)"


def _cells(outcome: Outcome, finding: Finding) -> Sequence[str]:
    check = finding.check
    shown = "" if check.figure == VALUE else f", {check.figure}"
    own = median(outcome.figures(check.of, check.figure))
    ratio = "" if finding.over is None else f"{finding.value:.2f}"
    spread = f"{number(finding.lowest)} - {number(finding.highest)}"
    bound = bound_of(finding) + reached_of(finding)
    return f"{check.of}{shown}", number(own), finding.over or "", ratio, spread, bound, MET[finding.met]


def _more(outcome: Outcome) -> list[str]:
    return list(dict.fromkeys(name for samples in outcome.samples.values() for s in samples for name in s.more))


def _case(outcome: Outcome) -> dict[str, object]:
    samples = {
        name: [{VALUE: sample.value, **sample.more} for sample in found] for name, found in outcome.samples.items()
    }
    checks = [
        {
            "of": finding.check.of,
            "over": finding.over,
            "figure": finding.check.figure,
            "value": finding.value,
            "lowest": finding.lowest,
            "highest": finding.highest,
            "target": bound_of(finding),
            "met": finding.met,
        }
        for finding in outcome.findings()
    ]
    notes = list(outcome.notes)
    return {"case": outcome.case, "unit": outcome.unit, "samples": samples, "checks": checks, "notes": notes}


def _table(title: str, titles: Sequence[str], rows: Iterator[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in titles:
        table.add_column(name, justify="right" if name in NUMBERS else "left", overflow="fold")
    for cells in rows:
        table.add_row(*cells)
    return table


def _markdown_table(titles: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    lines = [titles, ["-:" if name in NUMBERS else "-" for name in titles], *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)
