"""TCP keep-alive: the kernel probes clients that are silent, so that one that has vanished does not hold a wait.

A client whose cable is cut, or whose machine is gone, closes no connection. Its connection would look open until the
wait ends, which may be minutes. The probes also keep connections known to firewalls and NAT gateways, which forget
silent ones. A proxy's own time-out needs HTTP, and does not notice them.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

#: Seconds of silence before the first probe, seconds between two, and unanswered ones before the connection is closed:
#: a client that has vanished is noticed after a minute.
IDLE_S, INTERVAL_S, PROBES = 30, 10, 3
_OPEN_FILES = "/proc/self/fd"


def probe_clients() -> None:
    """Have the kernel probe all clients of this process: connections inherit it from the listener.

    Those that were accepted before get it too. Granian has no option for it. Where the process's open files cannot be
    listed, as on macOS, nothing happens.
    """
    with ExitStack() as copies:
        sockets = [copies.enter_context(each) for each in _tcp_sockets()]
        ports = {_port(each) for each in sockets if each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)}
        for each in sockets:
            if _port(each) in ports:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, IDLE_S)
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, INTERVAL_S)
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)


def _port(found: socket.socket) -> int:
    """Of this process's end."""
    return int(found.getsockname()[1])


def _tcp_sockets() -> Iterator[socket.socket]:
    """A copy of each TCP socket of this process; the caller closes it."""
    names = os.listdir(_OPEN_FILES) if os.path.isdir(_OPEN_FILES) else []
    for name in names:
        # Most files are no sockets, and one may be closed meanwhile.
        with suppress(OSError):
            copy = os.dup(int(name))
            try:
                found = socket.socket(fileno=copy)
            except OSError:
                os.close(copy)
                continue
            if found.family in (socket.AF_INET, socket.AF_INET6) and found.type == socket.SOCK_STREAM:
                yield found
            else:
                found.close()
