"""What reaches no view is answered in the shape of all errors, and what a browser has already is not sent again."""

from typing import Any

import pytest

from api.app import WebApp
from headrace.config import Settings
from tests.web import ApiClient, Web


@pytest.fixture
def flask_app(settings: Settings) -> Web:
    return Web.of(settings)


@pytest.fixture
def client(flask_app: Web) -> ApiClient:
    return flask_app.test_client()


def test_unknown_paths_and_methods_answer_in_the_same_shape(client: ApiClient) -> None:
    missing, wrong = client.get("/nope"), client.get("/v1/jobs/job_1/cancel")
    assert (missing.status_code, missing.get_json()["error"]["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.get_json()["error"]["code"]) == (405, "method_not_allowed")
    assert wrong.headers["Allow"] == "OPTIONS, POST"
    told = wrong.get_json()["error"]["message"]
    assert told == "/v1/jobs/job_1/cancel does not know the method GET. It knows OPTIONS, POST."
    for response in (missing, wrong):
        assert response.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("/v1/v1/jobs", "/v1/jobs"),
        ("/chat/completions", "/v1/chat/completions"),
        ("/jobs/job_1", "/v1/jobs/job_1"),
        ("/v1/chat/completion", "/v1/chat/completions"),
        ("/v1/respones", "/v1/responses"),
    ],
    ids=["twice", "without", "with-an-id", "singular", "misspelt"],
)
def test_an_unknown_path_comes_with_the_one_that_is_meant(client: ApiClient, path: str, near: str) -> None:
    assert f" Did you mean {near}? " in client.post(path).get_json()["error"]["message"]


def test_a_path_that_is_near_none_comes_without(client: ApiClient) -> None:
    assert (
        client.get("/nope").get_json()["error"]["message"] == "There is no path /nope. GET /docs shows what there is."
    )


def test_allow_lists_what_answers_and_not_what_is_only_refused(client: ApiClient) -> None:
    # GET is one of the calls that are only refused.
    wrong = client.delete("/v1/embeddings")
    assert wrong.headers["Allow"] == "OPTIONS, POST"
    assert "It knows OPTIONS, POST." in wrong.get_json()["error"]["message"]


@pytest.mark.parametrize("path", ["/docs", "/docs/"])
def test_the_page_says_which_methods_it_knows_with_a_slash_and_without(client: ApiClient, path: str) -> None:
    asked, wrong = client.open(path, method="OPTIONS"), client.put(path)
    assert (asked.status_code, asked.headers["Allow"]) == (204, "GET, HEAD, OPTIONS")
    assert (wrong.status_code, wrong.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
    assert client.get(path).status_code == 200


def test_a_host_that_is_no_name_is_named(client: ApiClient) -> None:
    refused = client.get("/healthz", headers={"Host": "a" * 2000})
    assert (refused.status_code, refused.get_json()["error"]["code"]) == (400, "invalid_request")
    assert refused.get_json()["error"]["message"].startswith("The header 'Host' has no valid host name.")


@pytest.mark.parametrize("path", ["/ops", "/ops/login"])
def test_the_operators_pages_are_elsewhere(client: ApiClient, path: str) -> None:
    assert "see docs/ops.md" in client.get(path).get_json()["error"]["message"]


def test_a_bug_outside_the_views_tells_nothing_but_the_log(
    flask_app: Web, client: ApiClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(WebApp, "preprocess_request", broken)
    response = client.get("/version")
    assert (response.status_code, response.get_json()["error"]["code"]) == (500, "internal_error")
    assert "secret" not in response.text
    assert "secret detail" in caplog.text


def test_a_page_that_a_browser_has_is_not_sent_again(client: ApiClient) -> None:
    for path in ("/openapi.json", "/docs/", "/docs/swagger-ui.css"):
        first = client.get(path)
        again = client.get(path, headers={"If-None-Match": first.headers["ETag"]})
        assert (first.status_code, again.status_code, again.data) == (200, 304, b"")
    assert client.get("/docs/nope").status_code == 404
