"""The checker on embedded servers of its own."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path

from freeagentics_persistence import Persistence, Settings
from freeagentics_persistence.embedded import EmbeddedServers
from freeagentics_persistence.encryption.key_providers import generate_key
from tests.consistency.checker import check_consistency
from tests.consistency.killer import Killer
from tests.support.redis_server import LocalRedis, valkey_program


async def main() -> int:
    """Run it, and print what was counted and what was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.consistency", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long the callers go on (%(default)s)")
    parser.add_argument("--processes", type=int, default=3, help="each with a store of its own (%(default)s)")
    parser.add_argument("--callers", type=int, default=150, help="in each process (%(default)s)")
    parser.add_argument("--agents", type=int, default=20, help="all of them hot (%(default)s)")
    parser.add_argument(
        "--kill",
        type=lambda text: text.split(","),
        default=[],
        metavar="FAULT,...",
        help=f"what goes wrong meanwhile: {', '.join(Killer.FAULTS)}",
    )
    given = vars(parser.parse_args())
    faults = given.pop("kill")
    if unknown := set(faults) - set(Killer.FAULTS):
        parser.error(f"--kill: unknown: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        key = generate_key()
        settings = Settings.load(env="embedded", data_folder=data, encryption={"key": key})
        environment = {**os.environ, "FREEAGENTICS_ENV": "embedded", "ENCRYPTION_KEY": key}
        environment["FREEAGENTICS_DATA_FOLDER"] = str(data)
        redis, killer = LocalRedis(valkey_program() or "valkey-server", Path(folder) / "redis"), None
        servers = EmbeddedServers(data)
        urls = await servers.start()
        try:
            if faults:
                async with Persistence.open(settings, relay="off"):
                    redis.start()  # once the database is set up
                database = {"url": urls.app_url, "migrator_url": urls.migrator_url, "relay_url": urls.relay_url}
                environment = {
                    **os.environ,
                    "FREEAGENTICS_ENV": "testing",
                    "REDIS_URL": redis.url,
                    "ENCRYPTION_KEY": key,
                }
                environment |= {f"DATABASE_{name.upper()}": url for name, url in database.items()}
                settings = Settings.load(
                    env="testing", database=database, redis={"url": redis.url}, encryption={"key": key}
                )
                killer = Killer(faults, environment, redis, urls.admin_url)
            verdict = await check_consistency(settings, environment, Path(folder), **given, killer=killer)
        finally:
            redis.stop()
            await servers.stop()
    for what, count in sorted(verdict.counts.items()):
        print(f"{count:>12,}  {what}")
    for fault in verdict.faults[:20]:
        print(f"FAULT  {fault}")
    print(f"{len(verdict.faults):>12,}  faults")
    return 1 if verdict.faults else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
