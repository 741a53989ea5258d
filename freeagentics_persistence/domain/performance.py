"""How a coalition performs."""

from __future__ import annotations

from typing import Any


def performance_data(member_count: int, revenue: float, efficiency: float | None) -> dict[str, Any]:
    """The readable measurements of a coalition; ``revenue_per_member`` is 0 where there are no members."""
    return {
        "member_count": member_count,
        "revenue": revenue,
        "efficiency": efficiency,
        "revenue_per_member": revenue / member_count if member_count > 0 else 0.0,
    }
