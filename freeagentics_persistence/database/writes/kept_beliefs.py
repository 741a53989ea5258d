"""The beliefs that history keeps of agents whose policy is by divergence, as far as this process wrote them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from uuid import UUID

import numpy as np
import numpy.typing as npt

from freeagentics_persistence.domain.beliefs.batch import BeliefBatch, Rows
from freeagentics_persistence.domain.beliefs.divergences import distances

_OVERHEAD = 300  # bytes of an entry beside its payload
Versions = npt.NDArray[np.int64]
Comparison = tuple[list[float | None] | None, list[int | None] | None]


class KeptBeliefs:
    """Belief payloads by agent, those used last, bounded by bytes; shared by all tenants of a store."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[tuple[UUID, UUID], tuple[int, bytes]] = OrderedDict()  # version and payload

    def __len__(self) -> int:
        return len(self._entries)

    def compare(self, tenant_id: UUID, ids: Sequence[UUID], payloads: Sequence[memoryview]) -> Comparison:
        """How far each row is from what is remembered, in nats, and the version of that; (None, None) if nothing is."""
        if not self._entries:
            return None, None
        keys = [(tenant_id, agent_id) for agent_id in ids]
        places = [i for i, key in enumerate(keys) if key in self._entries]
        if not places:
            return None, None
        for i in places:
            self._entries.move_to_end(keys[i])
        entries = [self._entries[keys[i]] for i in places]
        new = BeliefBatch.from_payloads([bytes(payloads[i]) for i in places])
        far = distances(new, BeliefBatch.from_payloads([payload for _, payload in entries])).tolist()
        divergences: list[float | None] = [None] * len(ids)
        versions: list[int | None] = [None] * len(ids)
        for i, value, (version, _) in zip(places, far, entries, strict=True):
            divergences[i], versions[i] = value, version
        return divergences, versions

    def learn(
        self,
        tenant_id: UUID,
        ids: Sequence[UUID],
        versions: Versions,
        kept: Versions,
        payloads_of: Callable[[Rows], Sequence[memoryview]],
    ) -> None:
        """Remember those rows of a write whose own version history keeps, of agents with a policy by divergence.

        ``versions`` (N,) were written, 0 where a row was not; ``kept`` (N,) are in history, 0 where the agent has no
        such policy, which is then forgotten. ``payloads_of`` gives the payloads of chosen rows.
        """
        for i in np.flatnonzero(kept == 0).tolist():
            self._forget((tenant_id, ids[i]))
        places = np.flatnonzero((kept > 0) & (kept == versions))
        if not places.size:
            return
        for i, payload in zip(places.tolist(), payloads_of(places), strict=True):
            key, version = (tenant_id, ids[i]), int(versions[i])
            if key in self._entries and self._entries[key][0] > version:
                continue  # another write of this process was later
            self._forget(key)
            self._entries[key] = version, bytes(payload)
            self._bytes += len(payload) + _OVERHEAD
        while self._bytes > self._max_bytes:
            self._forget(next(iter(self._entries)))

    def _forget(self, key: tuple[UUID, UUID]) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= len(entry[1]) + _OVERHEAD
