"""What was measured, where and when: what a reader of the figures has to know."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.place import Place

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    *("freeagentics-persistence", "asyncpg", "sqlalchemy", "redis", "hiredis", "numpy", "cryptography"),
    *("influxdb-client", "langgraph-checkpoint-postgres", "psycopg"),
)


async def facts(place: Place, plan: str) -> dict[str, str]:
    """By title, in the order in which they are shown."""
    server = await place.server.facts()
    client = place.redis()
    try:
        cache = await client.info("server")
    finally:
        await client.aclose()
    settings = ", ".join(f"{name} {value}" for name, value in server.items() if name != "server_version")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "plan": plan,
        "commit": _commit(),
        "machine": f"{os.cpu_count()} CPUs ({_cpu()}), {_memory_gib():.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "packages": ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
        "PostgreSQL": f"{server['server_version']}: {settings}",
        "cache": f"{cache.get('server_name', 'redis')} {cache.get('valkey_version', cache.get('redis_version'))}",
    }


def _commit() -> str:
    """The checkout's commit, and whether files differ from it."""
    ask = ["git", "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
    try:
        found = subprocess.run(ask, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return found.stdout.strip() or "unknown"


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _memory_gib() -> float:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
