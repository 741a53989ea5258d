"""Agents, personalities, coalitions, locations and consistency: their limits, and copies of them."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import h3
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freeagentics_persistence.domain.agents import Agent, AgentStatus, Personality
from freeagentics_persistence.domain.beliefs.beliefs import Beliefs
from freeagentics_persistence.domain.coalitions import Coalition, CoalitionStatus
from freeagentics_persistence.domain.consistency import Consistency
from freeagentics_persistence.domain.locations import MAX_RADIUS, cell_to_int, disk, int_to_cell, require_cell
from freeagentics_persistence.domain.performance import performance_data
from freeagentics_persistence.errors import InvalidInput

CELL = h3.latlng_to_cell(52.37, 4.90, 9)
SECRET = [0.123456789, 0.876543211]


def scout(**fields: Any) -> Agent:
    """A valid agent but for these fields."""
    return Agent(**{"name": "scout", "agent_type": "explorer", **fields})


def venture(**fields: Any) -> Coalition:
    """A valid coalition but for these fields."""
    return Coalition(**{"name": "venture", "business_model": "delivery", **fields})


@pytest.mark.parametrize(
    ("make", "field", "value"),
    [
        (scout, "name", ""),
        (scout, "name", "x" * 256),
        (scout, "name", "a\x00"),
        (scout, "name", "\ud800"),
        (scout, "name", None),
        (scout, "agent_type", "x" * 51),
        (scout, "agent_type", " "),
        (scout, "energy", -1),
        (scout, "energy", 101),
        (scout, "energy", True),
        (scout, "energy", 1.5),
        (scout, "energy", "5"),
        (scout, "energy", SECRET),
        pytest.param(scout, "energy", 10**5000, id="huge energy"),
        (scout, "status", "retired"),
        (scout, "status", "ACTIVE"),
        (scout, "status", None),
        (scout, "status", SECRET),
        (scout, "id", "abc"),
        (scout, "id", SECRET),
        (scout, "personality", None),
        (scout, "personality", ["brave"]),
        (scout, "personality", {"calm": float("nan")}),
        (scout, "personality", {"calm": {"deep": [float("inf")]}}),
        (scout, "personality", {1: 2}),
        (scout, "beliefs", [0.5, 0.6]),
        (scout, "beliefs", "abc"),
        (scout, "location", SECRET),
        (scout, "location", 617700169958293503),
        (venture, "name", ""),
        (venture, "business_model", "x" * 101),
        (venture, "formation_criteria", None),
        (venture, "formation_criteria", [("a", 1)]),
        (venture, "business_config", {"a": float("nan")}),
        (venture, "initial_capital", Decimal("NaN")),
        (venture, "initial_capital", Decimal("0.001")),
        (venture, "initial_capital", Decimal("1E13")),
        (venture, "initial_capital", 1.5),
        (venture, "current_capital", Decimal("Infinity")),
        (venture, "total_revenue", "5"),
        (venture, "status", "bankrupt"),
        (venture, "id", 7),
    ],
)
def test_bad_fields_are_refused(make: Callable[..., Any], field: str, value: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        make(**{field: value})
    error = caught.value
    assert error.field.startswith(field)
    assert error.problem
    assert error.remedy.endswith(".")
    assert "0.12345" not in str(error)
    assert len(str(error)) < 500
    assert isinstance(error, ValueError)


@pytest.mark.parametrize(
    "cell",
    ["", "zzz", "-1", "0" * 15, "f" * 15, "f" * 16, "f" * 100, f"0x{CELL}", f" {CELL}", f"{CELL}\n", f"+{CELL}",
     f"{CELL[:4]}_{CELL[4:]}", CELL[:-1], "\x00", "\ud800", "８" + CELL[1:], b"8928308280fffff", None, 0.5]
)  # fmt: skip
def test_bad_cells_are_refused(cell: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        require_cell("location", cell)
    assert caught.value.field == "location"
    assert "latlng_to_cell" in caught.value.remedy


@given(st.floats(-90, 90), st.floats(-180, 180), st.integers(0, 15))
def test_cells_are_the_same_as_text_and_number(latitude: float, longitude: float, resolution: int) -> None:
    cell = h3.latlng_to_cell(latitude, longitude, resolution)
    assert require_cell("location", cell) == cell
    assert 0 < cell_to_int(cell) < 2**63
    assert int_to_cell(cell_to_int(cell)) == cell


def test_a_cell_has_one_spelling() -> None:
    assert scout(location=CELL.upper()).location == CELL == int_to_cell(cell_to_int(CELL.upper()))


def test_disks() -> None:
    assert disk(CELL, 0) == [cell_to_int(CELL)]
    assert len(disk(CELL, MAX_RADIUS)) == 1 + 3 * MAX_RADIUS * (MAX_RADIUS + 1)
    pentagon = next(iter(h3.get_pentagons(5)))
    assert len(set(disk(pentagon, 2))) == len(disk(pentagon, 2)) == 16
    for radius in (-1, MAX_RADIUS + 1, 1.5, True, None):
        with pytest.raises(InvalidInput) as caught:
            disk(CELL, radius)  # type: ignore[arg-type]
        assert caught.value.field == "radius"


def test_agents_take_the_plain_forms() -> None:
    agent = scout(
        status="suspended",
        personality={"calm": 0.5},
        beliefs=[0.5, 0.5],
        energy=np.int64(7),
        id="00000000-0000-4000-8000-000000000001",
    )
    assert agent.status is AgentStatus.SUSPENDED
    assert agent.personality == Personality({"calm": 0.5})
    assert agent.beliefs == Beliefs([0.5, 0.5])
    assert type(agent.energy) is int
    assert agent.id == UUID("00000000-0000-4000-8000-000000000001")
    assert scout(name="é" * 255).name == "é" * 255
    with pytest.raises(InvalidInput):
        dataclasses.replace(agent, energy=101)
    with pytest.raises(dataclasses.FrozenInstanceError):
        agent.energy = 5  # type: ignore[misc]


def test_agents_copy_pickle_and_turn_into_dicts() -> None:
    agent = scout(personality={"calm": {"deep": [1, 2]}}, beliefs=[0.5, 0.5], location=CELL)
    for other in (copy.deepcopy(agent), pickle.loads(pickle.dumps(agent)), dataclasses.replace(agent)):
        assert other == agent
    assert dataclasses.asdict(agent)["personality"] == {"traits": {"calm": {"deep": [1, 2]}}}


def test_a_personality_is_its_own() -> None:
    mine = {"calm": [1]}
    traits = Personality(mine)
    mine["calm"].append(2)
    assert traits.to_dict() == {"calm": [1]}
    assert Personality.from_dict(traits.to_dict()) == traits
    assert traits != {"calm": [1]}


def test_coalitions_are_exact() -> None:
    held = venture(initial_capital=5, status="active")
    assert str(held.initial_capital) == str(held.current_capital) == "5.00"
    assert held.status is CoalitionStatus.ACTIVE
    assert str(venture(initial_capital=Decimal("9999999999999.99")).initial_capital) == "9999999999999.99"
    assert venture(current_capital=Decimal("-3.5")).current_capital == Decimal("-3.50")


@pytest.mark.parametrize(
    ("level", "staleness", "field"),
    [
        ("eventual", None, "consistency"),
        (None, None, "consistency"),
        ([0.5], None, "consistency"),
        ("bounded", None, "max_staleness"),
        ("strong", timedelta(seconds=1), "max_staleness"),
        ("session", timedelta(seconds=1), "max_staleness"),
        ("bounded", timedelta(0), "max_staleness"),
        ("bounded", -timedelta(seconds=1), "max_staleness"),
        ("bounded", 5, "max_staleness"),
    ],
)
def test_bad_consistency_is_refused(level: Any, staleness: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Consistency(level, staleness)
    assert caught.value.field == field


def test_consistency() -> None:
    assert Consistency("bounded", timedelta(seconds=1)).max_staleness == timedelta(seconds=1)
    assert Consistency("strong") == Consistency("strong")


def test_revenue_per_member() -> None:
    assert performance_data(4, 10.0, 0.5)["revenue_per_member"] == 2.5
    assert performance_data(0, 10.0, None) == {
        "member_count": 0,
        "revenue": 10.0,
        "efficiency": None,
        "revenue_per_member": 0.0,
    }
    assert performance_data(4, None, None)["revenue_per_member"] is None
