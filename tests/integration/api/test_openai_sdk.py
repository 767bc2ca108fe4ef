"""The unchanged official SDK, strict response validation on, over a real HTTP server."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from redis import Redis

from headrace.broker import list_key
from headrace.jobs import parse_id

PROMPT = "Why is the sky blue?"


@pytest.fixture
def sdk(base_url: str, key: str) -> Iterator[OpenAI]:
    with OpenAI(api_key=key, base_url=f"{base_url}/v1", _strict_response_validation=True, max_retries=0) as client:
        yield client


def create(sdk: OpenAI, **arguments: Any) -> Any:
    return sdk.responses.create(**{"input": PROMPT, "background": True, **arguments})


def test_a_response_is_created_and_retrieved_until_it_is_completed(sdk: OpenAI, finish: Callable[..., None]) -> None:
    model = next(iter(sdk.models.list())).id
    made = create(sdk, model=model, instructions="Be brief.", metadata={"k": "v"}, service_tier="priority")
    assert (made.status, made.service_tier, made.metadata, made.model) == ("queued", "priority", {"k": "v"}, model)
    assert made.job["position"] == 1
    assert made._request_id.startswith("req_")
    assert sdk.responses.retrieve(made.id).status == "queued"

    finish(parse_id(made.id))

    done = sdk.responses.retrieve(made.id)
    assert (done.status, done.output_text) == ("completed", "Because of Rayleigh scattering.")
    assert (done.usage.input_tokens, done.usage.output_tokens, done.usage.total_tokens) == (9, 7, 16)
    assert done.usage.input_tokens_details.cached_tokens == 2
    assert done.job["cost"] == {"usd": "0.000001230", "currency": "USD", "price_version": "test-1"}
    assert done.job["engine"] == "simulator"


def test_a_poll_holds_on_until_the_end(sdk: OpenAI, finish: Callable[..., None]) -> None:
    made = create(sdk)
    ending = threading.Timer(0.1, finish, [parse_id(made.id)])
    ending.start()
    assert sdk.responses.retrieve(made.id, extra_query={"wait": "30"}).status == "completed"
    ending.join()


def test_an_answer_cut_at_its_limit_is_incomplete(sdk: OpenAI, finish: Callable[..., None]) -> None:
    made = create(sdk, max_output_tokens=7)
    finish(parse_id(made.id), finish_reason="length")
    done = sdk.responses.retrieve(made.id)
    assert (done.status, done.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert done.output_text


def test_our_own_fields_travel_in_job(sdk: OpenAI) -> None:
    made = create(
        sdk, extra_body={"job": {"lane": "batch", "max_wait": 60, "overflow": "never", "max_cost_usd": "0.1"}}
    )
    assert (made.job["lane"], made.job["queue"]) == ("batch", "chat.batch")


def test_a_cancel_is_seen_at_once(sdk: OpenAI, redis: Redis) -> None:
    made = create(sdk)
    assert sdk.responses.cancel(made.id).status == "cancelled"
    assert sdk.responses.retrieve(made.id).status == "cancelled"
    assert redis.llen(list_key("chat.normal")) == 0


def test_a_retried_create_is_one_response(sdk: OpenAI) -> None:
    headers = {"Idempotency-Key": "a"}
    assert create(sdk, extra_headers=headers).id == create(sdk, extra_headers=headers).id


@pytest.mark.parametrize(
    ("arguments", "error", "code", "param"),
    [
        ({"model": "nope"}, openai.NotFoundError, "model_not_found", "model"),
        ({"input": ""}, openai.BadRequestError, "invalid_value", "input"),
        ({"input": "word " * 5000}, openai.BadRequestError, "context_length_exceeded", "input"),
        ({"background": False}, openai.BadRequestError, "unsupported_parameter", "background"),
        ({"tools": [{"type": "web_search"}]}, openai.BadRequestError, "unsupported_parameter", "tools"),
        ({"max_output_tokens": -1}, openai.BadRequestError, "invalid_value", "max_output_tokens"),
        ({"extra_body": {"job": {"foo": 1}}}, openai.BadRequestError, "unknown_parameter", "job.foo"),
        ({"extra_body": {"foo": 1}}, openai.BadRequestError, "unknown_parameter", "foo"),
    ],
)
def test_a_refusal_arrives_as_the_sdks_own_error(
    sdk: OpenAI, arguments: dict[str, Any], error: type[openai.APIStatusError], code: str, param: str
) -> None:
    with pytest.raises(error) as raised:
        create(sdk, **arguments)
    assert (raised.value.code, raised.value.param) == (code, param)


def test_a_wrong_key_is_an_authentication_error(base_url: str) -> None:
    stranger = OpenAI(api_key="hr-wrong", base_url=f"{base_url}/v1", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError):
        stranger.models.list()


def test_the_models_are_listed_and_read(sdk: OpenAI) -> None:
    [model] = list(sdk.models.list())
    assert sdk.models.retrieve(model.id).id == model.id
    with pytest.raises(openai.NotFoundError):
        sdk.models.retrieve("nope")
