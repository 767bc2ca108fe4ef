"""Bad input gets a 4xx that names the field; nothing is enqueued, and nothing ends in a 500."""

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.web import ApiClient

GOOD = {"prompt": "Why is the sky blue?"}
LIMIT_BYTES = 8 * 1024 * 1024


def job(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def nested(levels: int) -> Any:
    schema: Any = {}
    for _ in range(levels):
        schema = {"a": schema}
    return {"type": "json_schema", "json_schema": {"schema": schema}}


BAD: dict[str, tuple[bytes, int, str | None, str]] = {
    "unknown model": (job(model="nope"), 404, "model", "model_not_found"),
    "empty prompt": (job(prompt=""), 400, "prompt", "invalid_value"),
    "no prompt": (b"{}", 400, "prompt", "invalid_value"),
    "prompt over the context": (job(prompt="word " * 5000), 400, "prompt", "context_length_exceeded"),
    "answer over the context": (job(max_tokens=2048), 400, "max_tokens", "context_length_exceeded"),
    "10 MB": (job(prompt="x" * 10_000_000), 413, None, "request_too_large"),
    "a byte too much": (job(prompt="x" * (LIMIT_BYTES + 1 - len(job(prompt="")))), 413, None, "request_too_large"),
    "broken JSON": (b'{"prompt": "Hi"', 400, None, "invalid_json"),
    "no body": (b"", 400, None, "invalid_json"),
    "not UTF-8": (b'{"prompt": "\xff"}', 400, None, "invalid_json"),
    "not an object": (b"[1]", 400, None, "invalid_json"),
    "NUL": (b'{"prompt": "a\\u0000"}', 400, "prompt", "invalid_value"),
    "lone surrogate": (b'{"prompt": "\\ud83d"}', 400, "prompt", "invalid_value"),
    "NUL in metadata": (b'{"prompt": "a", "metadata": {"k": "\\u0000"}}', 400, "metadata.k", "invalid_value"),
    "NaN": (b'{"prompt": "a", "temperature": NaN}', 400, "temperature", "invalid_value"),
    "infinity": (b'{"prompt": "a", "top_p": 1e400}', 400, "top_p", "invalid_value"),
    "huge number": (b'{"prompt": "a", "max_tokens": ' + b"9" * 10_000 + b"}", 400, "max_tokens", "invalid_value"),
    "negative max_tokens": (job(max_tokens=-5), 400, "max_tokens", "invalid_value"),
    "text for a number": (job(max_tokens="5"), 400, "max_tokens", "invalid_value"),
    "unknown field": (job(promt="a"), 400, "promt", "unknown_parameter"),
    "deep nesting": (b"[" * 100_000, 400, None, "invalid_json"),
    "deep schema": (
        job(response_format=nested(40)),
        400,
        "response_format.json_schema.schema" + ".a" * 29,
        "invalid_json",
    ),
    "past deadline": (job(deadline=1), 400, "deadline", "deadline_in_past"),
    "private webhook": (job(webhook="http://169.254.169.254/"), 400, "webhook", "webhook_url_not_allowed"),
    "closed overflow": (job(overflow="only"), 400, "overflow", "invalid_value"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_by_name_and_nothing_is_enqueued(
    client: ApiClient, nothing_enqueued: Callable[[], bool], case: str
) -> None:
    body, status, param, code = BAD[case]

    response = client.post("/v1/jobs", data=body, headers={"Idempotency-Key": "k"})

    error = response.get_json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (status, param, code)
    assert set(error) == {"message", "type", "param", "code"}
    assert response.headers["x-request-id"].startswith("req_")
    assert nothing_enqueued()


def test_the_refusal_of_a_long_prompt_has_the_numbers(client: ApiClient) -> None:
    message = client.post("/v1/jobs", data=job(prompt="x" * 40_000, max_tokens=5)).get_json()["error"]["message"]
    for number in ("10002", "5", "2048"):
        assert number in message


@pytest.mark.parametrize(("size", "status"), [(LIMIT_BYTES, 400), (LIMIT_BYTES + 1, 413), (2 * LIMIT_BYTES, 413)])
def test_a_chunked_body_has_the_same_limit(
    client: ApiClient, nothing_enqueued: Callable[[], bool], size: int, status: int
) -> None:
    body = io.BytesIO(job(prompt="x" * (size - len(job(prompt="")))))

    response = client.post("/v1/jobs", input_stream=body, environ_base={"wsgi.input_terminated": True})

    assert response.status_code == status
    assert nothing_enqueued()


@pytest.mark.parametrize("header", ["", "x" * 256, "ü", '""', "a\tb"])
def test_a_bad_idempotency_key_is_refused(client: ApiClient, nothing_enqueued: Callable[[], bool], header: str) -> None:
    response = client.post("/v1/jobs", data=job(), headers={"Idempotency-Key": header})
    assert (response.status_code, response.get_json()["error"]["param"]) == (400, "Idempotency-Key")
    assert nothing_enqueued()


@pytest.mark.parametrize(
    ("path", "status", "param"),
    [
        ("/v1/jobs?limit=0", 400, "limit"),
        ("/v1/jobs?limit=101", 400, "limit"),
        ("/v1/jobs?limit=x", 400, "limit"),
        ("/v1/jobs?status=done", 400, "status"),
        ("/v1/jobs?after=job_1", 400, "after"),
        ("/v1/jobs?unknown=1", 400, "unknown"),
        ("/v1/jobs?limit=5&limit=6", 400, "limit"),
        ("/v1/jobs/job_1", 404, None),
        ("/v1/jobs/%00", 404, None),
        (f"/v1/jobs/job_{'0' * 32}", 404, None),
        (f"/v1/jobs/job_{'0' * 32}?wait=-1", 400, "wait"),
        (f"/v1/jobs/job_{'0' * 32}?wait=591", 400, "wait"),
        (f"/v1/jobs/job_{'0' * 32}?wait=nan", 400, "wait"),
        (f"/v1/responses/resp_{'0' * 32}?stream=true", 404, None),
        (f"/v1/responses/resp_{'0' * 32}?stream=yes!", 400, "stream"),
        (f"/v1/responses/resp_{'0' * 32}?starting_after=1", 400, "starting_after"),
        (f"/v1/responses/resp_{'0' * 32}?stream=true&starting_after=-1", 400, "starting_after"),
        (f"/v1/responses/resp_{'0' * 32}?stream=true&wait=1", 400, "wait"),
        (f"/v1/responses/resp_{'0' * 32}/input_items?order=up", 400, "order"),
        (f"/v1/responses/job_{'0' * 32}", 404, None),
        ("/v1/models/nope", 404, "model"),
        ("/v1/nope", 404, None),
    ],
)
def test_a_bad_address_is_refused(client: ApiClient, path: str, status: int, param: str | None) -> None:
    response = client.get(path)
    assert (response.status_code, response.get_json()["error"]["param"]) == (status, param)


def test_a_model_that_is_not_there_is_told_with_where_to_look(client: ApiClient) -> None:
    for response in (client.get("/v1/models/nope"), client.post("/v1/jobs", data=job(model="nope"))):
        message = response.get_json()["error"]["message"]
        assert message == "The model 'nope' does not exist here. GET /v1/models lists what does."


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.text("\0\ud800a"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = (
    *("model", "prompt", "messages", "max_tokens", "lane", "max_wait", "deadline", "overflow", "max_cost_usd"),
    *("temperature", "top_p", "stop", "seed", "response_format", "metadata", "webhook", "end_user"),
    *("input", "background", "instructions", "text", "service_tier", "tools", "job", "background_options", "user"),
)


@given(
    path=st.sampled_from(["/v1/jobs", "/v1/responses", "/v1/chat/completions"]),
    body=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=5)
    | st.fixed_dictionaries({"prompt": st.text(min_size=1)}, optional=dict.fromkeys(FIELDS[2:], JSON))
    | JSON,
)
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_no_body_ends_in_a_500(client: ApiClient, path: str, body: Any) -> None:
    response = client.post(path, data=json.dumps(body).encode())
    assert response.status_code in {200, 202, 400, 404}, response.get_data()


@given(raw=st.binary(max_size=200))
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_no_bytes_end_in_a_500(client: ApiClient, raw: bytes) -> None:
    assert client.post("/v1/jobs", data=raw).status_code == 400
