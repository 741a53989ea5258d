"""A proxy in front of PostgreSQL that cuts a connection in the middle of its next commit."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType
from urllib.parse import parse_qs, urlsplit

COMMIT = b"COMMIT;"


class CommitCutter:
    """``async with CommitCutter(url) as cutter``; connect by ``cutter.url``. ``cut_next`` arms it for one commit."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._parts = parts
        self._folder = Path(parse_qs(parts.query)["host"][0])
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._armed: bool | None = None
        self.cuts = 0

    @property
    def url(self) -> str:
        """The same login and database, by way of the proxy."""
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        login = f"{self._parts.username}:{self._parts.password}"
        return f"postgresql://{login}@127.0.0.1:{port}{self._parts.path}?sslmode=disable"

    def cut_next(self, *, committed: bool) -> None:
        """Cut the next commit: after PostgreSQL has done it and before it is confirmed, or before it arrives."""
        self._armed = committed

    async def __aenter__(self) -> CommitCutter:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        socket = next(self._folder.glob(".s.PGSQL.*[0-9]"))
        other_reader, other_writer = await asyncio.open_unix_connection(str(socket))
        back = asyncio.get_running_loop().create_task(_pump(other_reader, writer))
        self._tasks.add(back)
        try:
            while data := await reader.read(65536):
                if self._armed is not None and COMMIT in data:
                    await self._cut(data, other_writer, back)
                    break
                other_writer.write(data)
                await other_writer.drain()
        except ConnectionError:
            pass  # the other side has gone
        finally:
            back.cancel()
            other_writer.close()
            writer.close()

    async def _cut(self, data: bytes, server: asyncio.StreamWriter, back: asyncio.Task[None]) -> None:
        committed, self._armed = self._armed, None
        self.cuts += 1
        back.cancel()
        if committed:
            server.write(data)
            await server.drain()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass  # the other side has gone
    finally:
        writer.close()
