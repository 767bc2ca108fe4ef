"""`/openapi.json` and `/docs`: the API, browsable without any network.

They need no key, so each file is made once for a process and kept in memory.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import NamedTuple

from flask import Blueprint, Response, current_app, request

from api.calls import parts
from api.routes.documentation.openapi import document
from api.routes.operations import JSON, described, describes
from headrace.errors import NotFound

ROUTES = Blueprint("documentation", __name__)

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


_HTML = "text/html; charset=utf-8"


@ROUTES.get("/")
@describes(is_open=True)
def index() -> Response:
    """Redirect a browser to the documentation."""
    return Response(b"", 302, {"Location": "/docs/"}, content_type=_HTML)


@ROUTES.get("/openapi.json")
@describes(is_open=True)
def openapi() -> Response:
    """Returns the API as an OpenAPI document."""
    return _sent(_document(), JSON)


@ROUTES.get("/docs")
@describes(is_open=True)
def page() -> Response:
    """Returns the page."""
    return _sent(_Content.of(PAGE.encode()), _HTML)


@ROUTES.get("/docs/<name>")
@describes(is_open=True)
def file(name: str) -> Response:
    """Returns a file that the page loads."""
    if name == START_NAME:
        return _sent(_Content.of(START.encode()), "text/javascript; charset=utf-8")
    if name not in STATIC:
        raise NotFound(f"There is no file {name[:80]}. GET /docs shows the page.")
    return _sent(_static(name), STATIC[name])


@ROUTES.after_request
def _guarded(response: Response) -> Response:
    """Adds the rules that a browser keeps for the page and its files."""
    if request.path.startswith("/docs"):
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
    return response


class _Content(NamedTuple):
    """Attributes: etag: a digest of the content, made once."""

    content: bytes
    etag: str

    @classmethod
    def of(cls, content: bytes) -> "_Content":
        return cls(content, f'"{hashlib.sha256(content).hexdigest()[:16]}"')


@cache
def _document() -> _Content:
    # Every app has the same views.
    webhooks = [each for part in parts().plugins for each in part.webhooks]
    return _Content.of(json.dumps(document(described(current_app), webhooks), ensure_ascii=False).encode())


@cache
def _static(name: str) -> _Content:
    return _Content.of((resources.files("flask_swagger_ui") / "dist" / name).read_bytes())


def _sent(found: _Content, mimetype: str) -> Response:
    """Returns the content; 304 in its place to a browser that has it already."""
    response = Response(found.content, content_type=mimetype, headers={"ETag": found.etag})
    response.make_conditional(request)
    return response
