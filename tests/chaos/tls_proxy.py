"""A proxy at which TLS ends, for servers that are built without it. What comes without TLS passes as it is.

A Sentinel tells clients the address by which it reaches a server itself, without TLS: one port must take both.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import cast

from headrace.stack.ports import LOOPBACK
from tests.chaos.certificates import Certificates
from tests.chaos.proxy import CHUNK_BYTES, Proxy

#: The first byte of a TLS handshake. No command of Redis begins with it.
_HANDSHAKE = b"\x16"


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
        return _Listener(self.port, self._begin)

    def _begin(self, client: socket.socket) -> None:
        task = self._loop.create_task(self._pass(client))
        # Those that run are ended, and waited for, with the proxy.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: client.close())

    async def _pass(self, client: socket.socket) -> None:
        try:
            is_tls = client.recv(1, socket.MSG_PEEK) == _HANDSHAKE
            transport, _ = await self._loop.connect_accepted_socket(_Silent, client)
        except OSError:  # The client is gone.
            return
        try:
            reader = asyncio.StreamReader(CHUNK_BYTES)
            protocol = asyncio.StreamReaderProtocol(reader)
            upper: asyncio.BaseTransport | None = transport
            if is_tls:
                upper = await self._loop.start_tls(transport, protocol, self._tls, server_side=True)
            else:
                self.plain += 1
                transport.set_protocol(protocol)
                cast(asyncio.Transport, transport).resume_reading()
            protocol.connection_made(upper)
            await self._serve(reader, asyncio.StreamWriter(upper, protocol, reader, self._loop))
        except OSError:  # The client refuses the certificate.
            pass
        finally:
            # A transport with TLS that was closed by both sides leaves this one open for half a minute.
            transport.abort()


class _Silent(asyncio.Protocol):
    """Reads nothing: a first piece that was read could not become TLS any more."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).pause_reading()


class _Listener:
    """Waits until a connection's first byte can be seen. Used as `asyncio.Server`, in the loop's thread."""

    def __init__(self, port: int, begin: Callable[[socket.socket], None]) -> None:
        self._begin = begin
        self._loop = asyncio.get_running_loop()
        self._waiting: set[socket.socket] = set()
        self.sockets = [socket.create_server((LOOPBACK, port))]
        self.sockets[0].setblocking(False)
        self._loop.add_reader(self.sockets[0], self._accept)

    def close(self) -> None:
        """Take no more."""
        for each in (*self.sockets, *self._waiting):
            self._loop.remove_reader(each)
            each.close()
        self._waiting.clear()

    def _accept(self) -> None:
        client, _ = self.sockets[0].accept()
        client.setblocking(False)
        self._waiting.add(client)
        self._loop.add_reader(client, self._look, client)

    def _look(self, client: socket.socket) -> None:
        self._loop.remove_reader(client)
        self._waiting.discard(client)
        self._begin(client)
