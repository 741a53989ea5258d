"""Row-by-row results and the order of the feed."""

from __future__ import annotations

import random
from uuid import uuid4

import numpy as np
import pytest

from freeagentics_persistence.domain.events import FeedPosition
from freeagentics_persistence.domain.identifiers import new_revisions
from freeagentics_persistence.domain.results import BatchResult, Page, RowStatus
from freeagentics_persistence.errors import (
    AlreadyExists,
    ConcurrentUpdate,
    InvalidInput,
    PersistenceError,
    RevisionExpired,
    UnknownAgent,
    WriteRefused,
)


def result_of(*status: RowStatus, errors: dict[int, PersistenceError] | None = None) -> BatchResult:
    """A result of these rows; row i was expected at version 10 + i and is at 20 + i."""
    count = len(status)
    return BatchResult(
        ids=[uuid4() for _ in status],
        status=np.array(status, dtype=np.int8),
        versions=np.arange(20, 20 + count),
        revisions=new_revisions(count),
        expected=np.arange(10, 10 + count),
        errors=errors or {},
    )


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (RowStatus.CONFLICT, ConcurrentUpdate, "expected version 10, but it is at version 20"),
        (RowStatus.UNKNOWN_AGENT, UnknownAgent, "does not exist"),
        (RowStatus.REVISION_EXPIRED, RevisionExpired, "too old"),
        (RowStatus.EXISTS, AlreadyExists, "on_conflict"),
        (RowStatus.INVALID, WriteRefused, "values were refused"),
        (RowStatus.REFUSED, WriteRefused, "values were refused"),
        (RowStatus.NOT_WRITTEN, WriteRefused, "another row"),
    ],
)
def test_every_failure_has_its_error(status: RowStatus, kind: type[PersistenceError], words: str) -> None:
    result = result_of(status, RowStatus.WRITTEN)
    assert not result.ok
    assert result.written == 1
    (failure,) = result.failures()
    assert failure[0] == 0
    assert type(failure[1]) is kind
    assert words in str(failure[1])
    assert str(result.ids[0]) in str(failure[1])
    with pytest.raises(kind) as caught:
        result.raise_for_conflicts()
    assert caught.value.__notes__ == ["row 0 of 2; 1 of them were not stored"]


def test_a_conflict_carries_both_versions() -> None:
    (failure,) = result_of(RowStatus.CONFLICT).failures()
    assert isinstance(failure[1], ConcurrentUpdate)
    assert (failure[1].expected, failure[1].actual) == (10, 20)


def test_stored_rows_are_no_failures() -> None:
    result = result_of(RowStatus.WRITTEN, RowStatus.REPEATED)
    assert result.ok
    assert result.written == 1
    assert len(result) == 2
    assert list(result.failures()) == []
    assert result.raise_for_conflicts() is result


def test_details_win_over_the_general_error() -> None:
    own = InvalidInput("beliefs[1]", "holds NaN", "Make it finite.")
    result = result_of(RowStatus.WRITTEN, RowStatus.INVALID, errors={1: own})
    assert list(result.failures()) == [(1, own)]
    for _ in range(2):
        with pytest.raises(InvalidInput):
            result.raise_for_conflicts()
    assert own.__notes__ == ["row 1 of 2; 1 of them were not stored"]


def test_an_atomic_batch_raises_the_row_at_fault() -> None:
    undone, fault = RowStatus.NOT_WRITTEN, RowStatus.CONFLICT
    with pytest.raises(ConcurrentUpdate) as caught:
        result_of(undone, undone, fault, undone).raise_for_conflicts()
    assert caught.value.__notes__ == ["row 2 of 4; 4 of them were not stored"]
    with pytest.raises(WriteRefused, match="another row"):
        result_of(undone, undone).raise_for_conflicts()


def test_existing_rows_can_be_accepted() -> None:
    result = result_of(RowStatus.EXISTS, RowStatus.CONFLICT).with_existing_accepted()
    assert result.status.tolist() == [RowStatus.REPEATED, RowStatus.CONFLICT]
    assert result.status.dtype == np.int8
    assert result_of(RowStatus.EXISTS).with_existing_accepted().ok


def test_pages() -> None:
    page = Page([1, 2], next="2")
    assert list(page) == [1, 2]
    assert len(page) == 2
    assert Page([]).next is None


def test_feed_positions_are_ordered_by_round_then_id() -> None:
    ordered = [FeedPosition(1, 9), FeedPosition(1, 10), FeedPosition(2, 1), FeedPosition(10, 0), FeedPosition(10, 2)]
    mixed = ordered.copy()
    random.Random(3).shuffle(mixed)
    assert sorted(mixed) == ordered
    assert max(ordered) == FeedPosition(10, 2) > FeedPosition(9, 99)
    assert [str(position) for position in ordered[:2]] == ["1-9", "1-10"]
    assert len({FeedPosition(1, 2), FeedPosition(1, 2)}) == 1
