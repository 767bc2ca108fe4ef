"""The Flask app: all routes, replies to what has none, and the calls that have no body and never wait."""

import difflib
import http
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any, NoReturn

from flask import Flask, Response, current_app, request
from werkzeug.datastructures import EnvironHeaders
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import Map, MapAdapter

from api.call import Call, Operation, Reply
from api.deps import EXTENSION, WebDeps
from api.handlers import documentation, unsupported
from api.handlers.replies import finished, problem, problem_reply

log = logging.getLogger(__name__)

#: Where `web` once served the operators' pages.
OPS_PATH = "/ops"
CODES = {http.HTTPStatus.NOT_FOUND: "not_found", http.HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed"}
#: The share of letters in order that a misspelt path has in common with what is meant.
LIKENESS = 0.8
#: The endpoints of operations that are only refused begin with this.
REFUSING = "refused: "
#: All operations by their endpoints.
OPERATIONS = {
    f"{REFUSING if each.is_refusal else ''}{each.method} {each.path}": each
    for each in (*documentation.DESCRIBED, *documentation.OPERATIONS, *unsupported.OPERATIONS)
}


class WebApp(Flask):
    """The Flask app. None of its functions is a coroutine, so that none need be looked at before it is called."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """The function itself."""
        return func

    def make_default_options_response(self) -> Response:
        """The reply to OPTIONS. A call that is only refused is none of its methods."""
        return _finished(_web(), _call(), Reply(204, b"", {"Allow": ", ".join(allowed_methods())}))


def make_flask_app(web: WebDeps) -> WebApp:
    """The app with every route."""
    app = WebApp(__name__, static_folder=None)
    app.url_map = _paths()
    app.extensions[EXTENSION] = web
    app.view_functions.update((endpoint, partial(_view, web, each)) for endpoint, each in OPERATIONS.items())
    app.register_error_handler(HTTPException, partial(_http_error, web))
    app.register_error_handler(Exception, partial(_bug, web))
    return app


@cache
def _paths() -> Map:
    """The paths of all operations. They know no app: this one map, which takes 60 ms to make, serves each app."""
    app = Flask(__name__, static_folder=None)
    app.url_map.merge_slashes = False
    # A path means the same with a slash at its end.
    app.url_map.strict_slashes = False
    for endpoint, operation in OPERATIONS.items():
        app.add_url_rule(_rule(operation), endpoint, methods=[operation.method.upper()])
    return app.url_map


def _rule(operation: Operation) -> str:
    """The path as Flask spells it."""
    return operation.path.replace("{", "<path:" if operation.takes_slashes else "<").replace("}", ">")


def _view(web: WebDeps, operation: Operation, **names: str) -> Response:
    if operation.is_refusal and request.method == "HEAD" and set(allowed_methods()) - {"OPTIONS"}:
        # Flask adds HEAD to a refused GET. The path is served: by other methods.
        operation = replace(operation, handle=_refuse_method)
    call = _call()
    try:
        if not operation.is_open:
            app = web.callers.authenticator.authenticate(call.headers.get("Authorization"))
            web.callers.admit(call, app, submits=operation.makes_job)
        reply = operation.handle(web, call, *names.values())
        assert isinstance(reply, Reply), "What may wait is not Flask's."
    except HTTPException:
        raise
    except Exception as error:
        reply = problem(error, call.id)
    return _response(finished(web, operation.path, call, reply))


def _call() -> Call:
    """The call that begins now."""
    environ = request.environ
    return Call(environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"], EnvironHeaders(environ))


def _refuse_method(*_: object) -> NoReturn:
    raise MethodNotAllowed


def _response(reply: Reply) -> Response:
    assert isinstance(reply.body, bytes)
    response = Response(reply.body, reply.status, reply.headers)
    if "ETag" in reply.headers:
        response.make_conditional(request)
    return response


def _web() -> WebDeps:
    web: WebDeps = current_app.extensions[EXTENSION]
    return web


def _finished(web: WebDeps, call: Call, reply: Reply) -> Response:
    """The reply to a request that reached no handler."""
    return _response(finished(web, None if request.url_rule is None else request.url_rule.rule, call, reply))


def _http_error(web: WebDeps, error: HTTPException) -> Response:
    """The reply to what Flask refuses: an unknown path, a wrong method, a redirect."""
    call, status = _call(), error.code or http.HTTPStatus.INTERNAL_SERVER_ERROR
    if status < http.HTTPStatus.BAD_REQUEST:
        redirect = error.get_response(request.environ)
        return _finished(web, call, Reply(status, b"", dict(redirect.headers)))
    kind = "invalid_request_error" if status < http.HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"
    reply = problem_reply(status, _message(error), kind, CODES.get(http.HTTPStatus(status), "invalid_request"))
    if status == http.HTTPStatus.METHOD_NOT_ALLOWED:
        reply.headers["Allow"] = ", ".join(allowed_methods())
    return _finished(web, call, reply)


def _bug(web: WebDeps, error: Exception) -> Response:
    call = _call()
    return _finished(web, call, problem(error, call.id))


def _message(error: HTTPException) -> str:
    path = request.path[:80]
    if error.code == http.HTTPStatus.NOT_FOUND:
        if request.path == OPS_PATH or request.path.startswith(f"{OPS_PATH}/"):
            return "The process 'ops' serves the operators' pages, at an address of its own: see docs/ops.md."
        meant = f" Did you mean {near}?" if (near := _near(path)) else ""
        return f"There is no path {path}.{meant} GET /docs shows what there is."
    if error.code == http.HTTPStatus.METHOD_NOT_ALLOWED:
        return f"{path} does not know the method {request.method}. It knows {', '.join(allowed_methods())}."
    return error.description or "The request is not valid HTTP."


def _near(path: str) -> str | None:
    """A path that is served, and that this one may stand for: with /v1 once, or spelled a little differently."""
    adapter = current_app.create_url_adapter(request)
    assert adapter is not None
    for each in (path.removeprefix("/v1"), f"/v1{path}"):
        if each != path and each.startswith("/v1/") and adapter.allowed_methods(each):
            return each
    served = [each.path for each in OPERATIONS.values() if "{" not in each.path and not each.is_refusal]
    return next(iter(difflib.get_close_matches(path, served, 1, LIKENESS)), None)


def allowed_methods() -> list[str]:
    """The methods that this request's path answers, sorted, as the header `Allow` lists them."""
    adapter = current_app.create_url_adapter(request)
    if adapter is None:
        return []
    return sorted(method for method in adapter.allowed_methods() if not _is_refused(adapter, method))


def _is_refused(adapter: MapAdapter, method: str) -> bool:
    try:
        endpoint, _ = adapter.match(method=method)
    except HTTPException:
        return False
    return endpoint.startswith(REFUSING) and method != "OPTIONS"
