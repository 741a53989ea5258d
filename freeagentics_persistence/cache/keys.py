"""The names of keys and channels: colon notation, epoch and tenant in front, a hash tag for each agent.

Keys with the same part in braces live on the same node of a Redis Cluster. The epoch stands in keys by its first
8 hex digits, and in full in every position and message.
"""

from __future__ import annotations

from uuid import UUID

FEEDS = "fa:*:agent:updates:feed"  # every feed, of all epochs and tenants


class EpochKeys:
    """Keys that belong to no tenant."""

    def __init__(self, epoch: UUID) -> None:
        self.prefix = f"fa:{epoch.hex[:8]}:"
        self.cache_marker = f"{self.prefix}cache:position"
        self.feed_marker = f"{self.prefix}feed:position"
        self.gaps_channel = f"{self.prefix}feed:gaps"


class TenantKeys:
    """Keys and channels of one tenant."""

    def __init__(self, epoch: UUID, tenant_id: UUID) -> None:
        here = f"fa:{epoch.hex[:8]}:{tenant_id}:"
        self._beliefs = f"{here}agent:beliefs:{{"
        self._members = f"{here}coalition:members:{{"
        self.agent_channel_prefix = f"{here}agent:updates:"
        self.all_channel = f"{here}agent:updates:all"
        self.feed = f"fa:{epoch.hex[:8]}:{{{tenant_id}}}:agent:updates:feed"

    def beliefs(self, agent_id: UUID | str) -> str:
        """The cached beliefs of an agent."""
        return f"{self._beliefs}{agent_id}}}"

    def members(self, coalition_id: UUID) -> str:
        """The cached members of a coalition."""
        return f"{self._members}{coalition_id}}}"

    def agent_channel(self, agent_id: UUID) -> str:
        """The channel of an agent's updates."""
        return f"{self.agent_channel_prefix}{{{agent_id}}}"
