"""What was found, opened: payloads row by row, single beliefs, and batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from freeagentics_persistence.database.context import TenantContext
from freeagentics_persistence.domain.beliefs.batch import BeliefBatch
from freeagentics_persistence.domain.beliefs.beliefs import Beliefs
from freeagentics_persistence.errors import EnvelopeRejected, PersistenceError
from freeagentics_persistence.ports.cache import StoredBeliefs
from freeagentics_persistence.ports.sealing import Kind, require_opened

Payload = bytes | PersistenceError | None
NOTHING = (b"", 0, b"", None)


def rows_by_id(ids: Sequence[UUID], rows: Iterable[Any]) -> StoredBeliefs:
    """Rows (id, version, revision, envelope) of PostgreSQL, ids and revisions as bytes, in the order of ``ids``."""
    by_id = {row[0]: row for row in rows}
    found = [by_id.get(agent_id.bytes, NOTHING) for agent_id in ids]
    return StoredBeliefs(ids, [row[1] for row in found], [row[2] for row in found], [row[3] for row in found])


async def open_stored(context: TenantContext, found: StoredBeliefs) -> list[Payload]:
    """The belief payload of each row; in its place why it was rejected or does not open, None where there is none."""
    payloads = await open_columns(context, found.ids, found.versions, found.revisions, found.envelopes)
    for row, error in found.rejected.items():
        payloads[row] = error
    return payloads


async def open_columns(
    context: TenantContext,
    ids: Sequence[UUID],
    versions: Sequence[int],
    revisions: Sequence[bytes],
    envelopes: Sequence[bytes | None],
) -> list[Payload]:
    """The belief payload of each envelope, or why it does not open. The versions count as seen by this store."""
    context.floors.saw_many(context.tenant_id, zip(ids, versions, strict=True))
    if not any(envelopes):  # no key is needed
        return list(envelopes)
    return list(await context.sealer.open_each(context.tenant_id, Kind.BELIEFS, ids, revisions, envelopes))


def beliefs_of(payload: Payload) -> Beliefs | PersistenceError | None:
    """The beliefs of a payload, or why there are none."""
    if not isinstance(payload, bytes):
        return payload
    try:
        return Beliefs.from_bytes(payload)
    except EnvelopeRejected as error:
        return error


def batch_of(found: StoredBeliefs, payloads: Sequence[Payload]) -> BeliefBatch:
    """The batch of what was found. Raises the first error that stands in the place of beliefs."""
    batch = BeliefBatch.from_payloads([require_opened(payload) for payload in payloads])
    batch.came_from(found.ids, found.versions, found.revisions)
    return batch
