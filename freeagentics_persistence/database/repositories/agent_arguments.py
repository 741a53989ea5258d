"""Checks of what callers of the agents' repositories pass; each refuses with an InvalidInput that names the field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt

from freeagentics_persistence.database.writes.revisions import require_revision
from freeagentics_persistence.domain.agents import Agent
from freeagentics_persistence.domain.validation import MAX_VERSION, require_int, require_sequence, require_uuid
from freeagentics_persistence.errors import InvalidInput

MAX_BATCH = 1_000_000


def require_agent(field: str, value: object) -> None:
    """Raise InvalidInput for what is no agent."""
    if not isinstance(value, Agent):
        raise InvalidInput(field, f"is a {type(value).__name__}", "Pass a freeagentics_persistence.Agent.")


def require_counted(field: str, values: Sequence[Any]) -> Sequence[Any]:
    """A sequence of at most MAX_BATCH entries."""
    found = require_sequence(field, values)
    if len(found) > MAX_BATCH:
        raise InvalidInput(field, f"are {len(found):,}", f"Pass at most {MAX_BATCH:,} in one call.")
    return found


def require_distinct(field: str, ids: Sequence[UUID]) -> None:
    """Raise InvalidInput where an agent is given twice."""
    if len(set(ids)) != len(ids):
        repeated = next(agent_id for agent_id in ids if ids.count(agent_id) > 1)
        raise InvalidInput(field, f"hold agent {repeated} twice", "Save each agent once in a call.")


def require_ids(ids: Sequence[UUID]) -> list[UUID]:
    """Agents' ids, as plain UUIDs."""
    found = require_counted("ids", ids)
    return [value if type(value) is UUID else require_uuid(f"ids[{i}]", value) for i, value in enumerate(found)]


def require_version(field: str, value: int | None) -> int | None:
    """A version, or None."""
    return None if value is None else require_int(field, value, low=0, high=MAX_VERSION)


def require_revisions(values: Sequence[UUID], count: int) -> list[UUID]:
    """One UUIDv7 for each of ``count`` rows."""
    found = require_sequence("revisions", values)
    if len(found) != count:
        raise InvalidInput("revisions", f"are {len(found)} for {count} ids", "Pass one for each id.")
    return [require_revision(f"revisions[{i}]", value) for i, value in enumerate(found)]


def require_versions(values: npt.ArrayLike, count: int) -> npt.NDArray[np.int64]:
    """Expected versions (N,), -1 for any."""
    versions = np.asarray(values)
    if versions.dtype.kind not in "iu":
        raise InvalidInput("expected_versions", f"have dtype {versions.dtype}", "Pass whole numbers, -1 for any.")
    if versions.size and (int(versions.min()) < -1 or int(versions.max()) > MAX_VERSION):
        raise InvalidInput("expected_versions", "hold a number that is no version", "Pass -1 for any, or 0 and more.")
    return require_column("expected_versions", versions, count, np.dtype(np.int64), -1)


def require_column(field: str, values: npt.ArrayLike | None, count: int, dtype: np.dtype[Any], empty: float) -> Any:
    """Numbers (N,) of a dtype; ``empty`` in every row where ``values`` is None."""
    if values is None:
        return np.full(count, empty, dtype=dtype)
    try:
        if np.asarray(values).dtype.kind not in "fiuO" or isinstance(values, np.ma.MaskedArray):
            raise TypeError
        column = np.asarray(values, dtype=dtype)
    except (TypeError, ValueError, OverflowError):
        raise InvalidInput(field, f"is no array of {dtype}", f"Pass {count} numbers.") from None
    if column.shape != (count,):
        raise InvalidInput(field, f"has shape {column.shape}", f"Pass shape ({count},): one number for each id.")
    return column
