"""Errors that end the calls of several callers at once."""

from __future__ import annotations

import copy
from typing import TypeVar

E = TypeVar("E", bound=BaseException)


def copy_of(error: E) -> E:
    """The error as one of these callers gets it, who each need a traceback of their own."""
    own = copy.copy(error)
    own.__cause__ = error.__cause__ or error
    return own
