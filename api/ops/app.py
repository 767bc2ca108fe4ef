"""Builds the app of the pages at `/ops`: its login, its headers, its error pages and its blueprints."""

import hashlib
import hmac
import time
from dataclasses import replace
from datetime import timedelta

from flask import Flask, Response, g, request
from flask_wtf import CSRFProtect
from jinja2 import StrictUndefined

from api.deps import EXTENSION, WebDeps, deps
from api.metrics import Handled
from api.ops import gate, problems, shown
from api.ops.logins import EXTENSION as LOGINS
from api.ops.logins import Logins
from api.ops.pages import apps, budgets, caches, charts, cost, deliveries, hosts, jobs, login, queues
from api.ops.sessions import COOKIE, PATH, LoopbackSessions

#: To Postgres, at once. Queries over a month of jobs take seconds.
CONNECTIONS = 2
#: The largest form: some hundred ids of deliveries.
FORM_BYTES_MAX = 64 * 1024
#: Nothing from elsewhere, no script at all, no frame around the pages.
POLICY = (
    "default-src 'none'; img-src 'self'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def create_ops(parts: WebDeps) -> Flask:
    """The WSGI app of the pages. Connects to nothing."""
    ops = Flask(__name__)
    newest, *older = (_secret(pepper) for pepper in parts.settings.peppers)
    ops.config.update(
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
    ops.session_interface = LoopbackSessions()
    ops.jinja_env.undefined = StrictUndefined
    ops.jinja_env.trim_blocks = ops.jinja_env.lstrip_blocks = True
    own = replace(parts, store=parts.pages_store)
    ops.extensions |= {EXTENSION: own, LOGINS: Logins(own.store)}
    # First, so that it counts what the gate sends to the login too.
    ops.before_request(_begin)
    ops.after_request(_count)
    # Before the check of forms: without a login nothing is answered, not even an error about a form.
    gate.register(ops)
    CSRFProtect(ops)
    shown.register(ops)
    problems.register(ops)
    ops.after_request(_secure)
    for pages in (login, jobs, queues, hosts, deliveries, apps, budgets, caches, cost, charts):
        ops.register_blueprint(pages.blueprint)
    return ops


def _secret(pepper: str) -> str:
    """The key of the session cookies. It follows from the pepper and does not reveal it."""
    return hmac.new(pepper.encode(), b"sessions of /ops", hashlib.sha256).hexdigest()


def _begin() -> None:
    g.began = time.monotonic()


def _count(response: Response) -> Response:
    rule = None if request.url_rule is None else PATH + request.url_rule.rule
    deps().metrics.note(Handled(request.method, rule, response.status_code, "plain"), time.monotonic() - g.began)
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
