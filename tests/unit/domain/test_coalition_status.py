"""The rules of a coalition's status, against a table written by hand."""

from __future__ import annotations

from decimal import Decimal
from itertools import product
from uuid import UUID

import pytest

from freeagentics_persistence import CoalitionStatus
from freeagentics_persistence.domain.coalitions import next_status
from freeagentics_persistence.errors import InvalidTransition

OWN, CAPITAL = UUID(int=1), Decimal("10.00")
NAMES = ("forming", "active", "profitable", "dissolved")
# by present and wanted status: what comes of it with too few members, with enough, and with enough and revenue
TABLE = {
    (None, "forming"): ("forming", "forming", "forming"),
    ("forming", "forming"): ("forming", "forming", "forming"),
    ("forming", "active"): (None, "active", "profitable"),
    ("forming", "dissolved"): ("dissolved",) * 3,
    ("active", "active"): ("active", "active", "profitable"),
    ("active", "profitable"): ("active", "active", "profitable"),
    ("active", "dissolved"): ("dissolved",) * 3,
    ("profitable", "active"): ("active", "active", "profitable"),
    ("profitable", "profitable"): ("active", "active", "profitable"),
    ("profitable", "dissolved"): ("dissolved",) * 3,
    ("dissolved", "dissolved"): ("dissolved",) * 3,
}


@pytest.mark.parametrize(("present", "wanted"), [*product((None, *NAMES), NAMES)])
def test_each_pair_of_statuses(present: str | None, wanted: str) -> None:
    outcomes = TABLE.get((present, wanted), (None, None, None))
    cases = ((1, CAPITAL), (2, CAPITAL), (2, CAPITAL + Decimal("0.01")))
    for (members, revenue), expected in zip(cases, outcomes, strict=True):
        start = None if present is None else CoalitionStatus(present)
        money = {"initial_capital": CAPITAL, "total_revenue": revenue}
        if expected is not None:
            assert next_status(OWN, start, CoalitionStatus(wanted), members=members, **money) == expected
            continue
        with pytest.raises(InvalidTransition) as caught:
            next_status(OWN, start, CoalitionStatus(wanted), members=members, **money)
        error = caught.value
        assert (error.present, error.wanted) == ("new" if present is None else present, wanted)
        assert set(error.allowed) == {to for (begin, to) in TABLE if begin == present and to != begin} - (
            {"active"} if present == "active" else set()
        )
        for name in (str(OWN), error.present, wanted, *error.allowed):
            assert name in str(error)
