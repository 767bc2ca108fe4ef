"""A proxy at which TLS ends, for servers that are built without it. What comes without TLS passes as it is.

A Sentinel tells clients the address by which it reaches a server itself, without TLS: one port must take both.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress

from headrace.stack.ports import LOOPBACK
from tests.chaos.certificates import Certificates
from tests.chaos.proxy import CHUNK_BYTES, Proxy

#: The first byte of a TLS handshake. No command of Redis begins with it.
_HANDSHAKE = b"\x16"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class TlsProxy(Proxy):
    """Such a proxy.

    Attributes:
        plain: how many connections came without TLS.
    """

    def __init__(self, server_port: int, certificates: Certificates) -> None:
        super().__init__(server_port)
        self.plain = 0
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(certificates.own)

    async def _open(self) -> "_Listener":
        return _Listener(self.port, self._tls, self._serve, self._count)

    def _count(self) -> None:
        self.plain += 1


class _Listener:
    """Looks at each connection's first byte before it is read. Used as `asyncio.Server`, in the loop's thread."""

    def __init__(self, port: int, tls: ssl.SSLContext, serve: Serve, note_plain: Callable[[], None]) -> None:
        self._tls, self._serve, self._note_plain = tls, serve, note_plain
        self._loop = asyncio.get_running_loop()
        self._silent: set[socket.socket] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.sockets = [socket.create_server((LOOPBACK, port))]
        self.sockets[0].setblocking(False)
        self._loop.add_reader(self.sockets[0], self._accept)

    def close(self) -> None:
        """Take no more."""
        for each in (*self.sockets, *self._silent):
            self._loop.remove_reader(each)
            each.close()
        self._silent.clear()

    def _accept(self) -> None:
        client, _ = self.sockets[0].accept()
        client.setblocking(False)
        self._silent.add(client)
        self._loop.add_reader(client, self._look, client)

    def _look(self, client: socket.socket) -> None:
        self._loop.remove_reader(client)
        self._silent.discard(client)
        task = self._loop.create_task(self._begin(client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _begin(self, client: socket.socket) -> None:
        protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader(CHUNK_BYTES), self._serve)
        # A client may end, or refuse the certificate, meanwhile.
        with suppress(OSError):
            tls = self._tls if client.recv(1, socket.MSG_PEEK) == _HANDSHAKE else None
            if tls is None:
                self._note_plain()
            await self._loop.connect_accepted_socket(lambda: protocol, client, ssl=tls)
