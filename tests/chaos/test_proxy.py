"""The proxy itself: what a client sees of each mode, before a server that repeats what it is sent."""

import asyncio
import gc
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from headrace.stack.ports import LOOPBACK
from tests.chaos.proxy import Mode, Proxy
from tests.waiting import until

DEADLINE_S = 5.0
#: For how long nothing comes where nothing may come.
SILENCE_S = 0.2
DELAY_S = 0.2


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with suppress(ConnectionError):
            while data := self.request.recv(65_536):
                self.server.heard += data
                self.request.sendall(data)


class Server(socketserver.ThreadingTCPServer):
    """Repeats; `heard`: all that it was ever sent."""

    daemon_threads = True
    heard = b""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server((LOOPBACK, 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.server_address[1], DELAY_S) as proxy:
        yield proxy


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection((LOOPBACK, proxy.port), timeout=DEADLINE_S)


def says(connection: socket.socket, word: bytes) -> bytes:
    connection.sendall(word)
    return connection.recv(100)


def is_silent(connection: socket.socket) -> bool:
    connection.settimeout(SILENCE_S)
    try:
        connection.recv(100)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(DEADLINE_S)
    return False


def is_reset(proxy: Proxy) -> bool:
    """Whether a new connection is, at its beginning or after it."""
    try:
        with connect(proxy) as connection:
            connection.recv(100)
    except ConnectionResetError:
        return True
    return False


def test_everything_passes_both_ways_and_an_end_is_an_end(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        assert says(connection, b"hello") == b"hello"
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b""


def test_much_passes_whole(proxy: Proxy) -> None:
    sent = bytes(range(256)) * 4096
    with connect(proxy) as connection, closing(connection.makefile("rb")) as replies:
        threading.Thread(target=connection.sendall, args=(sent,)).start()
        assert replies.read(len(sent)) == sent


def test_refused_there_is_nobody_and_open_connections_are_reset(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        assert says(connection, b"1") == b"1"
        proxy.turn(Mode.REFUSE)
        with pytest.raises(ConnectionResetError):
            connection.recv(100)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    proxy.turn(Mode.OK)
    with connect(proxy) as connection:
        assert says(connection, b"2") == b"2"


def test_a_connection_that_was_accepted_while_the_door_closes_is_reset_too(proxy: Proxy) -> None:
    connects = threading.Event()

    async def close_the_door_behind_it() -> None:
        connects.wait(DEADLINE_S)  # The loop stands still meanwhile.
        for _ in range(2):  # It accepts, and serves after this.
            await asyncio.sleep(0)
        await proxy._turn(Mode.REFUSE)

    turned = asyncio.run_coroutine_threadsafe(close_the_door_behind_it(), proxy._loop)
    with connect(proxy) as connection:
        connects.set()
        turned.result(DEADLINE_S)
        gc.collect()  # It would warn of a connection that was forgotten.
        with pytest.raises(ConnectionResetError):
            connection.recv(100)


def test_reset_connections_are_taken_and_end_at_once(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        assert says(connection, b"1") == b"1"
        proxy.turn(Mode.RESET)
        with pytest.raises(ConnectionResetError):
            connection.recv(100)
    assert is_reset(proxy)


def test_dropped_replies_never_come_though_what_was_asked_arrived(proxy: Proxy, server: Server) -> None:
    with connect(proxy) as connection:
        proxy.turn(Mode.DROP)
        connection.sendall(b"do it")
        until(lambda: any(link.has_lost for link in proxy._links), "a reply is dropped")
        assert is_silent(connection)
        assert server.heard == b"do it"
        proxy.turn(Mode.OK)
        with pytest.raises(ConnectionResetError):
            connection.recv(100)


def test_in_a_black_hole_nothing_passes_until_it_is_gone(proxy: Proxy, server: Server) -> None:
    with connect(proxy) as connection:
        assert says(connection, b"1") == b"1"
        proxy.turn(Mode.BLACKHOLE)
        connection.sendall(b"2")
        assert is_silent(connection)
        with connect(proxy) as late:
            late.sendall(b"3")
            assert is_silent(late)
            assert server.heard == b"1"
            proxy.turn(Mode.OK)
            assert (connection.recv(100), late.recv(100)) == (b"2", b"3")


def test_delayed_pieces_are_late_each_way(proxy: Proxy) -> None:
    proxy.turn(Mode.DELAY)
    with connect(proxy) as connection:
        began = time.monotonic()
        assert says(connection, b"1") == b"1"
        assert time.monotonic() - began >= 2 * DELAY_S


def test_a_server_that_is_away_is_a_reset() -> None:
    with socket.socket() as nobody:
        nobody.bind((LOOPBACK, 0))
        with Proxy(nobody.getsockname()[1]) as proxy:
            assert is_reset(proxy)
