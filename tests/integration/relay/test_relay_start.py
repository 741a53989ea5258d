"""The sinks of a relay begin together, so that they share what is read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

import pytest

from freeagentics_persistence import Agent, Persistence
from freeagentics_persistence.database.engine import Database
from freeagentics_persistence.domain.epochs import Epoch
from freeagentics_persistence.domain.events import Event, FeedPosition
from freeagentics_persistence.relay import relay as relay_module
from freeagentics_persistence.relay.places import Place, PlaceTable
from freeagentics_persistence.relay.relay import Relay, RelayOptions


class NotingSink:
    """Notes the events that it gets."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.events: list[Event] = []

    async def resume(self, position: FeedPosition | None) -> None:
        pass

    async def resume_after_loss(self, position: FeedPosition) -> None:
        pass

    async def deliver(self, events: Sequence[Event]) -> int:
        self.events += events
        return 0

    async def caught_up(self, moment: datetime) -> None:
        pass


async def test_sinks_share_from_the_start_also_where_one_finds_its_place_later(
    quiet_store: Persistence, relay_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, late = PlaceTable.load, iter((0.0, 0.3))

    async def load_late(table: PlaceTable) -> tuple[Place, int] | None:
        await asyncio.sleep(next(late))
        return await load(table)

    monkeypatch.setattr(PlaceTable, "load", load_late)
    monkeypatch.setattr(relay_module, "START_SECONDS", 20)
    agents = [Agent(name=f"a{i}", agent_type="t") for i in range(12)]
    (await quiet_store.agents.save_agents(agents)).raise_for_conflicts()
    sinks = [NotingSink("one"), NotingSink("other")]
    relay = Relay(relay_database, sinks, Epoch(quiet_store.epoch), RelayOptions(batch_events=3))
    relay.start()
    async with asyncio.timeout(20):
        while min(len(sink.events) for sink in sinks) < len(agents):
            await asyncio.sleep(0.01)
    await relay.close()
    assert all(one is other for one, other in zip(*(sink.events for sink in sinks), strict=True))


async def test_a_sink_that_is_served_elsewhere_is_not_waited_for(
    quiet_store: Persistence, relay_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "START_SECONDS", 60)
    elsewhere = Relay(relay_database, [NotingSink("other")], Epoch(quiet_store.epoch), RelayOptions())
    elsewhere.start()
    async with asyncio.timeout(20):
        while not elsewhere.states["other"].active:
            await asyncio.sleep(0.01)
    here = NotingSink("one")
    relay = Relay(relay_database, [here, NotingSink("other")], Epoch(quiet_store.epoch), RelayOptions())
    relay.start()
    (await quiet_store.agents.save_agents([Agent(name="a", agent_type="t")])).raise_for_conflicts()
    async with asyncio.timeout(20):
        while not here.events:
            await asyncio.sleep(0.01)
    await relay.close()
    await elsewhere.close()
