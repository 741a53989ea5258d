"""A TCP proxy in front of a unix socket: connections through it can be silenced, cut, held and refused."""

from __future__ import annotations

import asyncio
from pathlib import Path


class Proxy:
    """``async with Proxy(socket) as proxy``; connect to ``proxy.port`` on 127.0.0.1."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._silenced: set[asyncio.StreamWriter] = set()
        self._refusing = False
        self._wanted: bytes | None = None
        self._released = asyncio.Event()
        self._held = asyncio.Event()
        self.port = 0
        self.accepted = 0

    @property
    def url(self) -> str:
        """The Redis URL of the proxy."""
        return f"redis://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        await self._server.wait_closed()

    def silence(self) -> None:
        """Pass nothing on over the present connections, and leave them open."""
        self._silenced |= self._writers

    def cut(self) -> None:
        """Close the present connections."""
        for writer in self._writers:
            writer.close()

    def refuse(self, refusing: bool) -> None:
        """Close new connections at once, or take them again."""
        self._refusing = refusing

    def hold(self, containing: bytes) -> None:
        """Hold back the next request with these bytes until ``release``."""
        self._wanted = containing

    async def holds(self) -> None:
        """Wait until a request is held back."""
        async with asyncio.timeout(20):
            await self._held.wait()

    def release(self) -> None:
        """Let what is held back go on."""
        self._released.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self._refusing:
            writer.close()
            return
        other_reader, other_writer = await asyncio.open_unix_connection(str(self._socket))
        self._writers |= {writer, other_writer}
        for source, target in ((reader, other_writer), (other_reader, writer)):
            pump = asyncio.get_running_loop().create_task(self._pump(source, target))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                if self._wanted is not None and self._wanted in data:
                    self._wanted = None
                    self._held.set()
                    await self._released.wait()
                if target not in self._silenced:
                    target.write(data)
                    await target.drain()
        except ConnectionError:
            pass  # the other side was cut
        finally:
            target.close()
            self._writers.discard(target)
