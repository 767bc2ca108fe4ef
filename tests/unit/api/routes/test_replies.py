"""Each error's status, shape and headers, and which web pages may read a reply."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from api.routes.replies import duration, problem, rate_headers
from headrace import errors
from headrace.config import Settings
from headrace.config.sections import CorsSettings
from headrace.domain.limits import NO_RATES, RateLeft, RatesLeft
from headrace.errors import HeadraceError
from headrace.http import shape_of
from tests.web import ApiClient, Web

JOB = UUID(int=1)
UNTIL = datetime(2026, 11, 30, 12, tzinfo=UTC)
RATES = RatesLeft(RateLeft(60, 0), RateLeft(1000, 250))


def queue_full(**changes: Any) -> errors.QueueFull:
    facts = {"queue": "chat.high", "reason": "depth", "depth": 512, "cap": 500, "expected_wait_s": 31.5}
    return errors.QueueFull("Queue chat.high is full.", **{**facts, "retry_after_s": 7, **changes})


def limited(retry_after_s: int | None = 9) -> errors.AppLimited:
    return errors.AppLimited("m", reason="requests_per_minute", retry_after_s=retry_after_s, rates_left=RATES)


CASES = [
    (errors.InvalidRequest("m", param="a.b"), 400, "invalid_request_error", "invalid_value"),
    (errors.ContextLengthExceeded("m"), 400, "invalid_request_error", "context_length_exceeded"),
    (errors.ModelNotFound("m"), 404, "invalid_request_error", "model_not_found"),
    (errors.BodyTooLarge("m"), 413, "invalid_request_error", "request_too_large"),
    (errors.HeaderTooLarge("m"), 431, "invalid_request_error", "header_too_large"),
    (errors.UnsupportedEncoding("m"), 415, "invalid_request_error", "unsupported_encoding"),
    (errors.BodyTimeout("m"), 408, "invalid_request_error", "body_timeout"),
    (errors.IdempotencyKeyReused("m"), 422, "idempotency_error", "idempotency_key_reused"),
    (errors.Unauthenticated("m"), 401, "invalid_request_error", "invalid_api_key"),
    (errors.PermissionDenied("m"), 403, "permission_error", "permission_denied"),
    (errors.NotFound("m"), 404, "invalid_request_error", "not_found"),
    (errors.IdempotencyInProgress("m"), 409, "idempotency_error", "idempotency_in_progress"),
    (errors.JobNotEnded("m"), 409, "conflict_error", "job_not_ended"),
    (errors.Unanswered("m", JOB, code="engine_fault"), 502, "server_error", "engine_fault"),
    (errors.JobOverdue("m", JOB), 504, "server_error", "deadline_exceeded"),
    (errors.JobCancelled("m", JOB), 409, "conflict_error", "job_cancelled"),
    (errors.JobExpired("m", JOB), 503, "server_error", "expired"),
    (errors.JobHeld("m", JOB), 503, "server_error", "app_confined"),
    (errors.AppConfined("m", retry_after_s=9, until=UNTIL), 429, "rate_limit_error", "app_confined"),
    (queue_full(), 429, "rate_limit_error", "queue_full"),
    (limited(), 429, "rate_limit_error", "rate_limit_exceeded"),
    (errors.SlotsFull("m", reason="wait_slots", retry_after_s=1), 429, "rate_limit_error", "sync_slots_full"),
    (errors.WaitTimeout("m", JOB), 504, "server_error", "wait_timeout"),
    (errors.StoreUnavailable("m"), 503, "server_error", "store_unavailable"),
    (errors.BrokerUnavailable("m"), 503, "server_error", "broker_unavailable"),
    (errors.ConfigError("m"), 503, "server_error", "invalid_configuration"),
    (errors.IllegalTransition("m"), 500, "server_error", "internal_error"),
]


def reply_to(error: Exception) -> tuple[int, dict[str, Any], dict[str, str]]:
    reply = problem(error, "req_test")
    assert reply.content_type == "application/json"
    return reply.status_code, json.loads(reply.get_data())["error"], dict(reply.headers)


@pytest.mark.parametrize(("error", "status", "kind", "code"), CASES, ids=lambda case: type(case).__name__)
def test_each_error_has_its_status_and_shape(error: HeadraceError, status: int, kind: str, code: str) -> None:
    got_status, body, _ = reply_to(error)
    assert (got_status, body["type"], body["code"]) == (status, kind, code)
    assert body["param"] == (error.param if status != 500 else None)
    assert {"message", "type", "param", "code"} <= set(body)


def test_every_error_class_has_a_row() -> None:
    def below(root: type[HeadraceError]) -> list[type[HeadraceError]]:
        return [root, *(each for child in root.__subclasses__() for each in below(child))]

    for each in below(HeadraceError):
        error = each.__new__(each)
        assert shape_of(error).status >= 400


def test_a_full_queue_says_what_it_met_and_when_to_come_back() -> None:
    status, body, headers = reply_to(queue_full(rates_left=RATES))
    assert status == 429
    assert headers["Retry-After"] == "7"
    assert "x-should-retry" not in headers
    told = {name: body[name] for name in ("queue", "reason", "depth", "cap", "unit")}
    assert told == {"queue": "chat.high", "reason": "depth", "depth": 512, "cap": 500, "unit": "jobs"}
    assert body["expected_wait_s"] == 31.5
    assert headers["x-ratelimit-remaining-requests"] == "0"


def test_what_is_too_far_away_must_not_be_tried_again() -> None:
    _, _, headers = reply_to(queue_full(retry_after_s=None))
    assert headers["x-should-retry"] == "false"
    assert "Retry-After" not in headers


def test_an_app_that_used_its_minute_up_reads_its_rates_in_the_headers() -> None:
    _, body, headers = reply_to(limited())
    assert (body["reason"], headers["Retry-After"]) == ("requests_per_minute", "9")
    shown = {name.lower(): value for name, value in headers.items() if name.lower().startswith("x-ratelimit-")}
    assert shown == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1m0s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "250",
        "x-ratelimit-reset-tokens": "45s",
    }
    assert set(body) == {"message", "type", "param", "code", "reason"}


@pytest.mark.parametrize(
    ("error", "header", "value"),
    [
        (errors.IdempotencyInProgress(), "Retry-After", "1"),
        (errors.JobNotEnded(), "Retry-After", "1"),
        (errors.Unanswered("m", JOB), "x-should-retry", "false"),
        (errors.JobOverdue("m", JOB), "x-should-retry", "false"),
        (errors.JobCancelled("m", JOB), "x-should-retry", "false"),
        (errors.JobExpired("m", JOB), "Retry-After", "2"),
        (errors.JobHeld("m", JOB), "x-should-retry", "false"),
        (errors.AppConfined("m", retry_after_s=9, until=UNTIL), "Retry-After", "9"),
        (errors.AppConfined("m", retry_after_s=9, until=UNTIL), "x-headrace-confined-until", "2026-11-30T12:00:00Z"),
        (errors.WaitTimeout("m", JOB), "x-should-retry", "false"),
        (errors.Unauthenticated(), "WWW-Authenticate", "Bearer"),
    ],
    ids=lambda case: type(case).__name__ if isinstance(case, Exception) else str(case),
)
def test_the_headers_say_what_a_client_may_do(error: HeadraceError, header: str, value: str) -> None:
    assert reply_to(error)[2][header] == value


def test_an_error_about_a_job_names_it() -> None:
    assert reply_to(errors.WaitTimeout("m", JOB))[2]["x-job-id"] == f"job_{JOB.hex}"


def test_what_is_down_is_worth_another_try_and_tells_no_address() -> None:
    error = errors.StoreUnavailable('Postgres does not answer: connection to "db.internal" failed')
    _, body, headers = reply_to(error)
    assert int(headers["Retry-After"]) > 0
    assert body["message"] == "Postgres does not answer. Nothing was lost; try again."


def test_a_setting_that_stands_in_the_way_is_no_fault_of_the_request() -> None:
    error = errors.ConfigError("The tokenizer of m cannot be had: no route. Set HEADRACE_MODEL_DIR.", param="model")
    _, body, _ = reply_to(error)
    assert (body["message"], body["param"]) == ("The tokenizer of m cannot be had. Nothing was lost; try again.", None)


def test_a_bug_tells_nothing_but_the_log(caplog: pytest.LogCaptureFixture) -> None:
    status, body, _ = reply_to(RuntimeError("secret detail"))
    assert (status, body["code"]) == (500, "internal_error")
    assert "secret" not in str(body)
    assert caplog.records[-1].request_id == "req_test"  # type: ignore[attr-defined]
    assert "secret detail" in caplog.text


def test_each_limited_rate_has_its_three_headers() -> None:
    assert rate_headers(RatesLeft(RateLeft(60, 59), RateLeft(90_000, 0))) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "90000",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "1m0s",
    }


def test_what_is_not_limited_has_no_header() -> None:
    assert rate_headers(NO_RATES) == {}
    assert all("tokens" in name for name in rate_headers(RatesLeft(tokens=RateLeft(10, 5))))


def test_no_less_than_nothing_is_left() -> None:
    assert rate_headers(RatesLeft(RateLeft(60, -3)))["x-ratelimit-remaining-requests"] == "0"


@pytest.mark.parametrize(
    ("seconds", "spelled"),
    [
        (0, "0ms"),
        (0.0004, "0ms"),
        (0.12, "120ms"),
        (0.9996, "1s"),
        (1, "1s"),
        (7.664, "7.66s"),
        (59.999, "1m0s"),
        (60, "1m0s"),
        (61.5, "1m1.5s"),
        (360, "6m0s"),
    ],
)
def test_a_time_is_spelled_as_openai_does(seconds: float, spelled: str) -> None:
    assert duration(seconds) == spelled


PAGE = "https://app.example.com"
PREFLIGHT = {
    "Origin": PAGE,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,x-stainless-lang",
}


def client_of(settings: Settings, *origins: str) -> ApiClient:
    return Web.of(settings.model_copy(update={"cors": CorsSettings(origins=origins)})).test_client()


@pytest.mark.parametrize(("origins", "allowed"), [((PAGE,), PAGE), (("*",), "*"), (("https://other", PAGE), PAGE)])
def test_a_named_page_may_ask_and_read(settings: Settings, origins: tuple[str, ...], allowed: str) -> None:
    client = client_of(settings, *origins)
    asked = client.options("/v1/chat/completions", headers=PREFLIGHT)
    assert (asked.status_code, asked.headers["Access-Control-Allow-Origin"]) == (204, allowed)
    assert asked.headers["Access-Control-Allow-Headers"] == "authorization,x-stainless-lang"
    assert "POST" in asked.headers["Access-Control-Allow-Methods"]
    # An error, too: without the header a page could not read why.
    refused = client.get("/v1/models", headers={"Origin": PAGE})
    assert (refused.status_code, refused.headers["Access-Control-Allow-Origin"]) == (401, allowed)
    assert "x-job-id" in refused.headers["Access-Control-Expose-Headers"]
    assert "Access-Control-Allow-Credentials" not in refused.headers


@pytest.mark.parametrize("origins", [(), ("https://other.example.com",), ("http://app.example.com",)])
def test_any_other_page_may_not(settings: Settings, origins: tuple[str, ...]) -> None:
    asked = client_of(settings, *origins).options("/v1/chat/completions", headers=PREFLIGHT)
    assert not [name for name, _ in asked.headers if name.lower().startswith("access-control-")]
    assert asked.headers.get("Vary") == ("Origin" if origins else None)


@pytest.mark.parametrize("origin", ["app.example.com", "https://app.example.com/", "https://", "null"])
def test_what_is_no_origin_is_refused_at_the_start(origin: str) -> None:
    with pytest.raises(ValueError, match="origins"):
        CorsSettings(origins=(origin,))
