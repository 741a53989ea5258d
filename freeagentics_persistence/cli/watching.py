"""``freeagentics-db watch``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import NoReturn
from uuid import UUID

import orjson
from rich.text import Text

from freeagentics_persistence.cache.connection import RedisConnection
from freeagentics_persistence.cache.real_time_updates import ALL, AgentUpdate, RealTimeUpdates
from freeagentics_persistence.cli.terminal import console, note, say
from freeagentics_persistence.database import bootstrap
from freeagentics_persistence.database.engine import Database
from freeagentics_persistence.database.epochs import current_epoch
from freeagentics_persistence.database.outbox import DatabaseOutbox
from freeagentics_persistence.database.repositories.tenants import TenantRepository
from freeagentics_persistence.domain.beliefs import Beliefs
from freeagentics_persistence.domain.families import Family
from freeagentics_persistence.domain.identifiers import DEFAULT_TENANT_ID
from freeagentics_persistence.encryption.keyring import KeyringSealer
from freeagentics_persistence.errors import EncryptionError, FeedGap, KeyUnavailable
from freeagentics_persistence.operations.database_health import existing_keys
from freeagentics_persistence.operations.servers import database_options, find_servers
from freeagentics_persistence.ports.sealing import Kind, Sealer
from freeagentics_persistence.settings import Environment, Settings

BUFFER = 10_000
SHOWN_VALUES = 6
_LINE = "{:<12}  {:<36}  {:<16}  {:>7}  {:>8}  {:>8}  {}"
_NO_KEY = "ENCRYPTION_KEY or ENCRYPTION_KEY_FILE is not set"


class NoKey:
    """Stands where a sealer is needed and there is no key: opens and seals nothing."""

    async def seal_many(
        self, tenant_id: UUID, kind: Kind, subjects: Sequence[UUID], revisions: Sequence[UUID], values: Sequence[bytes]
    ) -> NoReturn:
        """Raises KeyUnavailable."""
        raise KeyUnavailable(f"{_NO_KEY}.")

    async def open_many(
        self,
        tenant_id: UUID,
        kind: Kind,
        subjects: Sequence[UUID],
        revisions: Sequence[UUID],
        envelopes: Sequence[bytes | None],
    ) -> NoReturn:
        """Raises KeyUnavailable."""
        raise KeyUnavailable(f"{_NO_KEY}.")


@dataclass(frozen=True, slots=True)
class Shown:
    """An update as it is shown: ``sealed`` where it has beliefs that were not opened."""

    update: AgentUpdate
    beliefs: Beliefs | None
    sealed: bool


async def watch_updates(
    settings: Settings,
    agents: list[UUID],
    *,
    after: str | None,
    tenant_id: UUID | None,
    beliefs: bool,
    limit: int | None,
    as_json: bool,
) -> None:
    """Print updates as they come, until ``limit`` of them or cancelled."""
    async with AsyncExitStack() as stack:
        updates = await _open(settings, tenant_id or DEFAULT_TENANT_ID, stack)
        show = _print_json if as_json else _print_line
        opener = Opener(wanted=beliefs)
        shown = 0
        async for update in _follow(updates, agents, after, _silence if as_json else _print_heading):
            show(await opener.open(update))
            shown += 1
            if shown == limit:
                return


async def _open(settings: Settings, tenant_id: UUID, stack: AsyncExitStack) -> RealTimeUpdates:
    """The updates of one tenant, also for those who have no key (whom the store itself refuses)."""
    urls = await find_servers(settings, stack, note)
    database = Database(urls.app, database_options(settings, bootstrap.APP), pooled=False)
    tenants = TenantRepository(database)
    await tenants.load_keys(tenant_id)  # raises UnknownTenant
    encryption = settings.encryption
    keyless = settings.env is not Environment.EMBEDDED and encryption.key is None and encryption.key_file is None
    sealer: Sealer = NoKey() if keyless else KeyringSealer(existing_keys(settings), tenants)
    redis = await stack.enter_async_context(
        RedisConnection(urls.redis, timeout=settings.redis.timeout, pool_size=settings.redis.pool_size)
    )
    outbox = DatabaseOutbox(database, sealer, lambda: None)
    return RealTimeUpdates(tenant_id, await current_epoch(database), redis, outbox, sealer, lambda *_: None)


async def _follow(
    updates: RealTimeUpdates, agents: list[UUID], after: str | None, begin: Callable[[], None]
) -> AsyncIterator[AgentUpdate]:
    """Updates without end; ``begin`` is called before the first can come. A gap is told and passed over."""
    while True:
        try:
            # waiting, as what a slow terminal leaves unread can still be read from the feed
            async with updates.subscribe_to_agent_updates(
                agents or ALL, after=after, buffer=BUFFER, overflow="wait"
            ) as subscription:
                after = subscription.position
                begin()
                begin = _silence
                async for update in subscription:
                    yield update
                    after = update.position
                return
        except FeedGap as gap:
            if gap.resume_after is None or gap.resume_after == after:
                raise
            note(f"{gap.message} Going on after {gap.resume_after}.")
            after = gap.resume_after


class Opener:
    """Opens the beliefs of updates where they are wanted, and says once that it cannot."""

    def __init__(self, *, wanted: bool) -> None:
        self._wanted = wanted
        self._told = False

    async def open(self, update: AgentUpdate) -> Shown:
        """The update with its beliefs, or marked as sealed."""
        if update.envelope is None:
            return Shown(update, None, sealed=False)
        if not self._wanted:
            return Shown(update, None, sealed=True)
        try:
            found = await update.beliefs()
        except EncryptionError as error:
            if not self._told:
                note(f"beliefs stay sealed: {error.message}")
                self._told = True
            return Shown(update, None, sealed=True)
        return Shown(update, found, sealed=found is None)


def _silence() -> None:
    pass


def _print_heading() -> None:
    say(_LINE.format("time (UTC)", "agent", "type", "version", "entropy", "energy", "beliefs"))


def _print_json(shown: Shown) -> None:
    update = shown.update
    line = {
        "agent_id": update.agent_id,
        "tenant_id": update.tenant_id,
        "type": update.type,
        "version": update.version,
        "revision": update.revision,
        "timestamp": update.timestamp,
        "position": update.position,
        "data": update.data,
        "sealed": shown.sealed,
        "beliefs": None if shown.beliefs is None else _factors(shown.beliefs),
    }
    options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_UTC_Z
    print(orjson.dumps(line, option=options).decode(), flush=True)  # noqa: T201 - the result


def _factors(beliefs: Beliefs) -> list[dict[str, object]]:
    return [
        {"name": factor.name, "family": factor.family.value, "values": factor.values.tolist()}
        for factor in beliefs.factors
    ]


def _print_line(shown: Shown) -> None:
    update = shown.update
    data = update.data or {}
    line = _LINE.format(
        update.timestamp.strftime("%H:%M:%S.%f")[:12],
        str(update.agent_id),
        update.type,
        update.version,
        _number(data.get("belief_entropy")),
        _number(data.get("free_energy")),
        "(sealed)" if shown.sealed else _in_short(shown.beliefs),
    )
    console().print(Text(line.rstrip()))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _in_short(beliefs: Beliefs | None) -> str:
    if beliefs is None:
        return ""
    parts = []
    for factor in beliefs.factors:
        if factor.family is Family.RAW:
            parts.append(f"{factor.name} {factor.values.dtype}{list(factor.values.shape)}")
            continue
        values = factor.values.ravel()
        more = " ..." if values.size > SHOWN_VALUES else ""
        numbers = " ".join(f"{value:.2f}" for value in values[:SHOWN_VALUES])
        parts.append(f"{factor.name} [{numbers}{more}]".lstrip())
    return "  ".join(parts)
