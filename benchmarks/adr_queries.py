"""The baseline's searches by place, as the architecture decision writes them: cells are text, rows are entities."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import h3
import numpy as np
from sqlalchemy import ForeignKey, Index, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import DECIMAL, String

from benchmarks.adr_way import AdrWay, AgentModel, Array, Base, Moment

COALITIONS_NEAR = text(
    """
    SELECT c.* FROM coalitions c
    JOIN coalition_members cm ON c.id = cm.coalition_id
    JOIN agents a ON cm.agent_id = a.id
    WHERE c.business_model = :business_model
    AND a.location_h3 = ANY(SELECT unnest(CAST(:nearby_locations AS text[])))
    AND c.status = 'active'
    GROUP BY c.id
    HAVING COUNT(cm.agent_id) >= 2
    """
)


class CoalitionModel(Base):
    """A coalition."""

    __tablename__ = "coalitions"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(255))
    business_model: Mapped[str] = mapped_column(String(100))
    tenant_id: Mapped[UUID]
    created_at: Mapped[datetime | None] = mapped_column(Moment)
    updated_at: Mapped[datetime | None] = mapped_column(Moment)
    formation_criteria: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    business_config: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    initial_capital: Mapped[Decimal] = mapped_column(DECIMAL(15, 2), server_default="0")
    current_capital: Mapped[Decimal] = mapped_column(DECIMAL(15, 2), server_default="0")
    total_revenue: Mapped[Decimal] = mapped_column(DECIMAL(15, 2), server_default="0")
    status: Mapped[str] = mapped_column(String(20), default="forming")
    dissolved_at: Mapped[datetime | None] = mapped_column(Moment)


class MemberModel(Base):
    """An agent in a coalition."""

    __tablename__ = "coalition_members"
    __table_args__ = (Index("idx_coalition_members_agent", "agent_id"),)

    coalition_id: Mapped[UUID] = mapped_column(ForeignKey("coalitions.id", ondelete="CASCADE"), primary_key=True)
    agent_id: Mapped[UUID] = mapped_column(ForeignKey("agents.id", ondelete="CASCADE"), primary_key=True)
    joined_at: Mapped[datetime | None] = mapped_column(Moment)
    role: Mapped[str] = mapped_column(String(50), server_default="member")
    contribution_score: Mapped[Decimal] = mapped_column(DECIMAL(5, 2), server_default="0")


@dataclass(frozen=True, slots=True)
class AdrQueries:
    """The searches of the application."""

    app: AdrWay

    async def agents_near(self, location: str, radius: int) -> list[AgentModel]:
        """The active agents around a cell, with everything that their rows hold."""
        query = select(AgentModel).where(
            AgentModel.location_h3.in_(h3.grid_disk(location, radius)), AgentModel.status == "active"
        )
        async with self.app.sessions() as session:
            return list((await session.scalars(query)).all())

    async def opened_agents_near(self, location: str, radius: int) -> list[tuple[AgentModel, Array]]:
        """The same with their beliefs, as the repository of the decision returns them."""
        found = await self.agents_near(location, radius)
        decrypt = self.app.cipher.decrypt
        return [(agent, np.array(json.loads(decrypt(agent.belief_state or b"")))) for agent in found]

    async def coalitions_near(self, location: str, business_model: str) -> list[dict[str, Any]]:
        """Coalitions of a business model with two members within two steps of a cell."""
        given = {"business_model": business_model, "nearby_locations": h3.grid_disk(location, 2)}
        async with self.app.sessions() as session:
            return [dict(row) for row in (await session.execute(COALITIONS_NEAR, given)).mappings()]
