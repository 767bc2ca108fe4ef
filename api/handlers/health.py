"""`/healthz`: the process lives. `/readyz`: it can serve, or the reasons why it cannot. `/version`: which one it is.

They need no key, so each costs little, at any rate of calls. `/healthz` needs no thread either: it answers while all of
them wait for a server that is silent, and the process is not restarted for it.
"""

from functools import cache, partial
from importlib.metadata import version as release_of

from api.call import Call, Reply
from api.deps import WebDeps
from api.handlers.operation import Operation
from api.handlers.submitting import reply_of
from api.schemas.health import Health, Readiness, Version


def health(_web: WebDeps, _call: Call) -> Reply:
    """The process answers."""
    return reply_of(Health())


def version(_web: WebDeps, _call: Call) -> Reply:
    """The release that answers."""
    return reply_of(_version())


@cache
def _version() -> Version:
    """Looked up once: the lookup reads files."""
    return Version(version=release_of("headrace"))


def readiness(web: WebDeps, _call: Call) -> Reply:
    """200 when every part answers, else 503."""
    failures, warnings = map(dict, web.readiness.report())
    if failures:
        return reply_of(Readiness(status="unavailable", failures=failures), 503)
    return reply_of(Readiness(status="ready", warnings=warnings))


_ALIVE = partial(Operation, tag="health", answer=Health, is_open=True, is_instant=True)
OPERATIONS = (
    _ALIVE("get", "/healthz", health, summary="Is the process alive?"),
    _ALIVE("get", "/health", health, summary="Is the process alive? By vLLM's path"),
    _ALIVE("get", "/ping", health, summary="Is the process alive? By SageMaker's path"),
    _ALIVE("post", "/ping", health, summary="Is the process alive? By SageMaker's path"),
    Operation("get", "/version", version, "health", "Which release answers?", Version, is_open=True),
    Operation("get", "/readyz", readiness, "health", "Can it serve?", Readiness, is_open=True),
)
