"""OpenAI's paths that are not served say so, with a remedy; what is served is not among them."""

import re

import pytest

from api.handlers.unsupported import CALLS, FAMILIES, METHODS
from api.mounts.flask_app import REFUSING
from headrace.config import Settings
from headrace.domain.apps import App
from tests.web import Web

SERVED = {"jobs", "responses", "chat/completions", "completions", "embeddings", "models", "queues", "files", "batches"}


@pytest.fixture
def flask_app(settings: Settings, app: App, monkeypatch: pytest.MonkeyPatch) -> Web:
    """The app, to whose authenticator every key is good."""
    web = Web.of(settings)
    for name in ("authenticate", "recall"):
        monkeypatch.setattr(web.deps.callers.authenticator, name, lambda _: app)
    return web


CALLS_MADE = [
    *((method, path) for path in FAMILIES for method in METHODS),
    *(("POST", f"{path}/some/thing") for path in FAMILIES),
    *((method, re.sub("{.*}", "chatcmpl-1/messages", path)) for method, path in CALLS),
]


@pytest.mark.parametrize(("method", "path"), CALLS_MADE)
def test_what_is_not_served_is_404_with_a_remedy(flask_app: Web, method: str, path: str) -> None:
    # Whatever the body: it is not read.
    response = flask_app.test_client().open(f"/v1/{path}", method=method, data=b"\xff")
    error = response.get_json()["error"]
    assert (response.status_code, error["code"], error["type"]) == (404, "not_supported", "invalid_request_error")
    remedies = {*FAMILIES.values(), *CALLS.values()}
    assert error["message"].removeprefix("This is not served here. ") in remedies


def test_nothing_that_is_served_is_hidden(flask_app: Web) -> None:
    adapter = flask_app.url_map.bind("localhost")
    for method, path in [("POST", f"/v1/{path}") for path in SERVED - {"models", "queues"}]:
        assert not adapter.match(path, method=method)[0].startswith(REFUSING), path
    for path in (
        "/v1/models",
        "/v1/models/a/b",
        "/v1/queues",
        "/v1/responses/resp_1",
        "/v1/responses/resp_1/input_items",
        "/v1/files/file-1/content",
        "/v1/batches/batch_1/results",
    ):
        assert not adapter.match(path, method="GET")[0].startswith(REFUSING), path


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/embeddings", "OPTIONS, POST"),
        ("/v1/chat/completions/", "OPTIONS, POST"),
        ("/v1/models/a/b", "GET, HEAD, OPTIONS"),
        ("/v1/responses/resp_1", "DELETE, GET, HEAD, OPTIONS"),
        ("/v1/batches", "GET, HEAD, OPTIONS, POST"),
        ("/v1/uploads", "OPTIONS"),
    ],
)
def test_options_lists_what_answers(flask_app: Web, path: str, methods: str) -> None:
    response = flask_app.test_client().options(path)
    assert (response.status_code, response.headers["Allow"]) == (204, methods)


@pytest.mark.parametrize(
    ("path", "status", "methods"),
    [
        ("/v1/chat/completions", 405, "OPTIONS, POST"),
        ("/v1/embeddings/", 405, "OPTIONS, POST"),
        ("/v1/uploads", 404, None),
        ("/v1/chat/completions/chatcmpl-1", 404, None),
    ],
)
def test_head_of_a_path_that_other_methods_serve_says_which(
    flask_app: Web, path: str, status: int, methods: str | None
) -> None:
    response = flask_app.test_client().head(path)
    assert (response.status_code, response.headers.get("Allow")) == (status, methods)
