"""``freeagentics-db relay``."""

from __future__ import annotations

import asyncio
import gc
import logging
from datetime import UTC, datetime

from freeagentics_persistence.cli.terminal import note
from freeagentics_persistence.persistence import Persistence
from freeagentics_persistence.relay.relay import Relay, SinkState
from freeagentics_persistence.settings import Settings

LOOK_SECONDS = 0.2
_log = logging.getLogger(__name__)


async def run_relay(settings: Settings, every: float) -> None:
    """Serve the sinks until cancelled; a log line for each change, and one every so many seconds."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("freeagentics_persistence").setLevel(logging.INFO)
    async with Persistence.open(settings, relay="off", progress=note) as store:
        relay = store.make_relay()
        gc.collect()
        gc.freeze()  # what the packages are made of lives as long as the process: no collection need look at it
        _log.info("relay started for %s", ", ".join(relay.states))
        serving = asyncio.create_task(relay.run_forever())
        try:
            await _report(relay, serving, every)
        finally:
            so_far = _progress(relay)
            serving.cancel()
            await asyncio.wait([serving])
            _log.info("relay stopped: %s", so_far)


async def _report(relay: Relay, serving: asyncio.Task[None], every: float) -> None:
    loop = asyncio.get_running_loop()
    active: dict[str, bool] = {}
    next_line = loop.time() + every
    while not serving.done():
        for name, state in relay.states.items():
            if active.get(name) != state.active:
                active[name] = state.active
                _log.info("%s: %s", name, "active here" if state.active else "standing by")
        if loop.time() >= next_line:
            next_line += every
            _log.info("%s", _progress(relay))
        await asyncio.wait([serving], timeout=min(LOOK_SECONDS, every))
    serving.result()


def _progress(relay: Relay) -> str:
    return "; ".join(f"{name} {_sink(state)}" for name, state in relay.states.items())


def _sink(state: SinkState) -> str:
    if not state.active:
        return "is served elsewhere" if state.trouble is None else f"in trouble ({state.trouble})"
    if state.watermark is None:
        return f"{state.delivered:,} delivered"
    lag = max(0.0, (datetime.now(UTC) - state.watermark).total_seconds())
    return f"{state.delivered:,} delivered, {lag:.1f} s behind"
