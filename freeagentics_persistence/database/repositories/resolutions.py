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


async def require_resolution(context: TenantContext, location: str) -> None:
    """Raise InvalidInput where all agents that have a place are in cells of other resolutions."""
    spans = [resolution_span(resolution) for resolution in range(16)]
    lows, highs = [low for low, _ in spans], [high for _, high in spans]
    async with context.database.read(context.tenant_id) as connection:
        driver = await driver_of(connection)
        rows = await driver.fetch(RESOLUTIONS, context.tenant_id, list(range(16)), lows, highs)
    known, own = [row[0] for row in rows], resolution_of(location)
    if known and own not in known:
        raise InvalidInput(
            "location",
            f"{location} has resolution {own}, and agents are in cells of {', '.join(map(str, known))} alone",
            "Only cells of one resolution have a distance: pass a cell of theirs, made with h3.latlng_to_cell().",
        )
