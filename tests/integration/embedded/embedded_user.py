"""A process that uses embedded servers: ``python embedded_user.py <data folder>``.

Prints a line of JSON with the URLs (or the error) once it has started, and leaves when its stdin ends.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from pathlib import Path

from freeagentics_persistence.embedded import EmbeddedServers
from freeagentics_persistence.errors import EmbeddedServerError


async def main() -> None:
    servers = EmbeddedServers(Path(sys.argv[1]))
    try:
        urls = await servers.start()
    except EmbeddedServerError as error:
        print(json.dumps({"error": type(error).__name__, "message": error.message}), flush=True)
        return
    print(json.dumps(dataclasses.asdict(urls)), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await servers.stop()


asyncio.run(main())
