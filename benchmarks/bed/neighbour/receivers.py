"""Receivers of webhooks: one that answers at once and notes when, and one that drips its answer's header for ever."""

import json
import socket
import threading
import time
from contextlib import AbstractContextManager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

LOOPBACK = "127.0.0.1"
#: Seconds between two bytes of the header.
DRIP_S = 0.5


class GoodReceiver(AbstractContextManager["GoodReceiver"]):
    """Accepts every webhook.

    Attributes:
        received_at: when the first webhook of each job came, on the machine's clock, by the job's id.
    """

    def __init__(self) -> None:
        self.received_at: dict[str, float] = {}
        received_at = self.received_at

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                event = json.loads(self.rfile.read(int(self.headers["content-length"])))
                received_at.setdefault(event["data"]["id"].rpartition("_")[2], time.time())
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://{LOOPBACK}:{self._server.server_port}/webhook"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class DrippingReceiver(AbstractContextManager["DrippingReceiver"]):
    """Takes every connection and sends a byte of a header now and then, as long as its sender listens.

    Attributes:
        connections: that it has taken.
    """

    def __init__(self) -> None:
        self.connections = 0
        self._socket = socket.create_server((LOOPBACK, 0), backlog=512)
        self._open: list[socket.socket] = []
        self._stop = threading.Event()
        self.url = f"http://{LOOPBACK}:{self._socket.getsockname()[1]}/webhook"

    def __enter__(self) -> Self:
        for step in (self._accept, self._drip):
            threading.Thread(target=step, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._socket.close()
        for connection in self._open:
            connection.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while not self._stop.is_set():
                connection, _ = self._socket.accept()
                connection.setblocking(False)
                connection.send(b"HTTP/1.1 200 OK\r\nx-drip: ")
                self.connections += 1
                self._open.append(connection)

    def _drip(self) -> None:
        while not self._stop.wait(DRIP_S):
            for connection in list(self._open):
                try:
                    connection.send(b"x")
                except OSError:
                    self._open.remove(connection)
                    connection.close()
