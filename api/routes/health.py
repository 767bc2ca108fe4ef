"""`/healthz`: the process lives. `/readyz`: it can serve, or the reasons why it cannot. `/version`: which one it is."""

import logging
from collections.abc import Callable
from importlib.metadata import version as release_of

import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Blueprint, Response

from api.deps import WebDeps, answer, deps
from api.errors.problems import public_cause
from api.schemas.health import Health, Readiness, Version
from headrace.config import PROJECT_ROOT
from headrace.domain.limits.budgets import SHUT
from headrace.errors import ConfigError, StoreUnavailable, Unavailable
from headrace.policies.pricing import no_price
from headrace.store.money import budgets, tariffs

log = logging.getLogger(__name__)

blueprint = Blueprint("health", __name__)

#: A write: a row lock needs a transaction id and a commit, which a standby, a read-only node and a full disk refuse.
#: Two probes do not wait for each other, and neither waits for a migration, which changes the row.
_WRITE = sa.text("SELECT FROM alembic_version FOR KEY SHARE SKIP LOCKED")


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
    return answer(Version(version=release_of("headrace")))


@blueprint.get("/readyz")
def readyz() -> Response:
    """200 when every part answers, else 503."""
    checks = {"postgres": _check_postgres, "redis": _check_redis, "tokenizer": _check_tokenizer}
    failures = {name: failure for name, check in checks.items() if (failure := _failure(check))}
    if failures:
        return answer(Readiness(status="unavailable", failures=failures), 503)
    return answer(Readiness(status="ready", warnings=_warnings(deps())))


def _warnings(deps: WebDeps) -> dict[str, str]:
    """Warns of a key for the paid API without a budget or without a price: an unfinished set-up.

    It must not stop the service.
    """
    if deps.settings.openai_api_key is None:
        return {}
    with deps.store.begin() as db:
        warnings = {} if budgets.limits(db, deps.settings.budgets).are_set else {"overflow": SHUT}
        unpriced = tariffs.in_force(db, deps.settings).unpriced
    return {**warnings, **({"prices": " ".join(map(no_price, unpriced))} if unpriced else {})}


def _failure(check: Callable[[WebDeps], None]) -> str | None:
    try:
        check(deps())
    except (Unavailable, ConfigError) as error:
        log.warning("not_ready", extra={"code": error.code, "error": str(error)})
        return public_cause(error)
    return None


def _check_postgres(deps: WebDeps) -> None:
    """A schema that is newer than this code passes: during a roll-out, old and new code run side by side."""
    scripts = ScriptDirectory(str(PROJECT_ROOT / "migrations"))
    known = {script.revision for script in scripts.walk_revisions()}
    with deps.store.begin() as db:
        applied = set(MigrationContext.configure(db).get_current_heads())
        if applied:
            db.execute(_WRITE)
    if not applied or (applied <= known and applied != set(scripts.get_heads())):
        raise StoreUnavailable("Migrations are missing; run 'alembic upgrade head'.")


def _check_redis(deps: WebDeps) -> None:
    deps.admission.check_writable()


def _check_tokenizer(deps: WebDeps) -> None:
    deps.catalogue.load()
