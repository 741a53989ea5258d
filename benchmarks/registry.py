"""The rows, in the order of the table. A new one is a module in ``rows/`` with an ``ENTRY``, and a line here."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.row import Entry
from benchmarks.rows import (
    agent_counts,
    as_of,
    bulk_load,
    cached,
    coalitions_near,
    get_agent,
    get_many,
    latency,
    metrics,
    opening,
    peer,
    places,
    relay,
    sealing,
    subscribers,
    sustained,
    update_callers,
    update_many,
    update_one,
)

MODULES = (
    *(update_many, update_callers, update_one, relay, sustained, agent_counts),
    *(get_agent, get_many, cached, latency, subscribers),
    *(places, coalitions_near, bulk_load),
    *(metrics, as_of, sealing, opening, peer),
)
ROWS: Sequence[Entry] = tuple(module.ENTRY for module in MODULES)
