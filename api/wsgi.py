"""The entry point of the WSGI server: makes `app`, sets up its logs, and ends its open waits on a signal to stop."""

import signal
import socket
import sys
import threading
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

from flask import Flask

from api.app import create_app
from api.deps import EXTENSION
from api.reading.probes import probe_clients
from headrace import heap, startup
from headrace.config import Settings
from headrace.endpoint import Endpoint
from headrace.logging import configure

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

#: How often a thread that waits for the GIL requests it, in seconds. Hundreds of such threads make each request costly.
#: Python's default is 5 ms; few calls here hold the GIL that long.
SWITCH_S = 0.02
#: New objects after which Python looks for garbage in cycles; its default is 700. A request makes few cycles.
GC_THRESHOLD = 20_000


def _end_waits_on_signal(app: Flask) -> None:
    """Answer every open wait at once on a signal to stop: otherwise the server would stop a minute later.

    The server replaces signal handlers after it has loaded the app, so a handler set here would never run. The wakeup
    descriptor gets the number of every signal, whatever its handler.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)

    def watch() -> None:
        while reader.recv(1)[0] not in (signal.SIGTERM, signal.SIGINT):
            pass
        app.extensions[EXTENSION].waits.close()

    threading.Thread(target=watch, name="signals", daemon=True).start()


def _serve_metrics(app: Flask, settings: Settings) -> None:
    """Serve this process's metrics beside the API, on a port of their own. Raises: ConfigError."""
    Endpoint([app.extensions[EXTENSION].metrics], settings.metrics_host, settings.metrics_port).start()


def _probing(app: "WSGIApplication") -> "WSGIApplication":
    """Have the kernel probe clients from the first request on: the server makes its socket after it has loaded the app.

    Not in a hook of Flask's, since Flask may never see a request.
    """
    probe = cache(probe_clients)

    def call(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        probe()
        return app(environ, start_response)

    return call


@cache
def _app() -> Flask:
    """The web process's app, made after its servers passed their checks."""
    sys.setswitchinterval(SWITCH_S)
    configure()
    settings = startup.load()
    startup.check(settings)
    with startup.explained():
        app = create_app(settings)
        _serve_metrics(app, settings)
    heap.settle(GC_THRESHOLD)
    app.wsgi_app = _probing(app.wsgi_app)  # type: ignore[assignment, method-assign]
    if threading.current_thread() is threading.main_thread():
        _end_waits_on_signal(app)
    return app


def __getattr__(name: str) -> Flask:
    """Make `app` when the server looks for it, so that an import alone makes nothing."""
    if name == "app":
        return _app()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
