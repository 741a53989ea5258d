from __future__ import annotations

import pytest

from benchmarks.outcome import Check, Finding, Outcome, at_least, at_most, beside
from benchmarks.timing import Sample


def outcome_of(*checks: Check) -> Outcome:
    samples = {
        "ours": [Sample(50, {"p50_ms": 3}), Sample(60, {"p50_ms": 4}), Sample(90, {"p50_ms": 8})],
        "limit": [Sample(100, {"p50_ms": 2}), Sample(100, {"p50_ms": 2}), Sample(100, {"p50_ms": 2})],
        "other limit": [Sample(80, {"p50_ms": 1}), Sample(300, {"p50_ms": 1}), Sample(80, {"p50_ms": 1})],
    }
    return Outcome("case", "updates/s", samples, checks)


def found(check: Check) -> Finding:
    return outcome_of(check).findings()[0]


def test_a_ratio_is_the_median_of_the_ratios_of_each_round() -> None:
    finding = found(beside("ours", "other limit"))
    assert finding.value == pytest.approx(50 / 80)
    assert (finding.lowest, finding.highest) == pytest.approx((60 / 300, 90 / 80))
    assert finding.met is None
    assert finding.passes


def test_of_several_limits_the_best_one_counts() -> None:
    assert found(at_least(0.5, "ours", "other limit", "limit")).over == "limit"
    assert found(at_most(1.5, "ours", "limit", "other limit", figure="p50_ms")).over == "other limit"


@pytest.mark.parametrize(
    ("bound", "met", "passes"), [(0.6, True, True), (0.61, False, True), (1.2, False, True), (1.21, False, False)]
)
def test_at_least_is_forgiven_half(bound: float, met: bool, passes: bool) -> None:
    finding = found(at_least(bound, "ours", "limit"))
    assert (finding.met, finding.passes) == (met, passes)


@pytest.mark.parametrize(
    ("bound", "met", "passes"), [(2.0, True, True), (1.9, False, True), (1.0, False, True), (0.9, False, False)]
)
def test_at_most_is_forgiven_twice_as_much(bound: float, met: bool, passes: bool) -> None:
    finding = found(at_most(bound, "ours", "limit", figure="p50_ms"))
    assert (finding.met, finding.passes) == (met, passes)


@pytest.mark.parametrize(("reached", "passes"), [(0.6, True), (1.2, True), (1.21, False)])
def test_where_a_target_is_out_of_reach_a_gate_forgives_half_of_what_was_reached(reached: float, passes: bool) -> None:
    finding = found(at_least(10.0, "ours", "limit", reached=reached))
    assert (finding.met, finding.passes) == (False, passes)


def test_an_absolute_figure_is_reported_and_never_gated() -> None:
    finding = found(at_most(1, "ours", figure="p50_ms"))
    assert (finding.value, finding.met, finding.passes) == (4, False, True)


def test_slices_that_do_not_pair_are_refused() -> None:
    outcome = Outcome("case", "updates/s", {"a": [Sample(1)], "b": [Sample(1), Sample(2)]}, [beside("a", "b")])
    with pytest.raises(ValueError, match="zip"):
        outcome.findings()
