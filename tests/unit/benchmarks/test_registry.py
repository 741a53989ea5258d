from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import registry
from benchmarks.outcome import Outcome, at_least
from benchmarks.report import Result, as_json, markdown
from benchmarks.row import Slices
from benchmarks.timing import Sample

ROWS = Path(registry.__file__).with_name("rows")


def test_every_row_is_in_the_table_once() -> None:
    files = {path.stem for path in ROWS.glob("*.py")} - {"__init__"}
    assert files == {module.__name__.rpartition(".")[2] for module in registry.MODULES}
    names = [entry.name for entry in registry.ROWS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("entry", registry.ROWS, ids=lambda entry: entry.name)
def test_the_quick_plan_is_of_the_same_row(entry: registry.Entry) -> None:
    assert type(entry.quick) is type(entry.full)
    assert entry.quick.rounds <= entry.full.rounds


class Clock:
    def __init__(self, name: str, order: list[str]) -> None:
        self.name, self._order = name, order

    async def run(self, seconds: float) -> Sample:
        self._order.append(self.name)
        return Sample(seconds)


async def test_contenders_take_turns() -> None:
    order: list[str] = []

    async def level() -> None:
        order.append("level")

    samples = await Slices(2, 1.5, lambda _: None, level).take([Clock("a", order), Clock("b", order)])
    assert order == ["level", "a", "level", "b"] * 2
    assert {name: len(found) for name, found in samples.items()} == {"a": 2, "b": 2}


def test_the_tables_say_what_was_met_and_what_did_not_run() -> None:
    outcome = Outcome("d=16", "updates/s", {"a": [Sample(3.0)], "b": [Sample(2.0)]}, [at_least(2, "a", "b")], ["note"])
    results = [Result("one", "the first", [outcome]), Result("two", "the second", skipped="nothing there")]
    text = markdown({"date": "today"}, results)
    assert "| one | d=16 | a | 3.00 | b | 1.50 | 1.50 - 1.50 | at least 2 | no |" in text
    assert "| two | not run: nothing there |" in text
    assert "In updates/s; note." in text
    assert '"met": false' in as_json({}, results)
