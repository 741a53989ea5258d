"""Both metrics stores answer alike: the same events, the same windows, the same means."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from freeagentics_persistence.domain.epochs import Epoch
from freeagentics_persistence.errors import InvalidInput, NewEpoch, StoreClosed
from freeagentics_persistence.metrics.collector import MetricsCollector
from freeagentics_persistence.ports.metrics import COALITION_FIELDS
from freeagentics_persistence.ports.outbox import Outbox
from tests.support.metrics import HOUR, MIDNIGHT, MINUTE, Series, belief_event, coalition_event, rows, window

DAY = timedelta(days=1)
MICROSECOND = timedelta(microseconds=1)


async def test_means_of_each_window_by_field_then_time(series: Series, tenant_id: UUID, agent_id: UUID) -> None:
    await series.deliver(
        belief_event(tenant_id, agent_id, MIDNIGHT, 1.0, entropy=0.5, max_belief=0.7, variance=0.1),
        belief_event(tenant_id, agent_id, MIDNIGHT + 59 * MINUTE, 2.0, entropy=0.25, max_belief=0.8, variance=0.3),
        belief_event(tenant_id, agent_id, MIDNIGHT + 60 * MINUTE, -7.5, entropy=0.0, max_belief=1.0, variance=0.2),
    )
    points = await series.store.query_agent(tenant_id, agent_id, window(MIDNIGHT, MIDNIGHT + DAY))
    assert rows(points) == [
        (MIDNIGHT, "free_energy", 1.5),
        (MIDNIGHT + HOUR, "free_energy", -7.5),
        (MIDNIGHT, "belief_entropy", 0.375),
        (MIDNIGHT + HOUR, "belief_entropy", 0.0),
        (MIDNIGHT, "max_belief", 0.75),
        (MIDNIGHT + HOUR, "max_belief", 1.0),
        (MIDNIGHT, "belief_variance", 0.2),
        (MIDNIGHT + HOUR, "belief_variance", 0.2),
    ]
    assert {point.time.utcoffset() for point in points} == {timedelta(0)}


@pytest.mark.parametrize("every", [timedelta(hours=7), timedelta(days=3), timedelta(minutes=13), timedelta(seconds=7)])
async def test_windows_are_aligned_to_1970(series: Series, tenant_id: UUID, agent_id: UUID, every: timedelta) -> None:
    moments = [MIDNIGHT + 5 * HOUR * i + 17 * MINUTE for i in range(8)]
    await series.deliver(*(belief_event(tenant_id, agent_id, at, float(i)) for i, at in enumerate(moments)))
    start = MIDNIGHT - 10 * DAY
    expected: dict[object, list[float]] = {}
    for i, at in enumerate(moments):
        seconds = at.timestamp() // every.total_seconds() * every.total_seconds()
        expected.setdefault(at + timedelta(seconds=seconds - at.timestamp()), []).append(float(i))
    points = await series.store.query_agent(
        tenant_id, agent_id, window(start, MIDNIGHT + 2 * DAY, every, ["free_energy"])
    )
    assert rows(points) == [(at, "free_energy", sum(each) / len(each)) for at, each in expected.items()]


async def test_the_first_window_begins_with_the_range(series: Series, tenant_id: UUID, agent_id: UUID) -> None:
    start = MIDNIGHT + timedelta(minutes=30, microseconds=250_100)
    await series.deliver(
        belief_event(tenant_id, agent_id, MIDNIGHT + MINUTE, 100.0),
        belief_event(tenant_id, agent_id, start, 1.0),
        belief_event(tenant_id, agent_id, start + MINUTE, 3.0),
        belief_event(tenant_id, agent_id, MIDNIGHT + 90 * MINUTE, 5.0),
    )
    points = await series.store.query_agent(
        tenant_id, agent_id, window(start, MIDNIGHT + 2 * HOUR, fields=["free_energy"])
    )
    assert rows(points) == [(start, "free_energy", 2.0), (MIDNIGHT + HOUR, "free_energy", 5.0)]


async def test_start_belongs_to_the_range_and_stop_does_not(series: Series, tenant_id: UUID, agent_id: UUID) -> None:
    start, stop = MIDNIGHT, MIDNIGHT + 30 * MINUTE
    await series.deliver(
        belief_event(tenant_id, agent_id, start - MICROSECOND, 1.0),
        belief_event(tenant_id, agent_id, start, 2.0),
        belief_event(tenant_id, agent_id, stop - MICROSECOND, 4.0),
        belief_event(tenant_id, agent_id, stop, 8.0),
    )
    points = await series.store.query_agent(tenant_id, agent_id, window(start, stop, fields=["free_energy"]))
    assert rows(points) == [(start, "free_energy", 3.0)]


async def test_times_are_kept_to_the_microsecond(series: Series, tenant_id: UUID, agent_id: UUID) -> None:
    moments = [MIDNIGHT + i * MICROSECOND for i in range(3)]
    await series.deliver(*(belief_event(tenant_id, agent_id, at, float(i)) for i, at in enumerate(moments)))
    points = await series.store.query_agent(
        tenant_id, agent_id, window(MIDNIGHT, MIDNIGHT + MINUTE, MICROSECOND, ["free_energy"])
    )
    assert rows(points) == [(at, "free_energy", float(i)) for i, at in enumerate(moments)]


async def test_empty_windows_are_left_out(series: Series, tenant_id: UUID, agent_id: UUID) -> None:
    await series.deliver(
        belief_event(tenant_id, agent_id, MIDNIGHT, 1.0), belief_event(tenant_id, agent_id, MIDNIGHT + 9 * HOUR, 2.0)
    )
    points = await series.store.query_agent(tenant_id, agent_id, window(MIDNIGHT, MIDNIGHT + DAY))
    assert rows(points) == [(MIDNIGHT, "free_energy", 1.0), (MIDNIGHT + 9 * HOUR, "free_energy", 2.0)]
    assert await series.store.query_agent(tenant_id, agent_id, window(MIDNIGHT + HOUR, MIDNIGHT + 2 * HOUR)) == []
    assert await series.store.query_agent(tenant_id, uuid4(), window(MIDNIGHT, MIDNIGHT + DAY)) == []


async def test_what_is_unknown_does_not_count(series: Series, tenant_id: UUID, agent_id: UUID) -> None:
    await series.deliver(
        belief_event(tenant_id, agent_id, MIDNIGHT, 4.0, entropy=1.0),
        belief_event(tenant_id, agent_id, MIDNIGHT + MINUTE, None, entropy=2.0),
        belief_event(tenant_id, agent_id, MIDNIGHT + 2 * MINUTE, float("nan"), entropy=float("inf")),
        belief_event(tenant_id, agent_id, MIDNIGHT + 3 * MINUTE, None, entropy=float("-inf")),
    )
    points = await series.store.query_agent(tenant_id, agent_id, window(MIDNIGHT, MIDNIGHT + HOUR))
    assert rows(points) == [(MIDNIGHT, "free_energy", 4.0), (MIDNIGHT, "belief_entropy", 1.5)]


async def test_large_and_small_numbers(series: Series, tenant_id: UUID, agent_id: UUID) -> None:
    await series.deliver(
        belief_event(tenant_id, agent_id, MIDNIGHT, 1e200, entropy=5e-324),
        belief_event(tenant_id, agent_id, MIDNIGHT + MINUTE, 3e200, entropy=5e-324),
    )
    points = await series.store.query_agent(tenant_id, agent_id, window(MIDNIGHT, MIDNIGHT + HOUR))
    assert [point.value for point in points] == [2e200, 5e-324]


@pytest.mark.parametrize("fields", [["max_belief", "free_energy"], ["belief_entropy"], ["free_energy"] * 2, []])
async def test_fields_come_as_asked(series: Series, tenant_id: UUID, agent_id: UUID, fields: list[str]) -> None:
    values = {"free_energy": 1.0, "belief_entropy": 2.0, "max_belief": 0.5}
    await series.deliver(belief_event(tenant_id, agent_id, MIDNIGHT, 1.0, entropy=2.0, max_belief=0.5, variance=0.1))
    points = await series.store.query_agent(tenant_id, agent_id, window(MIDNIGHT, MIDNIGHT + HOUR, fields=fields))
    assert rows(points) == [(MIDNIGHT, name, values[name]) for name in dict.fromkeys(fields)]


async def test_coalitions_have_a_series_of_their_own(series: Series, tenant_id: UUID) -> None:
    couriers, others = uuid4(), uuid4()
    await series.deliver(
        coalition_event(tenant_id, couriers, MIDNIGHT, 2, 100.0, 0.5),
        coalition_event(tenant_id, couriers, MIDNIGHT + MINUTE, 3, -10.0, None),
        coalition_event(tenant_id, couriers, MIDNIGHT + HOUR, 0, 7.0, None),
        coalition_event(tenant_id, couriers, MIDNIGHT + HOUR + MINUTE, 4, None, None, total_revenue=97.25),
        coalition_event(
            tenant_id, couriers, MIDNIGHT + 2 * HOUR, 4, None, None, total_revenue=9999999999999.5, current_capital=-0.5
        ),
        coalition_event(tenant_id, others, MIDNIGHT, 9, 9.0, 9.0),
    )
    points = await series.store.query_coalition(
        tenant_id, couriers, window(MIDNIGHT, MIDNIGHT + DAY, fields=COALITION_FIELDS)
    )
    assert rows(points) == [
        (MIDNIGHT, "member_count", 2.5),
        (MIDNIGHT + HOUR, "member_count", 2.0),
        (MIDNIGHT + 2 * HOUR, "member_count", 4.0),
        (MIDNIGHT, "revenue", 45.0),
        (MIDNIGHT + HOUR, "revenue", 7.0),
        (MIDNIGHT, "efficiency", 0.5),
        (MIDNIGHT, "revenue_per_member", round((50 - 10 / 3) / 2, 9)),
        (MIDNIGHT + HOUR, "revenue_per_member", 0.0),
        (MIDNIGHT + HOUR, "total_revenue", 97.25),
        (MIDNIGHT + 2 * HOUR, "total_revenue", 9999999999999.5),
        (MIDNIGHT + 2 * HOUR, "current_capital", -0.5),
    ]


async def test_tenants_do_not_see_one_another(series: Series, agent_id: UUID) -> None:
    mine, theirs, nobodys = uuid4(), uuid4(), uuid4()
    await series.deliver(
        belief_event(mine, agent_id, MIDNIGHT, 1.0),
        belief_event(theirs, agent_id, MIDNIGHT + MINUTE, 5.0),
        belief_event(nobodys, uuid4(), MIDNIGHT, 7.0),
        coalition_event(theirs, agent_id, MIDNIGHT, 9, 9.0, 9.0),
    )
    asked = window(MIDNIGHT, MIDNIGHT + DAY, fields=["free_energy"])
    assert rows(await series.store.query_agent(mine, agent_id, asked)) == [(MIDNIGHT, "free_energy", 1.0)]
    assert rows(await series.store.query_agent(theirs, agent_id, asked)) == [(MIDNIGHT, "free_energy", 5.0)]
    assert await series.store.query_agent(nobodys, agent_id, asked) == []
    asked = window(MIDNIGHT, MIDNIGHT + DAY, fields=["revenue"])
    assert await series.store.query_coalition(mine, agent_id, asked) == []


async def test_what_is_delivered_again_counts_once(series: Series, tenant_id: UUID, agent_id: UUID) -> None:
    coalition = uuid4()
    first = belief_event(tenant_id, agent_id, MIDNIGHT, 1.0)
    second = belief_event(tenant_id, agent_id, MIDNIGHT + MINUTE, 4.0)
    measured = [
        coalition_event(tenant_id, coalition, MIDNIGHT, 1, 1.0, None),
        coalition_event(tenant_id, coalition, MIDNIGHT + MINUTE, 1, 4.0, None),
    ]
    await series.deliver(first, second, first, *measured)
    for _ in range(3):
        await series.deliver(first, measured[0])
    asked = window(MIDNIGHT, MIDNIGHT + DAY, fields=["free_energy"])
    assert rows(await series.store.query_agent(tenant_id, agent_id, asked)) == [(MIDNIGHT, "free_energy", 2.5)]
    asked = window(MIDNIGHT, MIDNIGHT + DAY, fields=["revenue"])
    assert rows(await series.store.query_coalition(tenant_id, coalition, asked)) == [(MIDNIGHT, "revenue", 2.5)]


@pytest.mark.parametrize(
    "field",
    [
        'free_energy" or true or r._field == "',
        "free_energy OR 1=1",
        "free_energy) FROM agent_history --",
        "free_energy'; DROP TABLE agent_history; --",
        "belief_0",
        "envelope",
    ],
)
async def test_a_field_is_never_part_of_the_query(
    series: Series, tenant_id: UUID, agent_id: UUID, field: str, outbox: Outbox
) -> None:
    await series.deliver(belief_event(tenant_id, agent_id, MIDNIGHT, 1.0))
    with suppress(InvalidInput):  # PostgreSQL has no such column, InfluxDB no such field
        asked = window(MIDNIGHT, MIDNIGHT + DAY, fields=[field])
        assert await series.store.query_agent(tenant_id, agent_id, asked) == []
    collector = MetricsCollector(series.store, outbox, tenant_id, Epoch(uuid4()))
    with pytest.raises(InvalidInput, match="free_energy, belief_entropy, max_belief, belief_variance"):
        await collector.query_agent_performance_history(agent_id, fields=[field])
    points = await collector.query_agent_performance_history(agent_id, 72, every=3 * DAY, fields=["free_energy"])
    assert [point.value for point in points] == [1.0]


async def test_the_collector_asks_for_the_last_hours(
    series: Series, tenant_id: UUID, agent_id: UUID, outbox: Outbox
) -> None:
    await series.deliver(
        belief_event(tenant_id, agent_id, MIDNIGHT, 1.0),
        belief_event(tenant_id, agent_id, MIDNIGHT + HOUR, 2.0),
        coalition_event(tenant_id, agent_id, MIDNIGHT, 2, 8.0, None),
    )
    collector = MetricsCollector(series.store, outbox, tenant_id, Epoch(uuid4()))
    assert await collector.query_agent_performance_history(agent_id, 1) == []
    assert len(await collector.query_agent_performance_history(str(agent_id), 73)) == 2  # type: ignore[arg-type]
    points = await collector.query_agent_performance_history(agent_id, 0.5, stop=MIDNIGHT + HOUR + MINUTE, every="30m")
    assert rows(points) == [(MIDNIGHT + HOUR, "free_energy", 2.0)]
    points = await collector.query_agent_performance_history(agent_id, start=MIDNIGHT, every="1d")
    assert rows(points) == [(MIDNIGHT, "free_energy", 1.5)]
    coalition = await collector.query_coalition_performance_history(agent_id, start=MIDNIGHT, every="1d")
    assert [point.field for point in coalition] == ["member_count", "revenue", "revenue_per_member"]


@pytest.mark.parametrize("reason", [NewEpoch, StoreClosed])
async def test_nothing_is_queried_once_the_epoch_has_ended(
    series: Series, tenant_id: UUID, agent_id: UUID, outbox: Outbox, reason: type[NewEpoch | StoreClosed]
) -> None:
    await series.deliver(belief_event(tenant_id, agent_id, MIDNIGHT, 1.0))
    epoch = Epoch(uuid4())
    collector = MetricsCollector(series.store, outbox, tenant_id, epoch)
    assert len(await collector.query_agent_performance_history(agent_id, start=MIDNIGHT, every="1d")) == 1
    epoch.end(reason)
    with pytest.raises(reason):
        await collector.query_agent_performance_history(agent_id, start=MIDNIGHT, every="1d")
    with pytest.raises(reason):
        await collector.query_coalition_performance_history(agent_id, start=MIDNIGHT, every="1d")
