"""The database: one pool, tenant-scoped transactions, and single calls in autocommit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from freeagentics_persistence.database import driver_errors
from freeagentics_persistence.database.urls import checked_dsn, describe
from freeagentics_persistence.errors import OutcomeUnknown, PersistenceError, StoreClosed

ENTER_TENANT = sa.text("SELECT enter_tenant(:tenant)").bindparams(sa.bindparam("tenant", type_=sa.Uuid))
SET_TENANT = sa.text("SELECT set_config('app.tenant_id', :tenant, true), set_config('synchronous_commit', 'on', true)")
SET_TIMEOUTS = sa.text(
    "SELECT set_config('statement_timeout', :limit, true), "
    "set_config('idle_in_transaction_session_timeout', :limit, true)"
)

# what a caller may do after OutcomeUnknown
APPLIED_ONCE = "Repeat the call with the same revision (error.revisions): it is applied once."
READ_BACK = "Read it back, and repeat the call only where it is not stored."
HARMLESS = "The call may be repeated: done twice it leaves the same."
SAVED_AGAIN = "Repeated without expected_version it is saved again as given, as a later version; with it, read it back."


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseOptions:
    """How to connect. Times in seconds. ``role`` is taken on by every connection, whoever logs in."""

    role: str | None = None
    pool_size: int = 10
    pool_timeout: float = 10.0
    connect_timeout: float = 10.0
    statement_timeout: float = 60.0
    through_pooler: bool = False  # PgBouncer in transaction mode: no statement cache, no session settings


class Database:
    """Opens no connection before the first use.

    Every transaction names its tenant in its first statement, and row-level security shows it nothing else.
    All methods raise errors of our tree; a connection lost while committing is OutcomeUnknown.
    """

    def __init__(self, url: str, options: DatabaseOptions | None = None, *, pooled: bool = True) -> None:
        self.options = options or DatabaseOptions()
        self._dsn = checked_dsn(url)
        self._closed = False
        self._limit = str(int(self.options.statement_timeout * 1000))
        self.where = describe(url)
        self.clock_offset = timedelta(0)  # PostgreSQL's clock minus ours; see measure_clock()
        self.require_epoch: Callable[[], None] = _any_epoch  # raises once the store's own has ended
        arguments: dict[str, Any] = {"poolclass": NullPool}
        if pooled:
            arguments = {
                "pool_size": self.options.pool_size,
                "max_overflow": 0,
                "pool_timeout": self.options.pool_timeout,
                "pool_use_lifo": True,
            }
        cached = {} if not self.options.through_pooler else {"prepared_statement_cache_size": 0}
        self._engine: AsyncEngine = create_async_engine(
            "postgresql+asyncpg://", connect_args={"async_creator_fn": self.connect, **cached}, **arguments
        )
        sa.event.listen(self._engine.sync_engine, "checkout", _refuse_dead_connection)
        sa.event.listen(self._engine.sync_engine, "checkin", self._close_late)
        self._reading = self._engine.execution_options(postgresql_readonly=True)

    async def connect(self, *_: Any, **__: Any) -> asyncpg.Connection:
        """A driver connection of its own, outside the pool; the caller closes it."""
        options = self.options
        settings = {"application_name": "freeagentics-persistence"}
        if not options.through_pooler:  # there each transaction brings its own, see _enter() and enter_tenant
            settings["synchronous_commit"] = "on"  # whatever the server's or the login's default is
            settings["statement_timeout"] = self._limit
            # an open write transaction keeps the server from vacuuming, so none may idle
            settings["idle_in_transaction_session_timeout"] = self._limit
            if options.role is not None:
                settings["role"] = options.role
        with self.translated():
            return await asyncpg.connect(
                self._dsn,
                timeout=options.connect_timeout,
                command_timeout=options.statement_timeout + 5,
                statement_cache_size=0 if options.through_pooler else 100,
                server_settings=settings,
            )

    @contextmanager
    def translated(self, *, unknown: Callable[[], OutcomeUnknown] | None = None) -> Iterator[None]:
        """Turn driver errors into ours; a connection lost while writing is ``unknown()``. StoreClosed, NewEpoch."""
        self.require_epoch()
        if self._closed:
            raise StoreClosed
        try:
            yield
        except PersistenceError:
            raise
        except Exception as error:
            if not driver_errors.is_driver_error(error):
                raise
            unanswered = isinstance(driver_errors.driver_error(error), TimeoutError)
            if unknown is not None and (driver_errors.is_lost(error) or unanswered):
                raise unknown() from error
            raise driver_errors.translate(error, self.where) from error

    def _unknown(self, revisions: Sequence[UUID], remedy: str) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"{self.where}: the connection was lost before the write was confirmed, so it may or may not be stored. "
            + (APPLIED_ONCE if revisions else remedy),
            revisions=tuple(revisions),
        )

    @asynccontextmanager
    async def read(self, tenant_id: UUID) -> AsyncIterator[AsyncConnection]:
        """A read-only transaction of one tenant: one snapshot per statement."""
        with self.translated():
            async with self._reading.connect() as connection, connection.begin():
                await self._enter(connection, tenant_id)
                yield connection

    @asynccontextmanager
    async def read_snapshot(self, tenant_id: UUID) -> AsyncIterator[AsyncConnection]:
        """A read-only transaction of one tenant in which every statement sees the same moment."""
        engine = self._engine.execution_options(postgresql_readonly=True, isolation_level="REPEATABLE READ")
        with self.translated():
            async with engine.connect() as connection, connection.begin():
                await self._enter(connection, tenant_id)
                yield connection

    @asynccontextmanager
    async def write(
        self,
        tenant_id: UUID,
        *,
        revisions: Sequence[UUID] = (),
        if_unknown: str = READ_BACK,
        tenant_is_new: bool = False,
    ) -> AsyncIterator[AsyncConnection]:
        """A transaction of one tenant, committed when the block ends, rolled back when it raises.

        ``revisions`` are those by which a repeated call is recognised; without any, ``if_unknown`` is what
        OutcomeUnknown tells the caller to do.
        """
        with self.translated():
            async with self._engine.connect() as connection:
                transaction = await connection.begin()
                try:
                    await self._enter(connection, tenant_id, is_new=tenant_is_new)
                    yield connection
                except BaseException:
                    await _roll_back(transaction)
                    raise
                with self.translated(unknown=lambda: self._unknown(revisions, if_unknown)):
                    await transaction.commit()

    async def _enter(self, connection: AsyncConnection, tenant_id: UUID, *, is_new: bool = False) -> None:
        if is_new:
            await connection.execute(SET_TENANT, {"tenant": str(tenant_id)})
        else:
            await connection.execute(ENTER_TENANT, {"tenant": tenant_id})
        if self.options.through_pooler:
            await connection.execute(SET_TIMEOUTS, {"limit": self._limit})

    async def call(
        self, statement: str, *arguments: Any, revisions: Sequence[UUID] = (), if_unknown: str = READ_BACK
    ) -> asyncpg.Record:
        """One statement in autocommit that writes and gives one row; see write() of what it takes."""
        with self.translated():
            async with self._driver() as driver:
                with self.translated(unknown=lambda: self._unknown(revisions, if_unknown)):
                    return await driver.fetchrow(statement, *arguments)

    async def fetch(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """One statement in autocommit that reads, or may be repeated at no harm; a tenant it enters itself."""
        with self.translated():
            async with self._driver() as driver:
                return list(await driver.fetch(statement, *arguments))

    @asynccontextmanager
    async def _driver(self) -> AsyncIterator[Any]:
        """A pooled connection of the driver, in autocommit; a third of the cost of one of SQLAlchemy's."""
        pooled = await self._engine.raw_connection()
        try:
            yield pooled.driver_connection
        finally:
            pooled.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection]:
        """A connection without a transaction or tenant, for migrations."""
        with self.translated():
            async with self._engine.connect() as connection:
                yield connection

    async def measure_clock(self) -> None:
        """Learn how far PostgreSQL's clock is from ours, to the length of a round trip on the safe side."""
        before = datetime.now(UTC)
        theirs = (await self.fetch("SELECT clock_timestamp() AS now"))[0]["now"]
        self.clock_offset = theirs - before

    async def close(self) -> None:
        """Close the pool. Every way in raises StoreClosed from now on; a disposed pool would open new connections.

        Calls under way may end, and each closes its connection as it does.
        """
        self._closed = True
        await self._engine.dispose()

    def _close_late(self, _connection: Any, record: Any) -> None:
        # the pool has been disposed of, and would leave what comes back to the garbage collector
        if self._closed:
            record.invalidate()


def _any_epoch() -> None:
    """Of a database that is not part of an open store."""


def _refuse_dead_connection(_connection: Any, record: Any, _proxy: Any) -> None:
    # a write on a connection that is known to be gone would be reported as of unknown outcome
    if record.driver_connection.is_closed():
        raise sa.exc.InvalidatePoolError("the server closed the connection")


async def driver_of(connection: AsyncConnection) -> Any:
    """The asyncpg connection under a SQLAlchemy one, for calls with large arrays."""
    return (await connection.get_raw_connection()).driver_connection


async def _roll_back(transaction: Any) -> None:
    # a rollback that fails because the connection is gone has nothing left to undo
    try:
        await asyncio.shield(transaction.rollback())
    except Exception as error:
        if not driver_errors.is_driver_error(error):
            raise
