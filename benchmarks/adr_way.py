"""The baseline: the way that the architecture decision describes, written plainly.

Beliefs are JSON under Fernet in a table mapped by the ORM; each agent is loaded, changed and committed by itself, with
a row of history; then one SETEX, one PUBLISH and one point in InfluxDB (where there is one) a call. It has a database
of its own and connects as its owner: no tenants, no row-level security, no outbox, nothing sealed outside of the table.
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import cycle
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import numpy.typing as npt
import redis.asyncio as redis
from cryptography.fernet import Fernet
from sqlalchemy import ForeignKey, Index, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TIMESTAMP, String

from benchmarks.place import Place
from benchmarks.scene import Scene
from benchmarks.swarm import Swarm
from benchmarks.timing import Sample, Stopwatch, by_callers
from freeagentics_persistence import DEFAULT_TENANT_ID

DATABASE = "adr_way"
CACHE_SECONDS = 300
POOL_SIZE = 10  # as the store itself has by default
CALLERS = 50  # more of them only wait longer
BUCKET = "adr_way"
Array = npt.NDArray[np.float64]
Moment = TIMESTAMP(timezone=True)


class Base(DeclarativeBase):
    """The tables."""


class AgentModel(Base):
    """An agent, with its beliefs encrypted."""

    __tablename__ = "agents"
    __table_args__ = (
        Index("idx_agents_tenant_type", "tenant_id", "agent_type"),
        Index("idx_agents_location", "location_h3"),
        Index("idx_agents_last_active", "last_active_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(255))
    agent_type: Mapped[str] = mapped_column(String(50))
    tenant_id: Mapped[UUID]
    created_at: Mapped[datetime] = mapped_column(Moment, server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(Moment, server_default=func.now())
    belief_state: Mapped[bytes | None]
    personality_traits: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    energy_level: Mapped[int] = mapped_column(default=100)
    location_h3: Mapped[str | None] = mapped_column(String(15))
    status: Mapped[str] = mapped_column(String(20), default="active")
    last_active_at: Mapped[datetime] = mapped_column(Moment, server_default=func.now())


class HistoryModel(Base):
    """What an agent believed once."""

    __tablename__ = "agent_history"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    agent_id: Mapped[UUID] = mapped_column(ForeignKey("agents.id"), index=True)
    recorded_at: Mapped[datetime] = mapped_column(Moment)
    belief_state: Mapped[bytes | None]
    energy_level: Mapped[int]


@dataclass(frozen=True, slots=True)
class AdrWay:
    """An application with its clients."""

    sessions: async_sessionmaker[AsyncSession]
    redis: redis.Redis
    influx: Any | None
    cipher: Fernet

    async def update(self, agent_id: UUID, beliefs: Array, free_energy: float) -> None:
        """Store, cache, publish and record one agent's beliefs."""
        plain = json.dumps(beliefs.tolist())
        moment = datetime.now(UTC)
        async with self.sessions() as session:
            agent = await session.get_one(AgentModel, agent_id)
            agent.belief_state = self.cipher.encrypt(plain.encode())
            agent.updated_at = agent.last_active_at = moment
            session.add(
                HistoryModel(
                    id=uuid4(),
                    agent_id=agent_id,
                    recorded_at=moment,
                    belief_state=agent.belief_state,
                    energy_level=agent.energy_level,
                )
            )
            await session.commit()
        await self.redis.setex(f"agent:beliefs:{agent_id}", CACHE_SECONDS, plain)
        message = {"agent_id": str(agent_id), "type": "beliefs", "data": json.loads(plain), "timestamp": time.time()}
        await self.redis.publish(f"agent:updates:{agent_id}", json.dumps(message))
        if self.influx is not None:
            fields = {
                "free_energy": free_energy,
                "belief_entropy": float(-np.sum(beliefs * np.log(beliefs + 1e-10))),
                "max_belief": float(beliefs.max()),
                "belief_variance": float(beliefs.var()),
                **{f"belief_{i}": float(belief) for i, belief in enumerate(beliefs)},
            }
            point = {"measurement": "agent_beliefs", "tags": {"agent_id": str(agent_id)}, "fields": fields}
            await self.influx.write_api().write(BUCKET, record=point)

    async def get_agent(self, agent_id: UUID) -> tuple[AgentModel, Array]:
        """One agent with its beliefs, from PostgreSQL."""
        async with self.sessions() as session:
            agent = await session.get_one(AgentModel, agent_id)
        return agent, np.array(json.loads(self.cipher.decrypt(agent.belief_state or b"")))

    async def get_cached_beliefs(self, agent_id: UUID) -> Array:
        """One agent's beliefs, from Redis."""
        return np.array(json.loads(await self.redis.get(f"agent:beliefs:{agent_id}") or b""))

    async def seed(self, swarm: Swarm) -> None:
        """Insert the swarm."""
        common = {"agent_type": "benchmark", "tenant_id": DEFAULT_TENANT_ID}
        async with self.sessions() as session:
            for agent_id, beliefs in zip(swarm.ids, swarm.steps[-1], strict=True):
                state = self.cipher.encrypt(json.dumps(beliefs.tolist()).encode())
                session.add(AgentModel(id=agent_id, name="agent", belief_state=state, **common))
            await session.commit()

    async def fill_cache(self, swarm: Swarm) -> None:
        """Cache the swarm, for longer than any row takes."""
        async with self.redis.pipeline(transaction=False) as pipe:
            for agent_id, beliefs in zip(swarm.ids, swarm.steps[-1], strict=True):
                pipe.set(f"agent:beliefs:{agent_id}", json.dumps(beliefs.tolist()))
            await pipe.execute()


async def adr_way(scene: Scene, swarm: Swarm) -> AdrWay:
    """The application with this swarm, opened when it is first asked for."""
    return await scene.keep(DATABASE, swarm, _opened(scene, swarm))


@asynccontextmanager
async def _opened(scene: Scene, swarm: Swarm) -> AsyncIterator[AdrWay]:
    """The application with the swarm in its own database, on the same servers."""
    place: Place = scene.place
    await place.server.make_database(DATABASE)
    url = place.admin_url_of(DATABASE).replace("postgresql://", "postgresql+asyncpg://")
    engine = create_async_engine(url, pool_size=POOL_SIZE, max_overflow=0, pool_timeout=600)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    influx: Any | None = None
    server = scene.influx_if_any()
    if server is not None:
        store = server.store(BUCKET)
        await store.ensure_bucket()
        await store.close()
        library: Any = importlib.import_module("influxdb_client.client.influxdb_client_async")
        influx = library.InfluxDBClientAsync(server.url, server.token, org=server.org)
    client = place.redis()
    try:
        app = AdrWay(async_sessionmaker(engine, expire_on_commit=False), client, influx, Fernet(Fernet.generate_key()))
        await app.seed(swarm)
        yield app
    finally:
        if influx is not None:
            await influx.close()
        await client.aclose()
        await engine.dispose()


class AdrCallers:
    """Calls of the application about uniformly chosen agents, by so many callers, of whom ``CALLERS`` are enough."""

    def __init__(self, swarm: Swarm, callers: int, call: Callable[[int], Awaitable[object]], name: str) -> None:
        self._swarm, self._callers, self._call = swarm, min(callers, CALLERS), call
        self.name = f"ADR's way, {name}, {self._callers} at once"

    async def run(self, seconds: float) -> Sample:
        """Calls per second."""
        return await by_callers(self._callers, seconds, len(self._swarm.ids), self._call)


def updates_of(app: AdrWay, swarm: Swarm) -> Callable[[int], Awaitable[None]]:
    """A call that updates agent number n with the swarm's next step."""
    steps = cycle(swarm.steps)
    return lambda row: app.update(swarm.ids[row], next(steps)[row], float(swarm.free_energy[row]))


class AdrSwarm:
    """One call for each agent of the swarm in turn, as code without a call for many would."""

    def __init__(self, swarm: Swarm, call: Callable[[int], Awaitable[object]], name: str) -> None:
        self.name = f"ADR's way, {name}"
        self._swarm, self._call = swarm, call

    async def run(self, seconds: float) -> Sample:
        """Agents per second."""
        rows = cycle(range(len(self._swarm.ids)))
        watch = Stopwatch(seconds)
        while not watch.over:
            await self._call(next(rows))
            watch.done += 1
        return Sample(watch.rate())
