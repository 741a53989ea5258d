"""The demo by the command, small."""

from __future__ import annotations

from tests.integration.cli.cli_helpers import Run


def test_demo_reports_as_json(run: Run, own: dict[str, str]) -> None:
    done = run("demo", "--agents", "20", "--steps", "3", "--seed", "5", "--json", own, timeout=100)
    assert done.code == 0, done
    assert done.json["ok"] is True
    assert (done.json["agents"], done.json["steps"], done.json["seed"]) == (20, 3, 5)
    assert "Every store holds exactly what the agents believe" in done.err


def test_demo_in_plain_lines(run: Run, own: dict[str, str]) -> None:
    done = run("demo", "--agents", "10", "--steps", "2", own, timeout=100)
    assert done.code == 0, done
    assert "step   2/2" in done.out
    assert done.err == ""
