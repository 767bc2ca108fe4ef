"""`/healthz`: the process lives. `/readyz`: it can serve, or the reasons why it cannot. `/version`: which one it is.

They need no key, so each costs little, at any rate of calls.
"""

from functools import cache
from importlib.metadata import version as release_of

from flask import Blueprint, Response

from api.deps import answer, deps
from api.schemas.health import Health, Readiness, Version

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def healthz() -> Response:
    """The process answers."""
    return answer(Health())


@blueprint.get("/health")
@blueprint.route("/ping", methods=["GET", "POST"])
def health() -> Response:
    """The same, by the paths of vLLM's own server and of SageMaker."""
    return answer(Health())


@blueprint.get("/version")
def version() -> Response:
    """The release that answers."""
    return answer(_version())


@cache
def _version() -> Version:
    """Looked up once: the lookup reads files."""
    return Version(version=release_of("headrace"))


@blueprint.get("/readyz")
def readyz() -> Response:
    """200 when every part answers, else 503."""
    failures, warnings = map(dict, deps().readiness.report())
    if failures:
        return answer(Readiness(status="unavailable", failures=failures), 503)
    return answer(Readiness(status="ready", warnings=warnings))
