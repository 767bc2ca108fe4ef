"""OpenAI's paths that are not served say so, with a remedy; what is served is not among them."""

import re

import pytest

from api.routes.unsupported import CALLS, FAMILIES, remedy
from headrace.config import Settings
from headrace.domain.apps import App
from tests.web import ApiClient, Web

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
SERVED = {"jobs", "responses", "chat/completions", "completions", "embeddings", "models", "queues", "files", "batches"}


@pytest.fixture
def flask_app(settings: Settings) -> Web:
    return Web.of(settings)


@pytest.fixture(params=["with a key", "without a key"])
def client(request: pytest.FixtureRequest, flask_app: Web, app: App, monkeypatch: pytest.MonkeyPatch) -> ApiClient:
    """A client. With a key, whichever it sends is good."""
    if request.param == "without a key":
        return flask_app.test_client()
    for name in ("authenticate", "recall"):
        monkeypatch.setattr(flask_app.deps.callers.authenticator, name, lambda _: app)
    return ApiClient(flask_app, "hr-test")


CALLS_MADE = [
    *((method, path, advice) for path, advice in FAMILIES.items() for method in METHODS),
    *(("POST", f"{path}/some/thing", advice) for path, advice in FAMILIES.items()),
    *((method, re.sub("{.*}", "chatcmpl-1/messages", path), advice) for (method, path), advice in CALLS.items()),
]


@pytest.mark.parametrize(("method", "path", "advice"), CALLS_MADE)
def test_what_is_not_served_is_404_with_its_remedy(client: ApiClient, method: str, path: str, advice: str) -> None:
    # Whatever the body: it is not read.
    response = client.open(f"/v1/{path}", method=method, data=b"\xff")
    error = response.get_json()["error"]
    assert (response.status_code, error["code"], error["type"]) == (404, "not_supported", "invalid_request_error")
    assert error["message"] == f"This is not served here. {advice}"


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", "chat/completions/chatcmpl-1"), ("PATCH", "chat/completions/chatcmpl-1/messages")]
)
def test_a_method_that_openai_has_not_there_has_no_remedy(client: ApiClient, method: str, path: str) -> None:
    assert client.open(f"/v1/{path}", method=method).get_json()["error"]["code"] in ("not_found", "method_not_allowed")


def test_nothing_that_is_served_is_hidden(flask_app: Web) -> None:
    adapter = flask_app.url_map.bind("localhost")
    posted = [("POST", f"/v1/{path}") for path in SERVED - {"models", "queues"}]
    read = (
        "/v1/models",
        "/v1/models/a/b",
        "/v1/queues",
        "/v1/responses/resp_1",
        "/v1/responses/resp_1/input_items",
        "/v1/files/file-1/content",
        "/v1/batches/batch_1/results",
    )
    for method, path in [*posted, *(("GET", path) for path in read)]:
        adapter.match(path, method=method)
        assert remedy(method, path) is None, path


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/embeddings", "OPTIONS, POST"),
        ("/v1/chat/completions/", "OPTIONS, POST"),
        ("/v1/models/a/b", "GET, HEAD, OPTIONS"),
        ("/v1/responses/resp_1", "DELETE, GET, HEAD, OPTIONS"),
        ("/v1/batches", "GET, HEAD, OPTIONS, POST"),
        ("/v1/uploads", "OPTIONS"),
        ("/v1/chat/completions/chatcmpl-1", "OPTIONS"),
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
