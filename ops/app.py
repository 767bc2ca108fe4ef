"""The composition root of the process `ops`: builds every part once, then the Flask app of the pages."""

import hashlib
import hmac
import logging
import time
from collections.abc import Mapping
from datetime import timedelta
from functools import partial

from flask import Flask, Response, g, make_response, render_template, request
from flask_wtf import CSRFProtect
from jinja2 import StrictUndefined
from werkzeug.exceptions import HTTPException, InternalServerError
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.utils import redirect
from werkzeug.wrappers import Request
from werkzeug.wrappers import Response as BaseResponse

from headrace import connections, errors
from headrace.broker.admission import Admission
from headrace.broker.forecast import Forecast
from headrace.broker.messages import ExecuteMessage, make_celery
from headrace.config import Settings
from headrace.connections.redis import redis_client
from headrace.domain.fleet import Fleet
from headrace.errors import HeadraceError
from headrace.http import RequestMetrics, shape_of
from headrace.store import Store
from headrace.store.fleet import workers
from ops import apps, audit, charts, fleet, gate, jobs, money, overview, shown
from ops.deps import EXTENSION, OpsDeps, deps
from ops.gate import COOKIE, PATH, LoopbackSessions
from ops.hooks import of_plugins
from ops.logins import Logins

log = logging.getLogger(__name__)

#: To Postgres, at once. Queries over a month of jobs take seconds.
CONNECTIONS = 4
#: The largest form: some hundred ids of deliveries.
FORM_BYTES_MAX = 64 * 1024
#: Answers as long as the process lives, without a login.
HEALTH = "/healthz"
#: Nothing from elsewhere, no script at all, no frame around the pages.
POLICY = (
    "default-src 'none'; img-src 'self'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def create_app(settings: Settings) -> Flask:
    """The WSGI app. Connects to nothing before the first request. Raises: ConfigError."""
    settings.check_pepper()
    app = Flask(__name__)
    newest, *older = (_secret(pepper) for pepper in settings.peppers)
    app.config.update(
        SECRET_KEY=newest,
        SECRET_KEY_FALLBACKS=older,
        SESSION_COOKIE_NAME=COOKIE,
        SESSION_COOKIE_PATH=PATH,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Strict",
        MAX_CONTENT_LENGTH=FORM_BYTES_MAX,
        WTF_CSRF_TIME_LIMIT=None,  # as long as the session
        SEND_FILE_MAX_AGE_DEFAULT=timedelta(0),
    )
    app.session_interface = LoopbackSessions()
    app.jinja_env.undefined = StrictUndefined
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.extensions[EXTENSION] = build(settings)
    # First, so that it counts what the gate sends to the login too.
    app.before_request(_begin)
    app.after_request(_count)
    # Before the check of forms: without a login nothing is answered, not even an error about a form.
    gate.register(app)
    CSRFProtect(app)
    added = of_plugins()
    shown.register(app, added)
    _handle_errors(app)
    app.after_request(_secure)
    for pages in (
        *(gate.login, overview.blueprint, jobs.jobs, jobs.deliveries, fleet.queues, fleet.hosts),
        *(apps.blueprint, money.budgets, money.caches, money.cost, audit.blueprint, charts.blueprint),
        *(part.blueprint for part in added.values()),
    ):
        app.register_blueprint(pages)
    app.wsgi_app = DispatcherMiddleware(_outside, {PATH: app.wsgi_app})  # type: ignore[method-assign]
    return app


def build(settings: Settings) -> OpsDeps:
    """Every part of the process, wired."""
    store = Store(connections.postgres(settings, pool_size=CONNECTIONS))
    redis = redis_client(settings)
    message = ExecuteMessage(make_celery("headrace-ops", settings))
    admission = Admission(redis, message, reservation_ttl_s=settings.reservation_ttl_s)
    return OpsDeps(
        settings=settings,
        redis=redis,
        store=store,
        admission=admission,
        forecast=Forecast(admission, partial(_read_fleets, store), settings),
        logins=Logins(store),
        metrics=RequestMetrics("headrace_ops"),
    )


def _read_fleets(store: Store) -> Mapping[str, Fleet]:
    with store.autocommit() as db:
        return workers.fleets(db)


def _secret(pepper: str) -> str:
    """The key of the session cookies. It follows from the pepper and does not reveal it."""
    return hmac.new(pepper.encode(), b"sessions of /ops", hashlib.sha256).hexdigest()


@Request.application
def _outside(call: Request) -> BaseResponse:
    """Answers a process manager's probe, and sends all other paths to the pages."""
    if call.path == HEALTH:
        return BaseResponse("ok\n")
    return redirect(PATH + call.full_path.rstrip("?"), 307)


def _begin() -> None:
    g.began = time.monotonic()


def _count(response: Response) -> Response:
    rule = None if request.url_rule is None else PATH + request.url_rule.rule
    deps().metrics.note(request.method, rule, response.status_code, time.monotonic() - g.began)
    if (reason := g.get("refusal")) is not None:
        deps().metrics.note_refusal(reason)
    return response


def _secure(response: Response) -> Response:
    response.headers.setdefault("Content-Security-Policy", POLICY)
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    if "Cache-Control" not in response.headers:
        response.headers["Cache-Control"] = "no-store"
    return response


def _handle_errors(app: Flask) -> None:
    """Register the handlers for every error of the pages."""
    app.register_error_handler(HeadraceError, _answer)
    app.register_error_handler(HTTPException, _answer_http)
    app.register_error_handler(Exception, _answer_bug)


def _page(status: int, message: str) -> Response:
    # An error before the login, or of the login's own query, knows no operator.
    template = "layout/error.html" if g.get("operator") else "layout/closed.html"
    return make_response(render_template(template, status=status, message=message), status)


def _answer(error: HeadraceError) -> Response:
    shape = shape_of(error)
    if shape.status == InternalServerError.code:
        return _answer_bug(error)
    message = str(error)
    if isinstance(error, errors.Unavailable | errors.ConfigError):
        log.warning("page_unavailable", extra={"code": error.code, "error": message})
        message = error.public_cause
    return _page(shape.status, message)


def _answer_http(error: HTTPException) -> Response:
    if error.code is not None and error.code < 400:
        return make_response(error.get_response())
    return _page(error.code or 500, error.description or error.name)


def _answer_bug(error: Exception) -> Response:
    log.error("page_failed", exc_info=error)
    return _page(500, "This page has an error. The log of the ops process has its cause.")
