"""`/healthz` (the process lives), `/readyz` (it can serve, or the reasons why it cannot) and `/version`.

They need no key, so each costs little, at any rate of calls. `/healthz` needs no thread either: it answers while all of
them wait for a server that is silent, and the process is not restarted for it.
"""

from functools import cache
from importlib.metadata import version as release_of

from flask import Blueprint, Response

from api.calls import parts
from api.routes.operations import describes
from api.routes.replies import reply_of
from api.schemas.reports import Health, Readiness, Version

ROUTES = Blueprint("health", __name__)


@ROUTES.get("/healthz")
@describes("health", "Is the process alive?", Health, is_open=True, is_instant=True)
def healthz() -> Response:
    """Says that the process answers."""
    return reply_of(Health())


@ROUTES.get("/health")
@describes("health", "Is the process alive? By vLLM's path", Health, is_open=True, is_instant=True)
def health() -> Response:
    """Says that the process answers."""
    return reply_of(Health())


@ROUTES.get("/ping")
@describes("health", "Is the process alive? By SageMaker's path", Health, is_open=True, is_instant=True)
def ping() -> Response:
    """Says that the process answers."""
    return reply_of(Health())


ROUTES.post("/ping", endpoint="post_ping")(ping)


@ROUTES.get("/version")
@describes("health", "Which release answers?", Version, is_open=True)
def version() -> Response:
    """Returns the release that answers."""
    return reply_of(_version())


@cache
def _version() -> Version:
    """Looked up once: the lookup reads files."""
    return Version(version=release_of("headrace"))


@ROUTES.get("/readyz")
@describes("health", "Can it serve?", Readiness, is_open=True)
def readiness() -> Response:
    """Replies with 200 when every part answers, else 503."""
    failures, warnings = map(dict, parts().readiness.report())
    if failures:
        return reply_of(Readiness(status="unavailable", failures=failures), 503)
    return reply_of(Readiness(status="ready", warnings=warnings))
