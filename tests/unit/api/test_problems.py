"""Every error as HTTP: its status, OpenAI's shape, and the headers a client acts on."""

from uuid import UUID

import pytest
from flask import Flask, g

from api import problems
from headrace import errors
from headrace.errors import HeadraceError

CASES = [
    (errors.InvalidRequest("m", param="a.b"), 400, "invalid_request_error", "invalid_value"),
    (errors.ContextLengthExceeded("m"), 400, "invalid_request_error", "context_length_exceeded"),
    (errors.ModelNotFound("m"), 404, "invalid_request_error", "model_not_found"),
    (errors.IdempotencyKeyReused("m"), 422, "idempotency_error", "idempotency_key_reused"),
    (errors.Unauthenticated("m"), 401, "invalid_request_error", "invalid_api_key"),
    (errors.PermissionDenied("m"), 403, "permission_error", "permission_denied"),
    (errors.NotFound("m"), 404, "invalid_request_error", "not_found"),
    (errors.QueueFull("chat.high", 500, 500, 7), 429, "rate_limit_error", "queue_full"),
    (errors.WaitTimeout("m", UUID(int=1)), 504, "server_error", "wait_timeout"),
    (errors.StoreUnavailable("m"), 503, "server_error", "store_unavailable"),
    (errors.BrokerUnavailable("m"), 503, "server_error", "broker_unavailable"),
    (errors.IllegalTransition("m"), 500, "server_error", "internal_error"),
]


@pytest.fixture
def flask_app() -> Flask:
    app = Flask("test")
    problems.register(app)
    app.before_request(lambda: setattr(g, "request_id", "req_test"))
    return app


def answer_to(app: Flask, error: Exception) -> tuple[int, dict[str, str], dict[str, str]]:
    def fail() -> str:
        raise error

    app.add_url_rule("/fail", view_func=fail)
    response = app.test_client().get("/fail")
    return response.status_code, response.get_json()["error"], dict(response.headers)


@pytest.mark.parametrize(("error", "status", "kind", "code"), CASES, ids=lambda case: type(case).__name__)
def test_each_error_has_its_status_and_shape(
    flask_app: Flask, error: HeadraceError, status: int, kind: str, code: str
) -> None:
    got_status, body, _ = answer_to(flask_app, error)
    assert (got_status, body["type"], body["code"]) == (status, kind, code)
    assert body["param"] == (error.param if status != 500 else None)
    assert set(body) == {"message", "type", "param", "code"}


def test_every_error_class_has_a_row() -> None:
    def below(root: type[HeadraceError]) -> list[type[HeadraceError]]:
        return [root, *(each for child in root.__subclasses__() for each in below(child))]

    for each in below(HeadraceError):
        error = each.__new__(each)
        assert problems.shape_of(error).status >= 400


def test_a_full_queue_says_when_to_come_back(flask_app: Flask) -> None:
    _, body, headers = answer_to(flask_app, errors.QueueFull("chat.high", 512, 500, 7))
    assert headers["Retry-After"] == "7"
    assert "512" in body["message"]
    assert "500" in body["message"]


def test_what_is_down_is_worth_another_try_and_tells_no_address(flask_app: Flask) -> None:
    error = errors.StoreUnavailable('Postgres does not answer: connection to "db.internal" failed')
    _, body, headers = answer_to(flask_app, error)
    assert int(headers["Retry-After"]) > 0
    assert body["message"] == "Postgres does not answer. Nothing was lost; try again."


def test_a_wait_that_ran_out_must_not_be_tried_again(flask_app: Flask) -> None:
    assert answer_to(flask_app, errors.WaitTimeout())[2]["x-should-retry"] == "false"


def test_a_missing_key_names_the_scheme(flask_app: Flask) -> None:
    assert answer_to(flask_app, errors.Unauthenticated())[2]["WWW-Authenticate"] == "Bearer"


def test_a_bug_tells_nothing_but_the_log(flask_app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    status, body, _ = answer_to(flask_app, RuntimeError("secret detail"))
    assert (status, body["code"]) == (500, "internal_error")
    assert "secret" not in str(body)
    assert caplog.records[-1].request_id == "req_test"  # type: ignore[attr-defined]
    assert "secret detail" in caplog.text


def test_unknown_paths_and_methods_answer_in_the_same_shape(flask_app: Flask) -> None:
    flask_app.add_url_rule("/there", view_func=lambda: "", methods=["POST"])
    client = flask_app.test_client()
    missing, wrong = client.get("/nope"), client.get("/there")
    assert (missing.status_code, missing.get_json()["error"]["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.get_json()["error"]["code"]) == (405, "method_not_allowed")
    assert "POST" in wrong.headers["Allow"]
