"""Checks at the boundary: each refuses with an InvalidInput that names field, problem and remedy."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Context, Decimal
from typing import Any, SupportsFloat
from uuid import UUID

import numpy as np

from freeagentics_persistence.errors import InvalidInput

MAX_JSON_BYTES = 65_536
MAX_JSON_DEPTH = 8
MAX_VERSION = 2**53  # up to which Redis compares versions exactly
_CENT = Decimal("0.01")
_MOST_MONEY = Decimal("9999999999999.99")
_EXACT = Context(prec=28, traps=[])  # the caller's own context may be coarser, or trap


def shown(value: object) -> str:
    """A value as an error message may show it: short, and never the numbers of an array or list."""
    if isinstance(value, str):
        return repr(value if len(value) <= 80 else f"{value[:80]}...")
    if isinstance(value, int) and abs(value) >= 10**20:
        return "a number of more than 20 digits"
    if value is None or isinstance(value, int | float | UUID):
        return repr(value)
    if isinstance(value, np.integer):
        return str(value)
    return f"a {type(value).__name__}"


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
    if type(value) is UUID:
        return value
    if isinstance(value, UUID):
        return UUID(int=value.int)  # drivers' subclasses of UUID become plain ones
    if isinstance(value, str):
        try:
            return UUID(value)
        except ValueError:
            pass
    raise InvalidInput(field, f"{shown(value)} is not a UUID", "Pass a uuid.UUID.")


def require_sequence(field: str, value: object) -> Sequence[Any]:
    """Something with an order and a length, such as a list: not a set, a dict, an iterator or text."""
    if isinstance(value, np.ndarray) and value.ndim == 1:
        return value.tolist()
    if not isinstance(value, Sequence) or isinstance(value, str | bytes | bytearray | memoryview):
        raise InvalidInput(field, f"{shown(value)} is not a sequence", "Pass a list.")
    return value


def require_aware(field: str, value: object) -> datetime:
    """A datetime with a time zone."""
    if not isinstance(value, datetime):
        raise InvalidInput(field, f"is a {type(value).__name__}, not a datetime", "Pass an aware datetime.")
    if value.utcoffset() is None:
        raise InvalidInput(field, "has no time zone", "Pass an aware datetime, such as datetime.now(UTC).")
    try:
        value.astimezone(UTC)
    except OverflowError:
        raise InvalidInput(field, "is before year 1 or after 9999 in UTC", "Pass a moment between them.") from None
    return value


def require_int(field: str, value: object, *, low: int, high: int) -> int:
    """A whole number within bounds."""
    if type(value) is int and low <= value <= high:
        return value
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InvalidInput(field, f"{shown(value)} is not a whole number", f"Pass an int from {low} to {high}.")
    if not low <= value <= high:
        raise InvalidInput(field, f"{shown(value)} is out of range", f"Pass an int from {low} to {high}.")
    return int(value)


def require_finite(field: str, value: object) -> float:
    """A finite number."""
    if type(value) is float and math.isfinite(value):
        return value
    is_number = isinstance(value, SupportsFloat) and not isinstance(value, bool | np.bool_)
    if not is_number or getattr(value, "ndim", 0) != 0:
        raise InvalidInput(field, f"{shown(value)} is not a number", "Pass a finite float.")
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InvalidInput(field, f"{shown(value)} is not a number", "Pass a finite float.") from None
    except OverflowError:
        raise InvalidInput(field, "is too large for a float", "Pass a finite float.") from None
    if not math.isfinite(number):
        raise InvalidInput(field, f"is {number}", "Pass a finite float.")
    return number


def require_money(field: str, value: object) -> Decimal:
    """An exact amount with at most two decimals and 13 digits before them (DECIMAL(15,2))."""
    return _hundredths(field, value, digits=13)


def require_score(field: str, value: object) -> Decimal:
    """An exact score from 0 to 999.99 with at most two decimals (DECIMAL(5,2))."""
    score = _hundredths(field, value, digits=3)
    if score < 0:
        raise InvalidInput(field, "is negative", "Pass a decimal.Decimal or an int from 0 to 999.99.")
    return score.copy_abs()  # of minus zero; abs() would round to the caller's context


def add_money(field: str, amount: Decimal, to: Decimal) -> Decimal:
    """The exact sum of two amounts. Raises InvalidInput, naming ``amount`` by ``field``, where it is out of range."""
    total = _EXACT.add(amount, to)
    if total.copy_abs() > _MOST_MONEY:
        raise InvalidInput(
            field, f"{amount} would make {to} a sum of more than 13 digits before the point", "Nothing was written."
        )
    return total


def _hundredths(field: str, value: object, *, digits: int) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, Decimal | int):
        raise InvalidInput(
            field, f"is a {type(value).__name__}, which is not exact", "Pass a decimal.Decimal or an int."
        )
    amount = Decimal(value)
    if not amount.is_finite():
        raise InvalidInput(field, f"is {amount}", "Pass a finite decimal.Decimal.")
    if amount and amount.adjusted() >= digits:
        raise InvalidInput(field, "is too large", f"At most {digits} digits before the point are stored.")
    hundredths = amount.quantize(_CENT, context=_EXACT)
    if amount != hundredths:
        raise InvalidInput(field, "has more than two decimals", "Round it to two decimals first.")
    return hundredths


def require_json(field: str, value: object) -> object:
    """JSON of at most 64 KiB and 8 levels, with finite numbers, integers of 64 bits and string keys; a plain copy."""
    if type(value) is dict and not value:
        return {}
    checked = _json(field, value, MAX_JSON_DEPTH)
    size = len(json.dumps(checked, ensure_ascii=False, separators=(",", ":")).encode())
    if size > MAX_JSON_BYTES:
        raise InvalidInput(field, f"has {size:,} bytes as JSON", f"At most {MAX_JSON_BYTES:,} are stored.")
    return checked


def _json(field: str, value: object, depth: int) -> object:
    if depth < 0:
        raise InvalidInput(field, "is nested too deeply", f"At most {MAX_JSON_DEPTH} levels are stored.")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return require_int(field, value, low=-(2**63), high=2**63 - 1)
    if isinstance(value, str):
        return require_text(field, value, limit=MAX_JSON_BYTES) if value.strip() else value
    if isinstance(value, float):
        return require_finite(field, value)
    if isinstance(value, Mapping):
        return {
            require_text(f"{field} key", key, limit=255): _json(f"{field}[{shown(key)}]", item, depth - 1)
            for key, item in value.items()
        }
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [_json(f"{field}[{i}]", item, depth - 1) for i, item in enumerate(value)]
    raise InvalidInput(
        field, f"holds a {type(value).__name__}", "Use only None, bool, int, float, str, lists and dicts."
    )
