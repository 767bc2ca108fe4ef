"""The entry point of the WSGI server: makes `app`, after the servers passed their checks."""

from functools import cache

from flask import Flask

from headrace import heap, startup
from headrace.endpoint import Endpoint
from headrace.logging import configure
from ops.app import create_app
from ops.deps import EXTENSION

#: New objects after which Python looks for garbage in cycles; its default is 700. A request makes few cycles.
GC_THRESHOLD = 20_000


@cache
def _app() -> Flask:
    """The app. It takes no CPU of its own: a page now and then needs none."""
    configure()
    settings = startup.load()
    startup.check(settings)
    with startup.explained():
        app = create_app(settings)
        Endpoint([app.extensions[EXTENSION].metrics], settings.metrics_host, settings.metrics_port).start()
    heap.settle(GC_THRESHOLD)
    return app


def __getattr__(name: str) -> Flask:
    """Make `app` when the server looks for it, so that an import alone makes nothing."""
    if name == "app":
        return _app()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
