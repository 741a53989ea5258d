"""docs/update-message.schema.json describes every message that the feed carries, and nothing else."""

from __future__ import annotations

import json
import re
from typing import Any

import redis.asyncio

from freeagentics_persistence import Agent, Beliefs, Persistence, Settings
from freeagentics_persistence.cache.keys import TenantKeys
from freeagentics_persistence.domain.identifiers import DEFAULT_TENANT_ID
from tests.docs.markdown import ROOT

SCHEMA = json.loads((ROOT / "docs" / "update-message.schema.json").read_text())
TYPES: dict[str, Any] = {"object": dict, "string": str, "integer": int, "number": int | float, "null": type(None)}
CHECKED = {"type", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum"}
ABOUT = {"$schema", "title", "description", "required", "additionalProperties", "properties"}


def problems(schema: dict[str, Any], value: Any, place: str = "message") -> list[str]:
    """How a value breaks a schema, in the part of JSON Schema that this one uses."""
    assert schema.keys() <= CHECKED | ABOUT, f"{place}: this test does not know {schema.keys() - CHECKED - ABOUT}"
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    found = []
    if kinds and not any(isinstance(value, TYPES[kind]) for kind in kinds):
        found.append(f"{place}: {value!r} is none of {kinds}")
    if value not in schema.get("enum", [value]):
        found.append(f"{place}: {value!r} is none of {schema['enum']}")
    if isinstance(value, str):
        if not re.search(schema.get("pattern", ""), value):
            found.append(f"{place}: {value!r} does not match {schema['pattern']}")
        if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
            found.append(f"{place}: {len(value)} characters")
    if isinstance(value, int | float) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        found.append(f"{place}: {value} is out of range")
    if isinstance(value, dict):
        known = schema["properties"]
        found += [f"{place}: no {name}" for name in schema.get("required", []) if name not in value]
        found += [f"{place}: {name} is not described" for name in value if name not in known]
        for name in value.keys() & known.keys():
            found += problems(known[name], value[name], f"{place}.{name}")
    return found


async def messages(store: Persistence, settings: Settings) -> list[dict[str, Any]]:
    """What the feed holds after every kind of update."""
    agent = Agent(name="scout", agent_type="explorer", beliefs=Beliefs.uniform(4), location="8919690a4b3ffff")
    async with store.updates.subscribe_to_agent_updates(agent.id) as updates:
        saved = await store.agents.save_agent(agent)
        await store.agents.save_agent(Agent(id=agent.id, name="scout", agent_type="explorer", status="suspended"))
        await store.agents.update_beliefs(saved.id, [0.7, 0.1, 0.1, 0.1], free_energy=1.9)
        await store.updates.publish_agent_update(saved.id, "greeting", {"words": "good morning"})
        await store.agents.delete_agent(saved.id)
        for _ in range(5):
            await anext(updates)
    assert settings.redis.url is not None
    async with redis.asyncio.from_url(settings.redis.url.get_secret_value()) as connection:
        entries = await connection.xrange(TenantKeys(store.epoch, DEFAULT_TENANT_ID).feed)
    return [json.loads(fields[b"m"]) for _, fields in entries]


async def test_every_message_fits_the_schema(store: Persistence, settings: Settings) -> None:
    found = await messages(store, settings)
    types = [message["type"] for message in found]
    assert types == ["agent.saved", "agent.saved", "beliefs.updated", "greeting", "agent.deleted"]
    for message in found:
        assert problems(SCHEMA, message) == []
    seen = {name for message in found for name in message["data"] or {}}
    assert seen == SCHEMA["properties"]["data"]["properties"].keys()


async def test_schema_refuses_what_is_no_message(store: Persistence, settings: Settings) -> None:
    message = (await messages(store, settings))[0]
    assert problems(SCHEMA, message | {"another": 1})
    for name in SCHEMA["required"]:
        assert problems(SCHEMA, {key: value for key, value in message.items() if key != name}), name
        assert problems(SCHEMA, message | {name: [1]}), name
