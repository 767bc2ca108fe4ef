"""A port that is kept for a server that would share it."""

import socket

from headrace.stack.ports import LOOPBACK, free_port, hold, is_free


def listen_with_reuseport(port: int) -> socket.socket:
    """As granian does."""
    server = socket.socket()
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        server.setsockopt(socket.SOL_SOCKET, option, 1)
    server.bind((LOOPBACK, port))
    server.listen()
    return server


def test_held_port_is_taken_for_all_but_the_server_it_is_held_for() -> None:
    port = free_port()
    held = hold(port)
    assert held is not None

    assert not is_free(port)
    assert hold(port) is None
    with listen_with_reuseport(port):
        assert hold(port) is None
        with socket.create_connection((LOOPBACK, port), timeout=5):
            pass
    held.close()


def test_released_port_is_free_again() -> None:
    port = free_port()
    held = hold(port)
    assert held is not None

    held.close()

    assert is_free(port)
