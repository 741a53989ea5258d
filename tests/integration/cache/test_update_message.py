"""The update message keeps to its published schema, and what does not is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from jsonschema import Draft202012Validator

from freeagentics_persistence.cache.keys import TenantKeys
from freeagentics_persistence.cache.updates.update_message import (
    AgentUpdate,
    encode_update,
    format_position,
    parse_position,
    read_message,
)
from freeagentics_persistence.domain.beliefs.beliefs import Beliefs
from freeagentics_persistence.domain.events import EventType, FeedPosition
from freeagentics_persistence.errors import InvalidInput, UpdatesError
from freeagentics_persistence.ports.sealing import Kind
from tests.support.feeds import Feed

SCHEMA = json.loads((Path(__file__).parents[3] / "docs/update-message.schema.json").read_text())
EPOCH = UUID("3a3cbb6e-4f4a-4d5e-9a39-6f0e3c0f1f11")


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    Draft202012Validator.check_schema(SCHEMA)
    return Draft202012Validator(SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER)


async def published(feed: Feed) -> list[dict[str, Any]]:
    """One message of each kind, as the server holds them."""
    agent, saved = uuid4(), {"name": "scout", "status": "active", "location": None}
    await feed.sink.deliver(
        [
            await feed.event(agent, 1, type=EventType.AGENT_SAVED, beliefs=Beliefs.uniform(2), data=saved),
            await feed.event(agent, 2, beliefs=Beliefs.uniform(3, 4), free_energy=0.0, entropy=-1.5, max_belief=1.0),
            await feed.event(agent, 2, type="plan.made", sealed=b"{}", kind=Kind.UPDATE_DATA),
            await feed.event(agent, 3, type=EventType.AGENT_DELETED),
        ]
    )
    stored = await feed.connection.execute("XRANGE", TenantKeys(feed.epoch, feed.tenant_id).feed, "-", "+")
    return [json.loads(fields[3]) for _, fields in stored]


async def test_every_kind_of_message_keeps_to_the_schema(feed: Feed, validator: Draft202012Validator) -> None:
    messages = await published(feed)
    assert [message["type"] for message in messages] == ["agent.saved", "beliefs.updated", "plan.made", "agent.deleted"]
    for message in messages:
        assert [error.message for error in validator.iter_errors(message)] == []
        assert set(message) == set(SCHEMA["properties"])
    assert messages[1]["data"] == {"free_energy": 0.0, "belief_entropy": -1.5, "max_belief": 1.0}
    assert [message["envelope"] is None for message in messages] == [False, False, False, True]
    assert [message["data"] is None for message in messages] == [False, False, True, True]


@pytest.mark.parametrize(
    "change",
    [
        {"version": 0},
        {"version": "1"},
        {"timestamp": "2026-01-01T00:00:00+00:00"},
        {"timestamp": "yesterday Z"},
        {"position": "7-1"},
        {"agent_id": "scout"},
        {"type": ""},
        {"data": []},
        {"data": {"free_energy": "low"}},
        {"envelope": "not base64!"},
        {"beliefs": [0.5, 0.5]},
    ],
)
async def test_the_schema_refuses_what_is_no_message(
    feed: Feed, validator: Draft202012Validator, change: dict[str, Any]
) -> None:
    message = (await published(feed))[1]
    assert validator.is_valid(message)
    assert not validator.is_valid({**message, **change})


async def test_a_message_is_read_back_as_it_was(feed: Feed) -> None:
    agent, beliefs, zone = uuid4(), Beliefs([0.25, 0.75]), timezone(timedelta(hours=5))
    event = await feed.event(agent, 2**53, beliefs=beliefs, variance=0.25)
    for moment in (datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=zone), datetime(2026, 1, 2, tzinfo=UTC)):
        moved = event._replace(recorded_at=moment, round=2**64 - 1, id=2**63 - 1)
        update = decoded(encode_update(moved, str(feed.epoch)), feed)
        assert update.timestamp == moment
        assert update.timestamp.tzinfo == UTC
        assert update.version == 2**53
        assert update.envelope == event.envelope
        assert update.position == f"{feed.epoch}/{2**64 - 1}-{2**63 - 1}"
        assert await update.beliefs() == beliefs


@pytest.mark.parametrize(
    "change",
    [
        {"agent_id": "scout"},
        {"agent_id": 7},
        {"version": None},
        {"version": "x"},
        {"revision": None},
        {"timestamp": "yesterday"},
        {"envelope": "QUJD!"},
        {"envelope": 7},
    ],
)
async def test_a_malformed_message_is_refused(feed: Feed, change: dict[str, Any]) -> None:
    message = json.dumps({**(await published(feed))[1], **change}).encode()
    with pytest.raises(UpdatesError, match="was refused"):
        decoded(message, feed)


def decoded(message: bytes, feed: Feed) -> AgentUpdate:
    return read_message(message, feed.epoch, feed.tenant_id).decode(feed.sealer, lambda *_: None)


def test_positions_are_read_as_they_were_written() -> None:
    assert parse_position("after", format_position(EPOCH, FeedPosition(3, 4))) == (EPOCH, FeedPosition(3, 4))


@pytest.mark.parametrize("text", ["", "7-1", f"{EPOCH}/7", f"{EPOCH}/a-1", f"{EPOCH}/-1-2", "x/1-2", None, 7])
def test_what_is_no_position_is_named(text: object) -> None:
    with pytest.raises(InvalidInput, match=r"after: .* is not a feed position"):
        parse_position("after", text)
