"""redis-benchmark (or valkey-benchmark): GET of keys as large as the store's cached entries."""

from __future__ import annotations

import asyncio
import csv
import os
import shutil
from urllib.parse import unquote, urlsplit

from benchmarks.place import Place
from benchmarks.row import CannotRunError
from benchmarks.timing import Sample

PROGRAMS = ("valkey-benchmark", "redis-benchmark")
CALIBRATION = 20_000
CHUNK = 1000
USER = "benchmark"  # has no password, as the program takes one from its arguments alone, where others could read it


def find_program() -> str:
    """The program on the PATH. Raises CannotRunError."""
    for name in PROGRAMS:
        found = shutil.which(name)
        if found:
            return found
    raise CannotRunError("neither valkey-benchmark nor redis-benchmark is on the PATH: install Debian's redis-tools.")


class RedisBenchmark:
    """GET by 32 clients, each with so many requests on their way, of uniformly chosen keys of the embedded server."""

    def __init__(self, place: Place, keys: int, size: int, pipelined: int, clients: int = 32) -> None:
        self._program = find_program()
        self.name = f"redis-benchmark GET -c{clients} -P{pipelined}"
        self._place, self._keys, self._size = place, keys, size
        self._pipelined, self._clients = pipelined, clients

    async def fill(self) -> None:
        """Set the keys it asks for, and make the user that may read them."""
        client = self._place.redis()
        try:
            rules = ("on", "nopass", "~key:*", "+get", "+config|get", "+@connection")
            await client.execute_command("ACL", "SETUSER", USER, *rules)  # type: ignore[no-untyped-call]
            for first in range(0, self._keys, CHUNK):
                numbers = range(first, min(first + CHUNK, self._keys))
                await client.mset({f"key:{n:012d}": os.urandom(self._size) for n in numbers})
        finally:
            await client.aclose()

    async def empty(self) -> None:
        """Remove the keys and the user."""
        client = self._place.redis()
        try:
            await client.execute_command("ACL", "DELUSER", USER)  # type: ignore[no-untyped-call]
            for first in range(0, self._keys, CHUNK):
                await client.unlink(*(f"key:{n:012d}" for n in range(first, min(first + CHUNK, self._keys))))
        finally:
            await client.aclose()

    async def run(self, seconds: float) -> Sample:
        """Requests per second, as the program says; how many fit the time is found first."""
        rate = await self._ask(CALIBRATION)
        return Sample(await self._ask(max(CALIBRATION, int(rate * seconds))))

    async def _ask(self, requests: int) -> float:
        parts = urlsplit(self._place.urls.redis_url)
        options = [
            "-s",
            unquote(parts.path),
            "--user",
            USER,
            "-a",
            "none",
            "-c",
            str(self._clients),
            "-P",
            str(self._pipelined),
        ]
        options += ["-n", str(requests), "-r", str(self._keys), "--csv", "-t", "get"]
        process = await asyncio.create_subprocess_exec(
            self._program,
            *options,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate()
        rows = list(csv.DictReader(output.decode().splitlines()))
        if process.returncode or not rows:
            raise RuntimeError(f"{self._program} failed: {output.decode()[-1000:]} {errors.decode()[-1000:]}")
        return float(rows[0]["rps"])
