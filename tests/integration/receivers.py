"""Receivers of webhooks on loopback: one that accepts, and two that never do."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class GoodReceiver(ThreadingHTTPServer):
    """Accepts everything, and notes the event and when it came."""

    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Accept)
        self.came: dict[str, float] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"


class _Accept(BaseHTTPRequestHandler):
    server: GoodReceiver

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.came.setdefault(self.headers["webhook-id"], time.time())
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


@contextmanager
def good() -> Iterator[GoodReceiver]:
    """Serves one."""
    server = GoodReceiver()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class BadReceiver:
    """Lets everything connect, and treats each connection as told, in a thread of its own."""

    def __init__(self, treat: Callable[["BadReceiver", socket.socket], None]) -> None:
        self._treat = treat
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.stopping = threading.Event()
        self.came: list[float] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/hook"

    def close(self) -> None:
        self.stopping.set()
        # A close alone would not wake the thread that accepts.
        self._listener.shutdown(socket.SHUT_RDWR)
        for each in self._threads:
            each.join()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.came.append(time.time())
                self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
                self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            self._treat(self, connection)


def _drip(receiver: BadReceiver, connection: socket.socket) -> None:
    """A byte of an endless header each tenth of a second."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Drip: ")
    while not receiver.stopping.wait(0.1):
        connection.sendall(b"a")


def _hang(receiver: BadReceiver, connection: socket.socket) -> None:
    receiver.stopping.wait()


@contextmanager
def dripping() -> Iterator[BadReceiver]:
    """One whose answer never ends: each read brings something."""
    yield from _closed(BadReceiver(_drip))


@contextmanager
def hanging() -> Iterator[BadReceiver]:
    """One that never answers."""
    yield from _closed(BadReceiver(_hang))


def _closed(receiver: BadReceiver) -> Iterator[BadReceiver]:
    try:
        yield receiver
    finally:
        receiver.close()
