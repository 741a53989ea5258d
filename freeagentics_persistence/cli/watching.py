"""``freeagentics-db watch``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from uuid import UUID

import orjson
from rich.text import Text

from freeagentics_persistence.cache.updates.real_time_updates import ALL, AgentUpdate, RealTimeUpdates
from freeagentics_persistence.cli.terminal import console, note, say
from freeagentics_persistence.domain.beliefs.beliefs import Beliefs
from freeagentics_persistence.domain.beliefs.families import Family
from freeagentics_persistence.domain.identifiers import DEFAULT_TENANT_ID
from freeagentics_persistence.errors import EncryptionError, FeedGap
from freeagentics_persistence.persistence import Persistence
from freeagentics_persistence.settings import Settings

BUFFER = 10_000
SHOWN_VALUES = 6
_LINE = "{:<12}  {:<36}  {:<16}  {:>7}  {:>8}  {:>8}  {}"


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
    # who watches changes nothing
    looking = settings.model_copy(update={"database": settings.database.model_copy(update={"auto_migrate": False})})
    async with Persistence.open(looking, relay="off", progress=note, require_key=False) as store:
        tenant = tenant_id or DEFAULT_TENANT_ID
        await store.require_tenant(tenant)
        updates = store.tenant(tenant).updates
        show = _print_json if as_json else _print_line
        opener = Opener(wanted=beliefs)
        shown = 0
        async for update in _follow(updates, agents, after, _silence if as_json else _print_heading):
            show(await opener.open(update))
            shown += 1
            if shown == limit:
                return


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
