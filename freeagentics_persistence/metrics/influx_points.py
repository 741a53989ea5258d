"""Events as points in InfluxDB's line protocol, with times in microseconds."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from freeagentics_persistence.domain.beliefs.beliefs import Beliefs
from freeagentics_persistence.domain.beliefs.families import Family
from freeagentics_persistence.domain.events import Event, EventType
from freeagentics_persistence.ports.metrics import AGENT_FIELDS, COALITION_FIELDS

BELIEF_EVENTS = frozenset({EventType.AGENT_SAVED, EventType.BELIEFS_UPDATED, EventType.BELIEFS_MEASURED})
COALITION_EVENTS = frozenset(kind for kind in EventType if kind.startswith("coalition."))
MAX_LINE_FIELDS = 1000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_UNSAFE = re.compile(r'[\s\x00-\x1f\x7f\\,="%]')


def event_lines(event: Event, beliefs: Beliefs | None = None) -> Iterator[str]:
    """The points of an event, none where it measures nothing. With ``beliefs`` also each of their probabilities.

    A point's time is when the event was recorded, which differs between one agent's events: an event that comes
    again gives the same point.
    """
    if event.type in BELIEF_EVENTS:
        yield from _agent_lines(event, beliefs)
    elif event.type in COALITION_EVENTS and event.data is not None and "revenue" in event.data:
        fields = _known({name: event.data.get(name) for name in COALITION_FIELDS})
        if "member_count" in fields:
            fields["member_count"] = f"{int(event.data['member_count'])}i"
        pairs = [f"{name}={value}" for name, value in fields.items()]
        yield from _lines("coalition_performance", "coalition_id", event, pairs)


def _agent_lines(event: Event, beliefs: Beliefs | None) -> Iterator[str]:
    values = (event.free_energy, event.entropy, event.max_belief, event.variance)
    fields = [
        f"{name}={value!r}"
        for name, value in zip(AGENT_FIELDS, values, strict=True)
        if value is not None and math.isfinite(value)
    ]
    if not fields and event.type == EventType.AGENT_SAVED:
        return
    fields.append(f"version={event.version}i")
    if beliefs is not None:
        fields += [f"{name}={value}" for name, value in _known(dict(belief_fields(beliefs))).items()]
    yield from _lines("agent_beliefs", "agent_id", event, fields)


def belief_fields(beliefs: Beliefs) -> Iterator[tuple[str, float]]:
    """Name and value of every number of the categorical factors, in C order.

    ``belief_0``, ``belief_1`` ... of the only categorical factor; ``belief_{factor}_0`` ... where there are several,
    with spaces, quotes, commas, equals signs, percent signs and backslashes of the factor's name percent-encoded.
    """
    factors = [factor for factor in beliefs if factor.family is Family.CATEGORICAL]
    for factor in factors:
        prefix = "belief_" if len(factors) == 1 else f"belief_{_UNSAFE.sub(_encoded, factor.name)}_"
        for i, value in enumerate(factor.values.ravel().tolist()):
            yield f"{prefix}{i}", value


def _encoded(match: re.Match[str]) -> str:
    return quote(match[0], safe="")


def _known(values: Mapping[str, float | None]) -> dict[str, str]:
    """What line protocol can hold: it has neither null nor infinity."""
    return {
        name: repr(float(value)) for name, value in values.items() if value is not None and math.isfinite(float(value))
    }


def _lines(measurement: str, tag: str, event: Event, fields: Sequence[str]) -> Iterator[str]:
    """One point; the server joins the lines of one that has very many fields."""
    key = f"{measurement},{tag}={event.subject},tenant_id={event.tenant}"
    moment = (event.recorded_at - _EPOCH) // _MICROSECOND
    for first in range(0, len(fields), MAX_LINE_FIELDS):
        yield f"{key} {','.join(fields[first : first + MAX_LINE_FIELDS])} {moment}"
