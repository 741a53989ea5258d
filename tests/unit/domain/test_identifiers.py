"""Revisions are UUIDv7: their layout, time, order and uniqueness."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freeagentics_persistence.domain.identifiers import DEFAULT_TENANT_ID, new_revision, new_revisions, revision_time
from freeagentics_persistence.errors import InvalidInput


def test_layout() -> None:
    for revision in [*new_revisions(200), new_revision(), DEFAULT_TENANT_ID]:
        assert revision.version == 7
        assert revision.variant == "specified in RFC 4122"
        assert (revision.int >> 76) & 0xF == 7
        assert (revision.int >> 62) & 0b11 == 0b10


def test_time_is_in_the_first_48_bits() -> None:
    before = time.time_ns() // 1_000_000
    revision = new_revision()
    after = time.time_ns() // 1_000_000
    assert before <= revision.int >> 80 <= after
    assert before <= round(revision_time(revision).timestamp() * 1000) <= after
    assert revision_time(revision).tzinfo is UTC


@given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31)))  # noqa: DTZ001 - made aware below
def test_time_is_read_back_to_the_millisecond(moment: datetime) -> None:
    aware = moment.replace(microsecond=moment.microsecond // 1000 * 1000, tzinfo=UTC)
    stamp = round((aware - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000)
    revision = UUID(int=stamp << 80 | 0x7 << 76 | 0b10 << 62)
    assert abs((revision_time(revision) - aware).total_seconds()) < 0.0005


def test_later_milliseconds_sort_later() -> None:
    made = []
    for _ in range(5):
        made.append(new_revision())
        time.sleep(0.002)
    assert made == sorted(made)
    assert [str(revision) for revision in made] == sorted(map(str, made))


def test_revisions_are_unique() -> None:
    made = new_revisions(50_000)
    assert len(set(made)) == len(made)
    assert new_revisions(0) == []
    bits = [0] * 128
    for revision in made[:2000]:
        for bit in range(128):
            bits[bit] += revision.int >> bit & 1
    random_bits = [*range(62), *range(64, 76)]
    assert all(800 < bits[bit] < 1200 for bit in random_bits)


@pytest.mark.parametrize("revision", [uuid4(), UUID(int=2**128 - 1), UUID("ffffffff-ffff-7fff-bfff-ffffffffffff")])
def test_other_uuids_have_no_time(revision: UUID) -> None:
    with pytest.raises(InvalidInput) as caught:
        revision_time(revision)
    assert caught.value.field == "revision"
