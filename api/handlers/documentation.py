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

from api.call import Call, Operation, Reply
from api.deps import WebDeps
from api.handlers import batches, completions, files, jobs, reports, responses, tokens
from api.handlers.openapi import document
from api.handlers.replies import problem
from headrace.errors import NotFound

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


#: Every operation that the reference describes, in its order.
DESCRIBED = (
    *jobs.OPERATIONS,
    *reports.QUEUES,
    *reports.USAGE,
    *responses.OPERATIONS,
    *completions.OPERATIONS,
    *files.OPERATIONS,
    *batches.OPERATIONS,
    *reports.MODELS,
    *tokens.OPERATIONS,
    *reports.HEALTH,
)
_HTML = "text/html; charset=utf-8"


def index(_web: WebDeps, _call: Call) -> Reply:
    """Redirect a browser to the documentation."""
    return Reply(302, b"", {"Location": "/docs/", "Content-Type": _HTML})


def openapi(_web: WebDeps, _call: Call) -> Reply:
    """The API as an OpenAPI document."""
    return _sent(_document(), "application/json")


def page(_web: WebDeps, _call: Call) -> Reply:
    """The page."""
    return _of_page(_sent(_Content.of(PAGE.encode()), _HTML))


def file(_web: WebDeps, call: Call, name: str) -> Reply:
    """A file that the page loads."""
    if name == START_NAME:
        return _of_page(_sent(_Content.of(START.encode()), "text/javascript; charset=utf-8"))
    if name not in STATIC:
        return _of_page(problem(NotFound(f"There is no file {name[:80]}. GET /docs shows the page."), call.id))
    return _of_page(_sent(_static(name), STATIC[name]))


def _of_page(reply: Reply) -> Reply:
    reply.headers |= {
        "Content-Security-Policy": POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    return reply


class _Content(NamedTuple):
    """What is sent. Attributes: etag: a digest of the content, made once."""

    content: bytes
    etag: str

    @classmethod
    def of(cls, content: bytes) -> "_Content":
        return cls(content, f'"{hashlib.sha256(content).hexdigest()[:16]}"')


@cache
def _document() -> _Content:
    return _Content.of(json.dumps(document(DESCRIBED), ensure_ascii=False).encode())


@cache
def _static(name: str) -> _Content:
    return _Content.of((resources.files("flask_swagger_ui") / "dist" / name).read_bytes())


def _sent(found: _Content, mimetype: str) -> Reply:
    """The content. A mount sends 304 in its place to a browser that has it already."""
    return Reply(200, found.content, {"Content-Type": mimetype, "ETag": found.etag})


OPERATIONS = (
    Operation("get", "/", index, is_open=True),
    Operation("get", "/openapi.json", openapi, is_open=True),
    Operation("get", "/docs/", page, is_open=True),
    Operation("get", "/docs/{name}", file, is_open=True),
)
