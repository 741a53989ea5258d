"""The collector at the boundary, and what the sink makes of each event."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest

from freeagentics_persistence.database.engine import Database
from freeagentics_persistence.database.models import agents, coalitions
from freeagentics_persistence.database.repositories.tenants import TenantRepository
from freeagentics_persistence.database.time_series import PostgresMetricsStore
from freeagentics_persistence.database.write_pace import WritePace
from freeagentics_persistence.database.writes.outbox import DatabaseOutbox
from freeagentics_persistence.domain.beliefs.beliefs import Beliefs, Factor
from freeagentics_persistence.domain.epochs import Epoch
from freeagentics_persistence.domain.events import Event, EventType
from freeagentics_persistence.domain.identifiers import new_revision
from freeagentics_persistence.encryption.key_providers import EnvironmentKeyProvider, generate_key
from freeagentics_persistence.encryption.keyring import KeyringSealer
from freeagentics_persistence.errors import InvalidInput, UnknownAgent, UnknownCoalition
from freeagentics_persistence.metrics.collector import MetricsCollector
from freeagentics_persistence.metrics.influx_points import event_lines
from freeagentics_persistence.metrics.influx_sink import InfluxSink
from freeagentics_persistence.metrics.influx_store import InfluxMetricsStore
from freeagentics_persistence.ports.sealing import Kind
from tests.support.metrics import HOUR, MIDNIGHT, PostgresSeries, belief_event, coalition_event, rows, window

ONE = ["free_energy"]


@pytest.fixture
async def collector(postgresql_series: PostgresSeries, outbox: DatabaseOutbox, tenant_id: UUID) -> MetricsCollector:
    """A collector of a tenant, over PostgreSQL."""
    await postgresql_series.ensure_tenant(tenant_id)
    return MetricsCollector(postgresql_series.store, outbox, tenant_id, Epoch(uuid4()))


@pytest.fixture
def cut_off(tenant_id: UUID) -> MetricsCollector:
    """A collector whose database cannot be reached, so that only what is refused before it is asked is refused well."""
    database = Database("postgresql://nobody@127.0.0.1:1/nowhere")
    sealer = KeyringSealer(EnvironmentKeyProvider([generate_key()]), TenantRepository(database))
    return MetricsCollector(
        PostgresMetricsStore(database),
        DatabaseOutbox(
            database, sealer, lambda: None, WritePace(database, uuid4(), 0, 1), revision_memory=timedelta(hours=24)
        ),
        tenant_id,
        Epoch(uuid4()),
    )


async def sealed_event(sealer: KeyringSealer, tenant_id: UUID, agent_id: UUID, beliefs: Beliefs, **more: Any) -> Event:
    """An update whose envelope holds ``beliefs``."""
    revision = new_revision()
    envelopes = await sealer.seal_many(tenant_id, Kind.BELIEFS, [agent_id], [revision], [beliefs.to_bytes()])
    arguments = {"envelope": envelopes[0], "written_as": str(revision), "entropy": beliefs.entropy, **more}
    return belief_event(tenant_id, agent_id, MIDNIGHT, **arguments)


async def test_what_is_recorded_can_be_queried(
    collector: MetricsCollector, postgresql_series: PostgresSeries, tenant_id: UUID, agent_id: UUID
) -> None:
    coalition_id, own = uuid4(), {"tenant_id": tenant_id, "revision": new_revision()}
    scout = {"id": agent_id, "name": "scout", "agent_type": "explorer", "newest_revision": own["revision"], **own}
    couriers = {"id": coalition_id, "name": "couriers", "business_model": "delivery", **own}
    async with postgresql_series.database.write(tenant_id) as connection:
        await connection.execute(agents.insert().values(scout))
        await connection.execute(coalitions.insert().values(couriers))
    await collector.record_agent_belief_update(agent_id, [0.5, 0.5], free_energy=2.0)
    await collector.record_agent_belief_update(agent_id, Beliefs([0.5, 0.5]), 4)
    await collector.record_agent_belief_update(agent_id, Factor(np.zeros(3), "raw", "state"))  # type: ignore[arg-type]
    await collector.record_coalition_performance(coalition_id, member_count=4, revenue=10, efficiency=0.5)

    now = {"start": datetime.now(UTC) - HOUR, "stop": datetime.now(UTC) + HOUR, "every": "1d"}
    points = await collector.query_agent_performance_history(agent_id, **now)  # type: ignore[arg-type]
    assert {point.field: point.value for point in points} == {
        "free_energy": 3.0,
        "belief_entropy": pytest.approx(np.log(2)),
        "max_belief": 0.5,
        "belief_variance": 0.0,
    }
    points = await collector.query_coalition_performance_history(coalition_id, **now)  # type: ignore[arg-type]
    assert {point.field: point.value for point in points} == {
        "member_count": 4.0,
        "revenue": 10.0,
        "efficiency": 0.5,
        "revenue_per_member": 2.5,
    }


async def test_nothing_is_recorded_of_strangers(collector: MetricsCollector) -> None:
    with pytest.raises(UnknownAgent):
        await collector.record_agent_belief_update(uuid4(), [0.5, 0.5])
    with pytest.raises(UnknownCoalition):
        await collector.record_coalition_performance(uuid4(), member_count=1, revenue=1.0)


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("agent_id", {"agent_id": 'x" or true'}),
        ("agent_id", {"agent_id": None}),
        ("hours", {"hours": 0}),
        ("hours", {"hours": -1}),
        ("hours", {"hours": float("nan")}),
        ("hours", {"hours": "24) |> drop("}),
        ("hours", {"hours": 1e300}),
        ("hours", {"hours": 2, "stop": datetime(1970, 1, 1, 1, tzinfo=UTC)}),
        ("start", {"start": datetime(2026, 1, 1)}),  # noqa: DTZ001 - what is refused
        ("start", {"start": "-1h"}),
        ("start", {"start": datetime(1969, 12, 31, tzinfo=UTC)}),
        ("stop", {"stop": datetime(2300, 1, 1, tzinfo=UTC)}),
        ("start", {"start": MIDNIGHT, "stop": MIDNIGHT}),
        ("start", {"start": MIDNIGHT + HOUR, "stop": MIDNIGHT}),
        ("every", {"every": ""}),
        ("every", {"every": "1"}),
        ("every", {"every": "0h"}),
        ("every", {"every": "-1h"}),
        ("every", {"every": "1h, fn: max"}),
        ("every", {"every": "1h\n"}),
        ("every", {"every": "１h"}),
        ("every", {"every": "999999999d"}),
        ("every", {"every": 3600}),
        ("every", {"every": timedelta(0)}),
        ("every", {"every": timedelta.max}),
        ("every", {"every": timedelta(microseconds=1)}),
        ("every", {"start": MIDNIGHT, "stop": MIDNIGHT + timedelta(seconds=100_001), "every": "1s", "fields": ONE}),
        ("every", {"start": MIDNIGHT, "stop": MIDNIGHT + timedelta(seconds=100_001), "every": "1s"}),
        ("fields", {"fields": []}),
        ("fields", {"fields": "free_energy"}),
        ("fields", {"fields": ["free_energy", "revenue"]}),
        ("fields", {"fields": ["free_energy", 1]}),
        ("fields", {"fields": ["belief_0"]}),
        ("fields", {"fields": ["x" * 2000]}),
    ],
)
async def test_a_query_that_cannot_be_meant(
    cut_off: MetricsCollector, agent_id: UUID, field: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await cut_off.query_agent_performance_history(**{"agent_id": agent_id, **arguments})
    assert caught.value.field == field
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("coalition_id", {"coalition_id": "couriers"}),
        ("member_count", {"member_count": -1}),
        ("member_count", {"member_count": 1.5}),
        ("member_count", {"member_count": 2**31}),
        ("revenue", {"revenue": float("inf")}),
        ("revenue", {"revenue": "many"}),
        ("efficiency", {"efficiency": float("nan")}),
    ],
)
async def test_a_performance_that_cannot_be_meant(
    cut_off: MetricsCollector, field: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await cut_off.record_coalition_performance(
            **{"coalition_id": uuid4(), "member_count": 1, "revenue": 1.0, **arguments}
        )
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("agent_id", {"agent_id": "scout"}),
        ("beliefs", {"beliefs": [0.5, 0.6]}),
        ("free_energy", {"free_energy": float("inf")}),
    ],
)
async def test_beliefs_that_cannot_be_meant(cut_off: MetricsCollector, field: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as caught:
        await cut_off.record_agent_belief_update(**{"agent_id": uuid4(), "beliefs": [0.5, 0.5], **arguments})
    assert caught.value.field == field


def test_only_what_measures_something_becomes_a_point(tenant_id: UUID, agent_id: UUID) -> None:
    measured = [
        *(belief_event(tenant_id, agent_id, MIDNIGHT, entropy=1.0, type=kind)
          for kind in (EventType.AGENT_SAVED, EventType.BELIEFS_UPDATED, EventType.BELIEFS_MEASURED)),
        *(coalition_event(tenant_id, agent_id, MIDNIGHT, 1, 2.0, None, type=kind)
          for kind in EventType if kind.startswith("coalition.")),
    ]  # fmt: skip
    assert [len(list(event_lines(event))) for event in measured] == [1] * len(measured)
    others = [
        belief_event(tenant_id, agent_id, MIDNIGHT, type=EventType.AGENT_SAVED),
        belief_event(tenant_id, agent_id, MIDNIGHT, 1.0, type=EventType.AGENT_DELETED),
        belief_event(tenant_id, agent_id, MIDNIGHT, 1.0, type="weather"),
        belief_event(tenant_id, agent_id, MIDNIGHT, type=EventType.COALITION_MEMBERS, data={"member_count": 2}),
        belief_event(tenant_id, agent_id, MIDNIGHT, type=EventType.COALITION_MEMBERS, data={"removed": ["x"]}),
        belief_event(tenant_id, agent_id, MIDNIGHT, type=EventType.COALITION_SAVED),  # as version 0.1.0 wrote it
    ]
    assert [list(event_lines(event)) for event in others] == [[]] * len(others)


async def test_single_probabilities_are_stored_where_opted_in(
    influx_store: InfluxMetricsStore, collector: MetricsCollector, outbox: DatabaseOutbox, sealer: KeyringSealer,
    tenant_id: UUID, agent_id: UUID,
) -> None:  # fmt: skip
    beliefs = Beliefs([Factor(np.array([0.25, 0.5, 0.25])), Factor(np.arange(4), "raw", "rng")])  # type: ignore[arg-type]
    await InfluxSink(influx_store).deliver([await sealed_event(sealer, tenant_id, uuid4(), beliefs)])
    await InfluxSink(influx_store, sealer).deliver([await sealed_event(sealer, tenant_id, agent_id, beliefs)])
    opted_in = MetricsCollector(influx_store, outbox, tenant_id, Epoch(uuid4()), dimensions=True)
    points = await opted_in.query_agent_performance_history(
        agent_id, start=MIDNIGHT, stop=MIDNIGHT + HOUR, fields=["belief_1", "belief_0", "belief_3", "belief_entropy"]
    )
    assert rows(points) == [
        (MIDNIGHT, "belief_1", 0.5),
        (MIDNIGHT, "belief_0", 0.25),
        (MIDNIGHT, "belief_entropy", round(1.5 * np.log(2), 9)),
    ]
    asked = window(MIDNIGHT, MIDNIGHT + HOUR, fields=["belief_0"])
    assert len(await influx_store.query_agent(tenant_id, agent_id, asked)) == 1
    plain = MetricsCollector(influx_store, outbox, tenant_id, Epoch(uuid4()))
    with pytest.raises(InvalidInput, match="belief_0"):
        await plain.query_agent_performance_history(agent_id, fields=["belief_0"])
    with pytest.raises(InvalidInput, match="belief_0, belief_1"):
        await opted_in.query_agent_performance_history(agent_id, fields=["belief_x"])
    fields = [f"belief_{i}" for i in range(5)]
    with pytest.raises(InvalidInput, match="400000 points"):
        await opted_in.query_agent_performance_history(agent_id, 80_001 / 3600, every="1s", fields=fields)


async def test_nothing_is_opened_where_not_opted_in(
    influx_store: InfluxMetricsStore, collector: MetricsCollector, sealer: KeyringSealer, tenant_id: UUID
) -> None:
    agent_id = uuid4()
    await InfluxSink(influx_store).deliver([await sealed_event(sealer, tenant_id, agent_id, Beliefs.uniform(4))])
    fields = [f"belief_{i}" for i in range(4)]
    assert await influx_store.query_agent(tenant_id, agent_id, window(MIDNIGHT, MIDNIGHT + HOUR, fields=fields)) == []


async def test_names_of_factors_that_line_protocol_could_misread(
    influx_store: InfluxMetricsStore, collector: MetricsCollector, sealer: KeyringSealer, tenant_id: UUID
) -> None:
    agent_id, names = uuid4(), ["place", "a b", "a,b=c", 'say "x"', "back\\", "line\nbreak", "50%", "Größe", "", "1"]
    factors = [Factor(np.array([i / 10, 1 - i / 10]), name=name) for i, name in enumerate(names)]
    event = await sealed_event(sealer, tenant_id, agent_id, Beliefs(factors))
    await InfluxSink(influx_store, sealer).deliver([event])
    stored = ["place", "a%20b", "a%2Cb%3Dc", "say%20%22x%22", "back%5C", "line%0Abreak", "50%25", "Größe", "", "1"]
    fields = [f"belief_{name}_0" for name in stored]
    points = await influx_store.query_agent(tenant_id, agent_id, window(MIDNIGHT, MIDNIGHT + HOUR, fields=fields))
    assert rows(points) == [(MIDNIGHT, name, i / 10) for i, name in enumerate(fields)]


async def test_beliefs_of_very_many_states(
    influx_store: InfluxMetricsStore, collector: MetricsCollector, sealer: KeyringSealer, tenant_id: UUID
) -> None:
    agent_id, count = uuid4(), 60_000  # more than a request takes in one line
    event = await sealed_event(sealer, tenant_id, agent_id, Beliefs.uniform(count), free_energy=1.0)
    await InfluxSink(influx_store, sealer).deliver([event])
    fields = ["free_energy", *(f"belief_{i}" for i in (0, 999, 1000, count - 1, count))]
    points = await influx_store.query_agent(tenant_id, agent_id, window(MIDNIGHT, MIDNIGHT + HOUR, fields=fields))
    assert rows(points) == [
        (MIDNIGHT, name, 1.0 if name == "free_energy" else round(1 / count, 9)) for name in fields[:-1]
    ]


async def test_an_event_whose_beliefs_do_not_open_is_stored_without_them(
    influx_store: InfluxMetricsStore, collector: MetricsCollector, sealer: KeyringSealer, tenant_id: UUID,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    ids = [uuid4() for _ in range(7)]
    events = [await sealed_event(sealer, tenant_id, each, Beliefs.uniform(4), free_energy=1.0) for each in ids]
    events[2] = await sealed_event(sealer, tenant_id, ids[2], Beliefs.uniform(4), written_as=str(new_revision()))
    events[2] = events[2]._replace(free_energy=1.0)
    events[5] = events[5]._replace(tenant=str(uuid4()))  # a tenant that was removed since
    assert await InfluxSink(influx_store, sealer).deliver(events) == 0
    asked = window(MIDNIGHT, MIDNIGHT + HOUR, fields=["free_energy", "belief_0"])
    for agent_id, event in zip(ids, events, strict=True):
        points = rows(await influx_store.query_agent(event.tenant_id, agent_id, asked))
        plain = agent_id in (ids[2], ids[5])
        assert points == [(MIDNIGHT, "free_energy", 1.0), *([] if plain else [(MIDNIGHT, "belief_0", 0.25)])]
    for agent_id in (ids[2], ids[5]):
        assert f"of agent {agent_id} has no probabilities" in caplog.text
