"""How a coalition performs."""

from __future__ import annotations

from typing import Any


def performance_data(member_count: int, revenue: float | None, efficiency: float | None) -> dict[str, Any]:
    """The readable measurements of a coalition; ``revenue`` None where nothing was earned, lost or measured.

    ``revenue_per_member`` is None without a revenue, 0 where there are no members.
    """
    per_member = None
    if revenue is not None:
        per_member = revenue / member_count if member_count > 0 else 0.0
    return {
        "member_count": member_count,
        "revenue": revenue,
        "efficiency": efficiency,
        "revenue_per_member": per_member,
    }
