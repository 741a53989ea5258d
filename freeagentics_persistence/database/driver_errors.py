"""The one boundary where PostgreSQL's errors become ours, by SQLSTATE or constraint name; the cause is kept."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import asyncpg
import sqlalchemy.exc

from freeagentics_persistence.errors import (
    AuthenticationFailed,
    CoalitionDissolved,
    ConfigurationError,
    DatabaseUnavailable,
    InvalidInput,
    Overloaded,
    PersistenceError,
    SchemaMismatch,
    TimedOut,
    UnknownTenant,
)

UNKNOWN_TENANT = "FA404"  # raised by enter_tenant()
DISSOLVED = "dissolved_is_final"  # raised by triggers
RETRYABLE = ("40P01", "40001")
_LOST_STATES = ("57P01", "57P02", "57P03")
_SCHEMA_STATES = ("42P01", "42883", "42703", "3F000", "42704")
_CONSTRAINTS = {
    "valid_energy": ("energy", "is out of range", "Pass an int from 0 to 100."),
    "valid_status": ("status", "is unknown", "Use one of: active, inactive, suspended."),
    "valid_contribution_score": ("contribution_score", "is out of range", "Pass 0 to 999.99."),
    "valid_coalition_status": ("status", "is unknown", "Use one of: forming, active, profitable, dissolved."),
}


def driver_error(error: BaseException) -> BaseException:
    """The asyncpg or operating system error inside SQLAlchemy's wrapping."""
    current: BaseException = error
    while isinstance(current, sqlalchemy.exc.DBAPIError) or getattr(current, "pgcode", None) is not None:
        inner = getattr(current, "orig", None) or current.__cause__
        if inner is None or inner is current:
            break
        current = inner
    return current


def sqlstate_of(error: BaseException) -> str:
    """The SQLSTATE of an error, empty where it has none."""
    cause: Any = driver_error(error)
    return str(getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None) or "")


def constraint_of(error: BaseException) -> str:
    """The name of the constraint that an error is about, empty where there is none."""
    return str(getattr(driver_error(error), "constraint_name", None) or "")


def is_lost(error: BaseException) -> bool:
    """Whether the connection is gone, so that what was under way may or may not have happened."""
    cause, state = driver_error(error), sqlstate_of(error)
    if state.startswith("08") or state in _LOST_STATES:
        return True
    if isinstance(error, sqlalchemy.exc.DBAPIError) and error.connection_invalidated:
        return True
    # InterfaceErrors by their class: the driver could not encode a value, or read the URL
    if isinstance(cause, (asyncpg.DataError, asyncpg.ClientConfigurationError)):
        return False
    lost = (OSError, asyncpg.InternalClientError, asyncpg.InterfaceError, asyncio.IncompleteReadError)
    return isinstance(cause, lost)


def is_retryable(error: BaseException) -> bool:
    """Whether the statement was undone by a deadlock or a serialisation conflict, and may be sent again."""
    return sqlstate_of(error) in RETRYABLE


def is_missing_partition(error: BaseException) -> bool:
    """Whether a row found no partition of the history, or of the revisions that it skipped."""
    cause, partitioned = driver_error(error), ("agent_history", "accepted_revisions")
    return sqlstate_of(error) == "23514" and getattr(cause, "table_name", None) in partitioned


def is_poison(error: BaseException) -> bool:
    """Whether the values of a row were refused (data exceptions and constraints)."""
    return sqlstate_of(error)[:2] in ("22", "23")


def is_driver_error(error: BaseException) -> bool:
    """Whether an error comes from the driver, SQLAlchemy or the network."""
    known = (sqlalchemy.exc.SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)
    return isinstance(error, (*known, asyncpg.InternalClientError))


def _is_refused_parameter(cause: Any, state: str) -> bool:
    """Whether driver or server refused a parameter of the URL; the server ends the connection over it."""
    if isinstance(cause, asyncpg.ClientConfigurationError):
        return True
    return state in ("42704", "22023") and getattr(cause, "severity_en", None) == "FATAL"


def translate(error: BaseException, where: str) -> PersistenceError:
    """Our error for a driver's. ``where`` names the server without its password."""
    state, cause = sqlstate_of(error), driver_error(error)
    text = " ".join(str(cause).split())
    if isinstance(error, sqlalchemy.exc.TimeoutError):
        return Overloaded(
            f"no connection to {where} came free in time. Raise DATABASE_POOL_SIZE, or send batches with *_many calls."
        )
    if state == UNKNOWN_TENANT:
        return UnknownTenant(UUID(str(getattr(cause, "detail", ""))))
    if state in ("28P01", "28000", "0P000"):
        return AuthenticationFailed(f"{where} refused the login ({text}). Check the user and password in its URL.")
    if state == "3D000":
        return SchemaMismatch(f"{where}: {text}. Make it with: freeagentics-db init")
    if state == "22023" and "role" in text:
        return SchemaMismatch(f"{where} is not set up ({text}). Run: freeagentics-db init")
    if _is_refused_parameter(cause, state):
        return ConfigurationError(
            f"{where} cannot be connected to as its URL says ({text}). Correct or leave out that parameter of the URL; "
            "time-outs are settings: DATABASE_CONNECT_TIMEOUT, DATABASE_STATEMENT_TIMEOUT."
        )
    if state in _SCHEMA_STATES:
        return SchemaMismatch(f"{where} is not migrated to this version ({text}). Run: freeagentics-db migrate")
    if state == "42501":
        return SchemaMismatch(f"{where}: {text}. Run freeagentics-db init to set up the roles.")
    if state in ("57014", "55P03") or isinstance(cause, TimeoutError):
        return TimedOut(f"{where} did not answer in time. Nothing was written. See `freeagentics-db check`.")
    if state == "53300":
        return Overloaded(f"{where} takes no more connections ({text}). Lower DATABASE_POOL_SIZE or raise its limit.")
    if state == "53100":
        return DatabaseUnavailable(f"{where}: the disk is full ({text}). Nothing was written: free some space.")
    if state.startswith("53"):
        return Overloaded(f"{where} is out of resources ({text}).")
    if is_missing_partition(error):
        return PersistenceError(
            f"{where} has no partition of the history for this moment. Make it with: freeagentics-db partitions keep"
        )
    constraint = constraint_of(error)
    if constraint == DISSOLVED:
        return CoalitionDissolved(
            f"coalition {getattr(cause, 'detail', '')} is dissolved, which is final. Nothing was written."
        )
    if constraint in _CONSTRAINTS:
        return InvalidInput(*_CONSTRAINTS[constraint])
    if is_poison(error):
        return InvalidInput(constraint or "value", f"was refused by PostgreSQL ({text})", "Nothing was written.")
    if is_lost(error):
        return DatabaseUnavailable(
            f"{where} cannot be reached ({text or type(cause).__name__}). Nothing was written. "
            "Start it, or correct its URL; freeagentics-db check tells more."
        )
    return PersistenceError(f"{where} answered with an error: {text or type(cause).__name__}")
