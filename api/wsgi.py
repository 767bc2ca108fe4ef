"""What a WSGI server serves: `app`, with its logs set up, and its open waits ended when the process must go."""

import signal
import socket
import sys
import threading
from functools import cache

from flask import Flask

from api.app import create_app
from api.deps import EXTENSION
from headrace import startup
from headrace.logging import configure

#: How often a thread that waits for the GIL looks up, which with hundreds of them adds up. Python's own is 5 ms; hardly
#: a call of ours holds the GIL for as long.
SWITCH_S = 0.02


def _end_waits_on_signal(app: Flask) -> None:
    """Answer every open wait at once when the server is told to stop, or it would stop a minute later.

    The server installs its own handlers after it has the app, so that none of ours would be called; the wakeup
    descriptor gets the number of every signal whichever handler it has.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)

    def watch() -> None:
        while reader.recv(1)[0] not in (signal.SIGTERM, signal.SIGINT):
            pass
        app.extensions[EXTENSION].waits.close()

    threading.Thread(target=watch, name="signals", daemon=True).start()


@cache
def _app() -> Flask:
    """The web process's app, once its servers let it in."""
    sys.setswitchinterval(SWITCH_S)
    configure()
    settings = startup.load()
    startup.check(settings)
    with startup.explained():
        app = create_app(settings)
    if threading.current_thread() is threading.main_thread():
        _end_waits_on_signal(app)
    return app


def __getattr__(name: str) -> Flask:
    """Make `app` when the server looks for it: an import makes nothing."""
    if name == "app":
        return _app()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
