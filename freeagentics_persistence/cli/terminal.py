"""How commands speak and end: results on stdout, everything else on stderr, clean ends on signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Coroutine
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import typer

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")
_STOPPING = (signal.SIGINT, signal.SIGTERM)


@cache
def console() -> Console:
    """Where results for people go."""
    from rich.console import Console

    out = Console(highlight=False, markup=False, soft_wrap=True)
    if not out.is_terminal:
        out.width = 10_000  # a log or a pipe gets whole lines, also of tables
    return out


@cache
def error_console() -> Console:
    """Where errors and progress go."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def say(text: str) -> None:
    """A result for people."""
    console().print(text)


def note(text: str) -> None:
    """What happens meanwhile, or a hint; never part of a result."""
    error_console().print(text, style="dim")


def complain(message: str) -> None:
    """What went wrong, in red."""
    error_console().print(f"error: {message}", style="red")


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """A result for scripts."""
    print(json.dumps(value, indent=indent, default=str, allow_nan=False), flush=True)  # noqa: T201 - the result


def drop_output() -> None:
    """Let go of what could not be written, so that the end of the program does not try once more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run until done. SIGINT and SIGTERM cancel the work, which lets it leave its servers, and end with 130 or 143."""
    received: list[int] = []

    async def supervised() -> T:
        loop = asyncio.get_running_loop()
        task = loop.create_task(work)

        def stop(number: int) -> None:
            received.append(number)
            if len(received) == 1:  # later ones would break the leaving off
                task.cancel()

        for number in _STOPPING:
            loop.add_signal_handler(number, stop, number)
        return await task

    try:
        return asyncio.run(supervised())
    except (asyncio.CancelledError, Exception):
        if not received:
            raise
    sys.stdout.flush()
    raise typer.Exit(128 + received[0])
