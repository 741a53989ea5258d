"""Writers, readers and the relay in every order: once a version is delivered, nothing older is cached."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from freeagentics_persistence.cache.connection import RedisConnection
from freeagentics_persistence.cache.keys import TenantKeys
from freeagentics_persistence.cache.redis_cache import RedisCache, moment_of
from freeagentics_persistence.domain.epochs import Epoch
from freeagentics_persistence.domain.events import Event
from freeagentics_persistence.domain.identifiers import new_revision
from freeagentics_persistence.operations.servers import ServerUrls
from freeagentics_persistence.ports.cache import CacheEntry
from tests.support.cached import cached
from tests.support.feeds import change

TENANT = uuid4()
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
TRIALS, STEPS = 250, 40


def recorded(version: int) -> datetime:
    return BEGINNING + timedelta(microseconds=version)


class Model:
    """One agent: ``stored`` is the version in PostgreSQL, ``delivered`` the one that the relay has brought."""

    def __init__(self, connection: RedisConnection, chance: random.Random) -> None:
        self._connection, self._chance = connection, chance
        epoch, self._agent = Epoch(uuid4()), uuid4()
        self._cache = RedisCache(connection, epoch)
        self._key = TenantKeys(epoch.id, TENANT).beliefs(self._agent)
        self._entries: list[CacheEntry] = []
        self._unput: list[CacheEntry] = []
        self._readers: list[tuple[dict[UUID, bytes], CacheEntry | None]] = []
        self._relay: Callable[[], Awaitable[None]] = self._say_delivering
        self._delivering: list[Event] = []
        self.delivered = 0
        self.ways = {
            self.write: 3,
            self.put: 4,
            self.take_lease: 2,
            self.read_on: 5,
            self.relay_on: 5,
            self.evict: 2,
            self.evict_lease: 1,
            self.flush: 1,
            self.drop: 1,
        }

    async def write(self) -> None:
        version = len(self._entries) + 1
        entry = CacheEntry(self._agent, version, new_revision(), b"%d" % version)
        self._entries.append(entry)
        self._unput.append(entry)

    async def put(self) -> None:
        """A writer that may be late."""
        if self._unput:
            entry = self._unput.pop(self._chance.randrange(len(self._unput)))
            await self._cache.put_beliefs(TENANT, [entry], written_at=recorded(entry.version))

    async def take_lease(self) -> None:
        if self._entries:
            self._readers.append((await self._cache.take_leases(TENANT, [self._agent]), None))

    async def read_on(self) -> None:
        """A reader with a lease asks PostgreSQL, or fills in what it was told."""
        if self._readers:
            leases, read = self._readers.pop(self._chance.randrange(len(self._readers)))
            if read is None:
                self._readers.append((leases, self._entries[-1]))
            else:
                await self._cache.fill_beliefs(TENANT, [read], leases)

    async def relay_on(self) -> None:
        await self._relay()

    async def _say_delivering(self) -> None:
        if self.delivered < len(self._entries):
            version = self._chance.randint(self.delivered + 1, len(self._entries))
            self._delivering = [change(self._entries[version - 1])]
            await self._cache.pass_changes(moment_of(recorded(version)))
            self._relay = self._chance.choice((self._look, self._replace))

    async def _look(self) -> None:
        version = self._delivering[0].version
        self._delivering = await self._cache._older(TENANT, self._delivering)
        if not self._delivering:
            self._deliver(version)
        else:
            self._relay = self._replace

    async def _replace(self) -> None:
        await self._cache._replace(TENANT, self._delivering)
        self._deliver(self._delivering[0].version)

    def _deliver(self, version: int) -> None:
        self.delivered, self._relay = version, self._say_delivering

    async def evict(self) -> None:
        await self._connection.execute("DEL", self._key)

    async def evict_lease(self) -> None:
        await self._connection.execute("DEL", f"{self._key}:lease")

    async def flush(self) -> None:
        """Redis loses everything, and the sink finds out before more comes."""
        await self._connection.execute("DEL", self._key, f"{self._key}:lease", self._cache._own.cache_marker)
        await self.drop()

    async def drop(self) -> None:
        if self._relay == self._say_delivering and self.delivered:
            await self._cache.pass_changes(moment_of(recorded(self.delivered)))
            await self._cache.forget_all()
        else:
            await self._cache.pass_changes(moment_of(recorded(len(self._entries))))

    async def cached(self) -> int:
        (found,) = await cached(self._cache, TENANT, [self._agent])
        return found.version if isinstance(found, CacheEntry) else self.delivered


async def test_nothing_older_than_what_was_delivered_is_cached(urls: ServerUrls) -> None:
    chance = random.Random(1)
    async with RedisConnection(urls.redis, pool_size=1) as connection:
        for _ in range(TRIALS):
            model, done = Model(connection, chance), []
            for _ in range(STEPS):
                (way,) = chance.choices(list(model.ways), list(model.ways.values()))
                await way()
                done.append(f"{way.__name__} ({model.delivered})")
                assert await model.cached() >= model.delivered, done
