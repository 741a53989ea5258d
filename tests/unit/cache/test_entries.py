"""Cached entries as strings: what is packed comes back, for all agents at once or one by one, and nothing else does."""

from __future__ import annotations

from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st

from freeagentics_persistence.cache.entries import HEADER_BYTES, pack_entry, unpack_entries
from freeagentics_persistence.ports.cache import CacheEntry

ENTRIES = st.builds(
    CacheEntry,
    agent_id=st.uuids(),
    version=st.integers(1, 2**53),
    revision=st.uuids(),
    envelope=st.none() | st.binary(min_size=1, max_size=40),
)
TOO_NEW = b"\x01" + (2**53 + 1).to_bytes(8, "big") + bytes(16) + b"\x00"
NO_ENTRIES = st.sampled_from(
    [TOO_NEW, b"", b"\x01", b"no entry", b"\xff" * HEADER_BYTES, bytes(HEADER_BYTES), b"\x02" * 80]
)
LISTS = st.lists(ENTRIES, min_size=1, max_size=6)


@given(LISTS)
def test_what_is_packed_comes_back(entries: list[CacheEntry]) -> None:
    found = unpack_entries([entry.agent_id for entry in entries], list(map(pack_entry, entries)))
    assert found.entries() == entries
    assert (found.missing(), found.rejected) == ([], {})
    assert {type(version) for version in found.versions} == {int}
    assert {type(revision) for revision in found.revisions} == {bytes}


@given(LISTS, st.data())
def test_neighbours_of_what_is_missing_or_no_entry_come_back_as_ever(
    entries: list[CacheEntry], data: st.DataObject
) -> None:
    strings: list[bytes | None] = list(map(pack_entry, entries))
    instead = data.draw(st.dictionaries(st.integers(0, len(entries) - 1), st.none() | NO_ENTRIES, min_size=1))
    for row, string in instead.items():
        strings[row] = string
    found = unpack_entries([entry.agent_id for entry in entries], strings)
    assert found.missing() == sorted(instead)
    assert sorted(found.rejected) == sorted(row for row, string in instead.items() if string is not None)
    assert found.entries() == [entry for row, entry in enumerate(entries) if row not in instead]
    assert all(found.envelopes[row] is None for row in instead)


@given(ENTRIES, st.binary(min_size=1, max_size=8))
def test_an_entry_that_says_the_opposite_of_what_it_holds_is_none(entry: CacheEntry, more: bytes) -> None:
    string = bytearray(pack_entry(entry))
    string[HEADER_BYTES - 1] ^= 1
    assert 0 in unpack_entries([entry.agent_id], [bytes(string)]).rejected


def test_no_agents_have_no_entries() -> None:
    assert unpack_entries([], []).entries() == []


def test_rows_are_chosen_with_why_they_were_rejected() -> None:
    ids = [uuid4(), uuid4()]
    kept = CacheEntry(ids[0], 3, UUID(int=7), b"x")
    found = unpack_entries(ids, [pack_entry(kept), b"no entry"]).chosen([1, 0, 1])
    assert found.ids == [ids[1], ids[0], ids[1]]
    assert sorted(found.rejected) == found.missing() == [0, 2]
    assert found.entries() == [kept]
