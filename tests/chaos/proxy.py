"""A TCP proxy that does to connections what networks do: refuse, reset, lose, stall, delay. Knows no protocol."""

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from enum import StrEnum
from typing import Any, Self

from headrace.stack.ports import LOOPBACK

#: Lingering for no time: closing sends a reset.
_RESET = struct.pack("ii", 1, 0)
CHUNK_BYTES = 65_536
#: The port was free a moment ago; another process may have it now.
_LISTEN_FOR_S = 5.0


class Mode(StrEnum):
    """What happens to connections.

    `REFUSE`: nothing listens, and open connections are reset. `RESET`: they are taken and reset at once, and all that
    are open. `DROP`: what is sent arrives, and no reply comes back; whatever has lost one is reset when the mode ends.
    `BLACKHOLE`: they are taken and nothing passes, either way, until the mode ends: then all of it does. `DELAY`: each
    piece is late.
    """

    OK = "ok"
    REFUSE = "refuse"
    RESET = "reset"
    DROP = "drop"
    BLACKHOLE = "blackhole"
    DELAY = "delay"


class _Link:
    """One client's connection and its counterpart to the server."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.writers = [client]
        self.has_lost = False

    def reset(self) -> None:
        """End both with a reset."""
        for writer in self.writers:
            # Once it is closed, a transport with TLS has no socket to ask.
            with suppress(OSError, AttributeError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()


class Proxy:
    """Stands before a server on loopback for the length of a `with` block, in a thread of its own.

    Attributes:
        port: where it listens.
        mode: what it does now.
        delay_s: how late each piece is in the mode `DELAY`.
    """

    def __init__(self, server_port: int, delay_s: float = 0.1) -> None:
        self._server_port = server_port
        self.delay_s = delay_s
        self.port = 0
        self.mode = Mode.OK
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._listener: Any = None
        self._links: set[_Link] = set()
        self._passes = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._turn(Mode.OK))
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def turn(self, mode: Mode) -> None:
        """Do this from now on; it is in force when this returns."""
        self._do(self._turn(mode))

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _turn(self, mode: Mode) -> None:
        self.mode = mode
        for link in list(self._links):
            if mode in (Mode.REFUSE, Mode.RESET) or (link.has_lost and mode is not Mode.DROP):
                link.reset()
        if mode is Mode.BLACKHOLE:
            self._passes.clear()
        else:
            self._passes.set()
        if mode is Mode.REFUSE:
            await self._stop_listening()
        elif self._listener is None:
            await self._listen()

    async def _listen(self) -> None:
        until = self._loop.time() + _LISTEN_FOR_S
        while self._listener is None:
            try:
                self._listener = await self._open()
            except OSError:
                if self._loop.time() > until:
                    raise
                # A poll with a deadline: the kernel does not say when a port becomes free.
                await asyncio.sleep(0.05)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def _open(self) -> Any:
        """What accepts connections. Raises: OSError: the port is taken."""
        return await asyncio.start_server(self._serve, LOOPBACK, self.port, limit=CHUNK_BYTES)

    async def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is None:
            return
        for each in listener.sockets:
            self._loop.remove_reader(each)
        # What was accepted begins now: asyncio loses a connection whose server closes before that.
        await asyncio.sleep(0)
        listener.close()

    async def _close(self) -> None:
        await self._stop_listening()
        for link in list(self._links):
            link.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        link = _Link(writer)
        self._links.add(link)
        try:
            await self._join(link, reader)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            link.reset()
            self._links.discard(link)
            self._tasks.discard(task)

    async def _join(self, link: _Link, reader: asyncio.StreamReader) -> None:
        """Pass bytes both ways until one side is over. Raises: OSError."""
        if self.mode in (Mode.REFUSE, Mode.RESET):
            return
        await self._passes.wait()
        server_reader, server = await asyncio.open_connection(LOOPBACK, self._server_port, limit=CHUNK_BYTES)
        client = link.writers[0]
        link.writers.append(server)
        pumps = [
            asyncio.ensure_future(self._pump(link, reader, server, is_reply=False)),
            asyncio.ensure_future(self._pump(link, server_reader, client, is_reply=True)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            # A clean end of one side is a clean end for the other.
            if all(pump.done() is False or pump.exception() is None for pump in pumps):
                for writer in link.writers:
                    writer.close()
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_reply: bool
    ) -> None:
        while data := await reader.read(CHUNK_BYTES):
            if self.mode is Mode.DELAY:
                # No wait for anything: the delay is the fault that this mode injects.
                await asyncio.sleep(self.delay_s)
            if is_reply and self.mode is Mode.DROP:
                link.has_lost = True
                continue
            await self._passes.wait()
            writer.write(data)
            await writer.drain()
