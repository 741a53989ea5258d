"""Checks at the boundary: the error names field, problem and remedy, and shows no numbers of beliefs."""

from __future__ import annotations

import decimal
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import IntEnum
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freeagentics_persistence.domain import validation
from freeagentics_persistence.errors import InvalidInput

BELIEFS = [0.123456789, 0.876543211]
HUGE = pytest.param(10**5000, id="huge")  # more digits than Python turns into text
HOLDERS = [BELIEFS, tuple(BELIEFS), np.array(BELIEFS), np.array(BELIEFS[:1]), {"q": BELIEFS}, {0.123456789}]


def refused(check: Any, *arguments: Any, **bounds: Any) -> InvalidInput:
    """The InvalidInput that a check raises, complete and without belief numbers."""
    with pytest.raises(InvalidInput) as caught:
        check("the_field", *arguments, **bounds)
    error = caught.value
    assert error.field.startswith("the_field")
    assert error.problem
    assert error.remedy.endswith(".")
    assert "0.12345" not in str(error)
    assert "0.87654" not in str(error)
    assert len(str(error)) < 500
    return error


@pytest.mark.parametrize("held", HOLDERS, ids=[type(holder).__name__ + str(i) for i, holder in enumerate(HOLDERS)])
def test_beliefs_in_the_wrong_place_are_not_shown(held: Any) -> None:
    refused(validation.require_text, held, limit=9)
    refused(validation.require_uuid, held)
    refused(validation.require_aware, held)
    refused(validation.require_int, held, low=0, high=9)
    refused(validation.require_finite, held)
    refused(validation.require_money, held)
    if isinstance(held, np.ndarray | set):
        refused(validation.require_json, {"a": [held]})


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("", "is empty"),
        (" \t\n", "is empty"),
        ("x" * 11, "has 11 characters"),
        pytest.param("x" * 10_000_000, "has 10000000 characters", id="huge"),
        ("a\x00b", "NUL"),
        ("a\ud800", "lone surrogate"),
        (b"abc", "is a bytes"),
        (None, "is a NoneType"),
        (5, "is a int"),
    ],
)
def test_text(value: Any, problem: str) -> None:
    assert problem in refused(validation.require_text, value, limit=10).problem
    assert validation.require_text("f", "é" * 10, limit=10) == "é" * 10


def test_uuids() -> None:
    own = uuid4()
    assert validation.require_uuid("f", own) == own
    assert validation.require_uuid("f", str(own)) == own

    class DriverUUID(UUID):
        pass

    assert type(validation.require_uuid("f", DriverUUID(int=own.int))) is UUID
    for bad in ("", "abc", str(own)[:-1], None, 5, own.bytes, "x" * 100_000):
        refused(validation.require_uuid, bad)


def test_times() -> None:
    for good in (datetime.now(UTC), datetime.now(timezone(timedelta(hours=5.5)))):
        assert validation.require_aware("f", good) is good
    naive = datetime.now(UTC).replace(tzinfo=None)
    assert "no time zone" in refused(validation.require_aware, naive).problem
    for bad in (date(2020, 1, 1), "2020-01-01T00:00:00Z", 0, None):
        assert "not a datetime" in refused(validation.require_aware, bad).problem
    for end, hours in ((datetime(1, 1, 1, tzinfo=UTC), 1), (datetime(9999, 12, 31, 23, tzinfo=UTC), -1)):
        beyond = end.replace(tzinfo=timezone(timedelta(hours=hours)))
        assert "in UTC" in refused(validation.require_aware, beyond).problem


@pytest.mark.parametrize("value", [-1, 101, HUGE, True, False, np.True_, 1.5, 50.0, "50", None])
def test_whole_numbers_out_of_bounds(value: Any) -> None:
    assert "from 0 to 100" in refused(validation.require_int, value, low=0, high=100).remedy


@pytest.mark.parametrize("value", [0, 100, np.int64(7), np.uint8(7), IntEnum("Level", {"HIGH": 7}).HIGH])  # type: ignore[attr-defined]
def test_whole_numbers(value: Any) -> None:
    found = validation.require_int("f", value, low=0, high=100)
    assert found == value
    assert type(found) is int


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), -float("inf"), 10**400, True, np.True_, "1.5", b"1", None, 1j, Decimal("sNaN")],
)
def test_numbers_that_are_not_finite(value: Any) -> None:
    refused(validation.require_finite, value)


@pytest.mark.parametrize("value", [1.5, 2, Decimal("1.5"), np.float32(1.5), np.int8(3), np.array(1.5)])
def test_finite_numbers(value: Any) -> None:
    found = validation.require_finite("f", value)
    assert found == float(value)
    assert type(found) is float


@pytest.mark.parametrize(
    "value",
    [
        Decimal("NaN"),
        Decimal("sNaN"),
        Decimal("Infinity"),
        Decimal("1.234"),
        Decimal("1E-999999"),
        Decimal("10") ** 13,
        Decimal("-1E13"),
        Decimal("1E+999999"),
        Decimal("9999999999999.995"),
        HUGE,
        1.5,
        "1.50",
        True,
        None,
    ],
)
def test_money_that_is_refused(value: Any) -> None:
    refused(validation.require_money, value)


@pytest.mark.parametrize("precision", [3, 28, 100])
@pytest.mark.parametrize("trap", [None, decimal.Inexact, decimal.Rounded, decimal.FloatOperation])
def test_money_is_exact_under_any_context(precision: int, trap: Any) -> None:
    with decimal.localcontext() as context:
        context.prec = precision
        if trap is not None:
            context.traps[trap] = True
        for text in ("9999999999999.99", "-9999999999999.99", "0", "0E+50", "1E+5", "1.500000"):
            found = validation.require_money("f", Decimal(text))
            assert found.compare(Decimal(text)) == 0 or found == Decimal(text)
            assert found.as_tuple().exponent == -2
        assert validation.require_money("f", 10**13 - 1) == 10**13 - 1
        refused(validation.require_money, Decimal("9999999999999.991"))


@given(st.decimals(-(10**12), 10**12, places=2, allow_nan=False))
def test_money_keeps_its_value(amount: Decimal) -> None:
    assert validation.require_money("f", amount) == amount


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", min_size=1, max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(JSON)
def test_json_stays_what_it_is(value: Any) -> None:
    try:
        assert validation.require_json("f", value) == value
    except InvalidInput as error:
        assert "nested too deeply" in error.problem  # noqa: PT017 - the strategy may nest that deep


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (float("nan"), "the_field"),
        ({"a": [1, {"b": float("nan")}]}, "the_field['a'][1]['b']"),
        ({"a": float("inf")}, "the_field['a']"),
        ({"a": np.float64("nan")}, "the_field['a']"),
        ({"a": Decimal("1.5")}, "the_field['a']"),
        ({"a": 2**63}, "the_field['a']"),
        pytest.param({"a": -(10**5000)}, "the_field['a']", id="huge int"),
        ({"a": b"bytes"}, "the_field['a']"),
        ({"a": memoryview(b"bytes")}, "the_field['a']"),
        ({"a": {1, 2}}, "the_field['a']"),
        ({"a": "\x00"}, "the_field['a']"),
        ({"a": "\udfff"}, "the_field['a']"),
        ({1: "a"}, "the_field key"),
        ({"": "a"}, "the_field key"),
        ({"x" * 256: "a"}, "the_field key"),
        ({"a\x00": "a"}, "the_field key"),
        ([datetime.now(UTC)], "the_field[0]"),
        pytest.param("x" * 65_537, "the_field", id="long text"),
        (["x" * 1000] * 66, "the_field"),
        (["é" * 500] * 66, "the_field"),
    ],
)
def test_json_that_is_refused(value: Any, field: str) -> None:
    assert refused(validation.require_json, value).field == field


def test_json_is_bounded_in_depth() -> None:
    def nested(levels: int) -> Any:
        return [] if levels == 0 else [nested(levels - 1)]

    assert validation.require_json("f", nested(8)) == nested(8)
    assert "nested too deeply" in refused(validation.require_json, nested(9)).problem
    endless: list[Any] = []
    endless.append(endless)
    assert "nested too deeply" in refused(validation.require_json, endless).problem


def test_json_is_a_copy() -> None:
    mine: dict[str, Any] = {"a": [1], "blank": " "}
    checked = validation.require_json("f", mine)
    mine["a"].append(float("nan"))
    assert checked == {"a": [1], "blank": " "}
