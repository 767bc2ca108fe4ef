"""`/openapi.json` and `/docs`: the API, browsable without any network.

They need no key, so each file is made once for a process and kept in memory.
"""

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import NamedTuple

from flask import Blueprint, Response, abort, jsonify, redirect, request
from werkzeug.wrappers import Response as Redirect

from api.reference.openapi import document

blueprint = Blueprint("documentation", __name__)
pages = Blueprint("docs", __name__, url_prefix="/docs")

#: The page, without a script or a style of its own: `POLICY` allows neither.
PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <title>Headrace API</title>
  <link rel="stylesheet" href="/docs/index.css">
  <link rel="stylesheet" href="/docs/swagger-ui.css">
  <link rel="icon" type="image/png" href="/docs/favicon-32x32.png" sizes="32x32">
</head>
<body>
  <div id="swagger-ui"></div>
  <script src="/docs/swagger-ui-bundle.js"></script>
  <script src="/docs/start.js"></script>
</body>
</html>
"""
START_NAME = "start.js"
#: Starts Swagger UI, which forgets a key with its page. `authorized` is where earlier releases had it stored. Its
#: validator badge would call a public service.
START = """\
localStorage.removeItem("authorized");
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  layout: "BaseLayout",
  validatorUrl: null,
  persistAuthorization: false,
  defaultModelsExpandDepth: 0,
  docExpansion: "list",
});
"""
#: Swagger UI's own files, from its package.
STATIC: Mapping[str, str] = MappingProxyType(
    {
        "index.css": "text/css",
        "swagger-ui.css": "text/css",
        "swagger-ui-bundle.js": "text/javascript",
        "favicon-32x32.png": "image/png",
    }
)
#: Nothing from elsewhere, no script and no style but the files above, no frame around the page. Swagger UI's style
#: sheet has pictures as `data:` URLs.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


@blueprint.get("/")
def index() -> Redirect:
    """Redirect a browser to the documentation."""
    return redirect("/docs/")


@blueprint.get("/openapi.json")
def openapi() -> Response:
    """The API as an OpenAPI document."""
    return _sent(_document())


@pages.get("/")
def page() -> Response:
    """The page."""
    return _sent(_File.of(PAGE.encode(), "text/html"))


@pages.get("/<name>")
def file(name: str) -> Response:
    """A file that the page loads."""
    if name == START_NAME:
        return _sent(_File.of(START.encode(), "text/javascript"))
    if name not in STATIC:
        abort(404)
    return _sent(_static(name))


@pages.after_request
def _secure(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


class _File(NamedTuple):
    """What is sent. Attributes: etag: a digest of the content, made once."""

    content: bytes
    mimetype: str
    etag: str

    @classmethod
    def of(cls, content: bytes, mimetype: str) -> "_File":
        return cls(content, mimetype, hashlib.sha256(content).hexdigest()[:16])


@cache
def _document() -> _File:
    return _File.of(jsonify(document()).get_data(), "application/json")


@cache
def _static(name: str) -> _File:
    return _File.of((files("flask_swagger_ui") / "dist" / name).read_bytes(), STATIC[name])


def _sent(file: _File) -> Response:
    """The file, or 304 if the browser has it already."""
    response = Response(file.content, mimetype=file.mimetype)
    response.set_etag(file.etag)
    response.make_conditional(request)
    return response
