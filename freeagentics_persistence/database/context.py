"""What the repositories of one tenant share."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from freeagentics_persistence.database.engine import READ_BACK, Database
from freeagentics_persistence.database.session_floors import SessionFloors
from freeagentics_persistence.database.write_pace import WritePace
from freeagentics_persistence.database.writes.kept_beliefs import KeptBeliefs
from freeagentics_persistence.errors import CacheUnavailable, StoreClosed, Unavailable
from freeagentics_persistence.ports.cache import BeliefCache, CacheEntry, MembershipCache
from freeagentics_persistence.ports.sealing import Sealer

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds: rows and bytes of one statement, statements at once, single updates and single reads waiting."""

    batch_rows: int = 1000
    batch_bytes: int = 8 * 1024 * 1024
    batch_connections: int = 3
    write_queue: int = 10_000
    read_queue: int = 10_000
    revision_memory: timedelta = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantContext:
    """One tenant's way to the database, the cache and the keys."""

    tenant_id: UUID
    database: Database
    sealer: Sealer
    beliefs: BeliefCache
    members: MembershipCache
    floors: SessionFloors
    kept: KeptBeliefs
    wake: Callable[[], None]
    pace: WritePace
    limits: Limits = field(default_factory=Limits)

    @asynccontextmanager
    async def change(
        self, *, revisions: Sequence[UUID] = (), if_unknown: str = READ_BACK
    ) -> AsyncIterator[AsyncConnection]:
        """A transaction that makes an event; it begins once the relay is near enough. See Database.write."""
        await self.pace.keep(1)
        async with self.database.write(self.tenant_id, revisions=revisions, if_unknown=if_unknown) as connection:
            yield connection

    async def cache_written(self, entries: Sequence[CacheEntry], recorded: Sequence[datetime]) -> None:
        """Put what was just committed, before it is acknowledged. The relay repairs what cannot be put now.

        ``recorded``: when PostgreSQL recorded each of them.
        """
        if not entries:
            return
        try:
            await self.beliefs.put_beliefs(self.tenant_id, entries, written_at=min(recorded))
        except (Unavailable, StoreClosed) as error:
            note_cache_trouble(error)

    async def drop_members(self, coalition_id: UUID, version: int) -> None:
        """Forget cached members older than a change that was just committed."""
        self.floors.saw(self.tenant_id, coalition_id, version)
        try:
            await self.members.drop_members(self.tenant_id, coalition_id, version)
        except (Unavailable, StoreClosed) as error:
            note_cache_trouble(error)


def note_cache_trouble(error: Unavailable | StoreClosed) -> None:
    """The cache changes speed, not answers: PostgreSQL goes on alone, and the log says so."""
    level = logging.DEBUG if isinstance(error, CacheUnavailable) and error.passed_over else logging.WARNING
    _log.log(level, "the cache is passed over: %s", error)
