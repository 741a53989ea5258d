"""What was found, opened: payloads row by row, single beliefs, and batches."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import numpy as np

from freeagentics_persistence.database.context import TenantContext
from freeagentics_persistence.domain.beliefs.batch import BeliefBatch
from freeagentics_persistence.domain.beliefs.beliefs import Beliefs
from freeagentics_persistence.errors import EnvelopeRejected, PersistenceError
from freeagentics_persistence.ports.cache import CacheEntry
from freeagentics_persistence.ports.sealing import Kind, require_opened

Found = CacheEntry | PersistenceError | None
Payload = bytes | PersistenceError | None


async def open_entries(context: TenantContext, found: Sequence[Found]) -> list[Payload]:
    """The belief payload of each entry; in its place what was found instead of one, or why it does not open.

    Versions that are shown count as seen by this store.
    """
    whole = [entry for entry in found if isinstance(entry, CacheEntry)]
    opened = await open_columns(context, *zip(*whole, strict=True)) if whole else []
    if len(whole) == len(found):
        return opened
    rest = iter(opened)
    return [next(rest) if isinstance(entry, CacheEntry) else entry for entry in found]


async def open_columns(
    context: TenantContext,
    ids: Sequence[UUID],
    versions: Sequence[int],
    revisions: Sequence[UUID],
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


def batch_of(ids: Sequence[UUID], found: Sequence[Found], payloads: Sequence[Payload]) -> BeliefBatch:
    """The batch of what was found for each of ``ids``. Raises the first error that stands in the place of beliefs."""
    batch = BeliefBatch.from_payloads([require_opened(payload) for payload in payloads])
    entries = [entry if isinstance(entry, CacheEntry) else None for entry in found]
    batch.ids = tuple(ids)
    batch.versions = np.array([0 if entry is None else entry.version for entry in entries], dtype=np.int64)
    batch.revisions = [None if entry is None else entry.revision for entry in entries]
    return batch
