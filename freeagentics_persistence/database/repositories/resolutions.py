"""At which resolutions of H3 a tenant's agents are."""

from __future__ import annotations

from freeagentics_persistence.database.context import TenantContext
from freeagentics_persistence.database.engine import driver_of
from freeagentics_persistence.domain.locations import resolution_of, resolution_span
from freeagentics_persistence.errors import InvalidInput

# all cells of one resolution lie side by side
RESOLUTIONS = """
SELECT i.resolution FROM unnest($2::integer[], $3::bigint[], $4::bigint[]) AS i (resolution, low, high)
WHERE EXISTS (SELECT FROM agents WHERE tenant_id = $1 AND location_h3 >= i.low AND location_h3 < i.high)
ORDER BY i.resolution
"""


class Resolutions:
    """Refuses cells that no agent can be near to. A resolution that agents were met at is not asked for again."""

    def __init__(self, context: TenantContext) -> None:
        self._context = context
        self._met: set[int] = set()

    async def require(self, location: str) -> None:
        """Raise InvalidInput where all agents that have a place are in cells of other resolutions."""
        own = resolution_of(location)
        if own in self._met:
            return
        spans = [resolution_span(resolution) for resolution in range(16)]
        lows, highs = [low for low, _ in spans], [high for _, high in spans]
        async with self._context.database.read(self._context.tenant_id) as connection:
            driver = await driver_of(connection)
            rows = await driver.fetch(RESOLUTIONS, self._context.tenant_id, list(range(16)), lows, highs)
        known = [row[0] for row in rows]
        self._met.update(known)
        if known and own not in known:
            raise InvalidInput(
                "location",
                f"{location} has resolution {own}, and agents are in cells of {', '.join(map(str, known))} alone",
                "Only cells of one resolution have a distance: pass a cell of theirs, made with h3.latlng_to_cell().",
            )
