"""Errors as pages."""

import logging

from flask import Flask, Response, g, make_response, render_template
from werkzeug.exceptions import HTTPException, InternalServerError

from headrace import errors
from headrace.errors import HeadraceError
from headrace.http.shapes import shape_of

log = logging.getLogger(__name__)


def register(app: Flask) -> None:
    """Register the handlers for every error of the pages."""
    app.register_error_handler(HeadraceError, _answer)
    app.register_error_handler(HTTPException, _answer_http)
    app.register_error_handler(Exception, _answer_bug)


def page(status: int, message: str) -> Response:
    """The page of an error."""
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
    return page(shape.status, message)


def _answer_http(error: HTTPException) -> Response:
    if error.code is not None and error.code < 400:
        return make_response(error.get_response())
    return page(error.code or 500, error.description or error.name)


def _answer_bug(error: Exception) -> Response:
    log.error("page_failed", exc_info=error)
    return page(500, "This page has an error. The log of the ops process has its cause.")
