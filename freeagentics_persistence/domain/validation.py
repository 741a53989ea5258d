"""Checks at the boundary: each refuses with an InvalidInput that names field, problem and remedy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from freeagentics_persistence.errors import InvalidInput

MAX_JSON_BYTES = 65_536


def require_text(field: str, value: object, *, limit: int) -> str:
    """A non-empty string of at most ``limit`` characters without NUL."""
    if not isinstance(value, str):
        raise InvalidInput(field, f"is a {type(value).__name__}, not a string", "Pass a str.")
    if not value.strip():
        raise InvalidInput(field, "is empty", f"Pass 1 to {limit} characters.")
    if len(value) > limit:
        raise InvalidInput(field, f"has {len(value)} characters", f"At most {limit} are stored.")
    if "\x00" in value:
        raise InvalidInput(field, "contains a NUL character", "PostgreSQL cannot store it: remove it.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidInput(field, "contains a lone surrogate", "Pass text that encodes as UTF-8.") from None
    return value


def require_uuid(field: str, value: object) -> UUID:
    """A UUID, or its text."""
    if isinstance(value, UUID):
        return UUID(int=value.int)  # drivers' subclasses of UUID become plain ones
    if isinstance(value, str):
        try:
            return UUID(value)
        except ValueError:
            pass
    raise InvalidInput(field, f"{value!r} is not a UUID", "Pass a uuid.UUID.")


def require_aware(field: str, value: object) -> datetime:
    """A datetime with a time zone."""
    if not isinstance(value, datetime):
        raise InvalidInput(field, f"is a {type(value).__name__}, not a datetime", "Pass an aware datetime.")
    if value.utcoffset() is None:
        raise InvalidInput(field, "has no time zone", "Pass an aware datetime, such as datetime.now(UTC).")
    return value


def require_int(field: str, value: object, *, low: int, high: int) -> int:
    """A whole number within bounds."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInput(field, f"{value!r} is not a whole number", f"Pass an int from {low} to {high}.")
    if not low <= value <= high:
        raise InvalidInput(field, f"{value} is out of range", f"Pass an int from {low} to {high}.")
    return value


def require_finite(field: str, value: object) -> float:
    """A finite number."""
    if isinstance(value, bool):
        raise InvalidInput(field, f"{value!r} is not a number", "Pass a finite float.")
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InvalidInput(field, f"{value!r} is not a number", "Pass a finite float.") from None
    if not math.isfinite(number):
        raise InvalidInput(field, f"is {number}", "Pass a finite float.")
    return number


def require_money(field: str, value: object) -> Decimal:
    """An exact amount with at most two decimals and 13 digits before them (DECIMAL(15,2))."""
    if isinstance(value, bool) or not isinstance(value, Decimal | int):
        raise InvalidInput(
            field, f"is a {type(value).__name__}, which is not exact", "Pass a decimal.Decimal or an int."
        )
    amount = Decimal(value)
    if not amount.is_finite():
        raise InvalidInput(field, f"is {amount}", "Pass a finite decimal.Decimal.")
    if abs(amount) >= Decimal(10) ** 13:
        raise InvalidInput(field, f"{amount} is too large", "At most 13 digits before the point are stored.")
    if amount != amount.quantize(Decimal("0.01")):
        raise InvalidInput(field, f"{amount} has more than two decimals", "Round it to cents first.")
    return amount.quantize(Decimal("0.01"))


def require_json(field: str, value: object, *, depth: int = 8) -> object:
    """JSON with finite numbers, string keys and bounded depth; NaN would be stored as invalid JSON."""
    if depth < 0:
        raise InvalidInput(field, "is nested too deeply", "At most 8 levels are stored.")
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return require_text(field, value, limit=MAX_JSON_BYTES) if value else value
    if isinstance(value, float):
        return require_finite(field, value)
    if isinstance(value, Mapping):
        return {
            require_text(f"{field} key", key, limit=255): require_json(f"{field}[{key!r}]", item, depth=depth - 1)
            for key, item in value.items()
        }
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [require_json(f"{field}[{i}]", item, depth=depth - 1) for i, item in enumerate(value)]
    raise InvalidInput(
        field, f"holds a {type(value).__name__}", "Use only None, bool, int, float, str, lists and dicts."
    )
