"""Cursors: they come back as they were made, and nothing else passes for one."""

from __future__ import annotations

import base64
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freeagentics_persistence.domain.cursors import Pages, Position
from freeagentics_persistence.errors import InvalidInput


@given(row=st.uuids(), distance=st.integers(0, 50))
def test_a_cursor_says_where_its_page_ended(row: UUID, distance: int) -> None:
    cursor = Pages("agents", 3).cursor(Position(row, distance))
    assert Pages("agents", 3).position(cursor) == Position(row, distance)
    assert cursor.isascii()


def test_without_a_cursor_there_is_no_position() -> None:
    assert Pages("agents").position(None) is None


@pytest.mark.parametrize("other", [("agents", 4), ("coalitions", 3), ("agents",), ("agents", "3")])
def test_a_cursor_of_another_query_is_refused(other: tuple[object, ...]) -> None:
    cursor = Pages("agents", 3).cursor(Position(uuid4()))
    with pytest.raises(InvalidInput, match="after: belongs to another query"):
        Pages(*other).position(cursor)


@given(st.text() | st.binary() | st.integers() | st.uuids())
def test_what_is_no_cursor_is_refused(value: object) -> None:
    with pytest.raises(InvalidInput, match="after"):
        Pages("agents").position(value)  # type: ignore[arg-type]


@given(st.data())
def test_a_cursor_with_one_character_changed_is_refused_or_points_elsewhere(data: st.DataObject) -> None:
    here = Position(uuid4(), 7)
    cursor = Pages("agents").cursor(here)
    at = data.draw(st.integers(0, len(cursor) - 1))
    changed = cursor[:at] + data.draw(st.sampled_from("AZaz09-_=+/ ")) + cursor[at + 1 :]
    try:
        found = Pages("agents").position(changed)
    except InvalidInput:
        return
    assert changed == cursor or found != here


def test_a_cursor_of_another_format_is_refused() -> None:
    packed = bytearray(base64.urlsafe_b64decode(Pages("agents").cursor(Position(uuid4())) + "==="))
    packed[0] = 2
    with pytest.raises(InvalidInput, match="another version"):
        Pages("agents").position(base64.urlsafe_b64encode(bytes(packed)).rstrip(b"=").decode())
