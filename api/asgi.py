"""The entry point of the server: makes `app`, sets up its logs, and ends its open waits on a signal to stop."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path

from api.app import WebServer, create_app
from api.health import WebProblems
from headrace import startup
from headrace.domain.fleet import ProcessKind
from headrace.heartbeat import Heartbeat
from headrace.logging import configure
from headrace.metrics import Endpoint

#: How often a thread that waits for the GIL requests it, in seconds. Each time it costs a request that computes.
#: Python's default is 5 ms; few calls here hold the GIL that long.
SWITCH_S = 0.02
#: New objects after which Python looks for garbage in cycles; its default is 700. A request makes few cycles.
GC_THRESHOLD = 20_000
#: TCP keep-alive: seconds of silence before the first probe, seconds between two, and unanswered ones before the
#: connection is closed. A client that vanishes without closing its connection is noticed after a minute. The kernel
#: does not probe while sent data is unacknowledged, as a stream's is: the user time-out, in milliseconds, closes that.
PROBES = {
    socket.TCP_KEEPIDLE: 30,
    socket.TCP_KEEPINTVL: 10,
    socket.TCP_KEEPCNT: 3,
    socket.TCP_USER_TIMEOUT: 60_000,
}


def _begin(server: WebServer) -> None:
    """What the server undoes, or has not made yet, when it loads the app. At the first request, on the event loop.

    The loop learns of signals by a descriptor of its own, so the server's handlers run as well. A thread closes the
    waits: the signal may come while the loop's thread holds a lock that this needs.
    """
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: threading.Thread(target=server.web.waits.close, name="signals").start())
    _probe_clients()


def _probe_clients() -> None:
    """Have the kernel probe silent clients, for which the server has no option. Connections inherit it.

    Those that were accepted before get it too. Where the open files cannot be listed, as on macOS, nothing happens.
    """
    with ExitStack() as copies:
        sockets = [copies.enter_context(each) for each in _tcp_sockets()]
        ports = {each.getsockname()[1] for each in sockets if each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)}
        for each in sockets:
            if each.getsockname()[1] in ports:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option, value in PROBES.items():
                    each.setsockopt(socket.IPPROTO_TCP, option, value)


def _tcp_sockets() -> Iterator[socket.socket]:
    """A copy of each TCP socket of this process; the caller closes it."""
    for path in Path("/proc/self/fd").glob("*"):
        # One may be closed meanwhile.
        with suppress(OSError):
            if path.readlink().name.startswith("socket:"):
                found = socket.socket(fileno=os.dup(int(path.name)))
                if found.family in (socket.AF_INET, socket.AF_INET6) and found.type == socket.SOCK_STREAM:
                    yield found
                else:
                    found.close()


@cache
def _app() -> WebServer:
    """The web process's app, made after its servers passed their checks."""
    sys.setswitchinterval(SWITCH_S)
    configure()
    settings = startup.load()
    startup.check(settings)
    with startup.explained():
        server = create_app(settings, lambda: _begin(server))
        # Beside the API, on a port of their own.
        Endpoint([server.web.metrics], settings.metrics_host, settings.metrics_port).start()
    problems = WebProblems(server.web.metrics, server.web.waits)
    Heartbeat(ProcessKind.WEB, settings, problems=problems).start()
    startup.settle_heap(GC_THRESHOLD)
    return server


def __getattr__(name: str) -> WebServer:
    """Make `app` when the server looks for it, so that an import alone makes nothing."""
    if name == "app":
        return _app()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
