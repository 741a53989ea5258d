"""``freeagentics-db demo``."""

from __future__ import annotations

from typing import Literal

from freeagentics_persistence.cli.terminal import console, error_console
from freeagentics_persistence.demo.runner import run_demo
from freeagentics_persistence.demo.view import view_for
from freeagentics_persistence.settings import Settings


async def demonstrate(
    settings: Settings, *, agents: int, steps: int, seed: int, relay: Literal["auto", "off"], as_json: bool
) -> bool:
    """Run the demo; whether every store holds what the agents believe."""
    view = view_for(error_console() if as_json else console())
    report = await run_demo(settings=settings, agents=agents, steps=steps, relay=relay, seed=seed, view=view)
    if as_json:
        print(report.to_json(), flush=True)  # noqa: T201 - the result
    return report.ok
