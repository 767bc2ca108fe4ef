"""Chooses TCP ports on loopback. Knows nothing of the processes that listen there."""

import socket
from collections.abc import Callable, Collection

LOOPBACK = "127.0.0.1"
#: Ports to try from the preferred one on, before any free port is taken.
TRIES = 50


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """True when nothing listens on this port now."""
    with socket.socket() as probe:
        # An earlier run's connections in TIME_WAIT must not make the port count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def hold(port: int, host: str = LOOPBACK) -> socket.socket | None:
    """Keep a port for a server that sets SO_REUSEPORT, until the socket is closed; None when it is taken.

    Such a server, granian for one, shares its port with every other that sets SO_REUSEPORT: two of them would both
    start and divide the requests. While the port is held, `is_free` and `hold` find it taken, but the server can bind.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        held.bind((host, port))
    except OSError:
        held.close()
        return None
    # From here on, only a server that sets SO_REUSEPORT can bind the port too.
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return held


def free_port() -> int:
    """A free port that the kernel picks."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
    return port


def pick(
    preferred: int,
    taken: Collection[int] = (),
    *,
    is_free: Callable[[int], bool] = is_free,
    any_port: Callable[[], int] = free_port,
) -> int:
    """The preferred port, else the next free one after it, else any.

    Args:
        taken: ports promised to processes that do not listen yet.
    """
    for port in range(preferred, min(preferred + TRIES, 65_536)):
        if port not in taken and is_free(port):
            return port
    return any_port()
