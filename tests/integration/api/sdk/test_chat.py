"""Chat completions through the unchanged SDK: waiting and streaming, and never a 200 without an answer."""

import threading
from collections.abc import Callable
from typing import Any

import openai
import pytest
import sqlalchemy as sa
from openai import OpenAI

from headrace.domain.fleet import WorkerInfo
from headrace.domain.ids import new_id, parse_id
from headrace.domain.states import JobState
from headrace.store import Store, states
from headrace.store.fleet import workers
from headrace.tables import jobs

ANSWER = "Because of Rayleigh scattering."


def create(sdk: OpenAI, **arguments: Any) -> Any:
    messages = [{"role": "user", "content": "Why is the sky blue?"}]
    return sdk.chat.completions.create(**{"messages": messages, "model": sdk.models.list().data[0].id, **arguments})


@pytest.mark.usefixtures("answering")
def test_an_answer_is_waited_for(sdk: OpenAI) -> None:
    done = create(sdk, max_completion_tokens=50, seed=1, stop=["x"], service_tier="flex", metadata={"k": "v"}, n=1)
    [choice] = done.choices
    assert (choice.message.content, choice.message.role, choice.finish_reason) == (ANSWER, "assistant", "stop")
    assert (done.usage.prompt_tokens, done.usage.completion_tokens, done.usage.total_tokens) == (9, 7, 16)
    assert done.usage.prompt_tokens_details.cached_tokens == 2
    assert done.service_tier == "flex"
    assert (done.job["lane"], done.job["max_tokens"]) == ("low", 50)
    assert done._request_id.startswith("req_")


@pytest.mark.usefixtures("answering")
def test_an_answer_can_be_sent_back(sdk: OpenAI) -> None:
    message = create(sdk).choices[0].message
    again = create(sdk, messages=[{"role": "user", "content": "Hi"}, message, {"role": "user", "content": "And?"}])
    assert again.choices[0].message.content == ANSWER


@pytest.mark.usefixtures("answering")
def test_the_header_names_the_job(sdk: OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Hi"}]
    raw = sdk.chat.completions.with_raw_response.create(messages=messages, model=sdk.models.list().data[0].id)
    assert parse_id(raw.headers["x-job-id"]) == parse_id(raw.parse().id)


@pytest.mark.usefixtures("answering")
def test_a_stream_tells_the_answer_and_its_usage(sdk: OpenAI) -> None:
    chunks = list(create(sdk, stream=True, stream_options={"include_usage": True}))
    told = [choice for chunk in chunks for choice in chunk.choices]
    assert told[0].delta.role == "assistant"
    assert "".join(choice.delta.content or "" for choice in told) == ANSWER
    assert [choice.finish_reason for choice in told if choice.finish_reason] == ["stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == 16


@pytest.mark.usefixtures("answering")
def test_each_token_comes_with_its_log_probability(sdk: OpenAI) -> None:
    [choice] = create(sdk, logprobs=True, top_logprobs=2).choices
    assert "".join(token.token for token in choice.logprobs.content) == f"{ANSWER}<|im_end|>"
    assert [top.token for top in choice.logprobs.content[0].top_logprobs] == ["Because of ", "other0"]
    assert bytes(choice.logprobs.content[0].bytes) == b"Because of "

    told = [choice for chunk in create(sdk, logprobs=True, top_logprobs=2, stream=True) for choice in chunk.choices]
    pieces = [(each.delta.content, [token.token for token in each.logprobs.content]) for each in told if each.logprobs]
    words = ["Because of ", "Rayleigh ", "scattering."]
    assert pieces == [*((word, [word]) for word in words), ("", ["<|im_end|>"])]
    assert [token for each in told if each.logprobs for token in each.logprobs.content] == choice.logprobs.content


@pytest.mark.usefixtures("answering")
def test_what_the_model_thinks_comes_apart_from_what_it_says(sdk: OpenAI) -> None:
    question = [{"role": "user", "content": "Why is the sky blue? Do think."}]
    done = create(sdk, messages=question)
    message = done.choices[0].message
    assert (message.content, message.reasoning) == (ANSWER, "Light, and air: ")
    assert done.usage.completion_tokens_details.reasoning_tokens == 3

    told = [choice.delta for chunk in create(sdk, messages=question, stream=True) for choice in chunk.choices]
    thoughts = [delta.reasoning for delta in told if "reasoning" in delta.model_extra]
    assert thoughts == ["Light, ", "and air: "]
    assert "".join(delta.content or "" for delta in told) == ANSWER

    again = create(sdk, messages=[*question, message, {"role": "user", "content": "And?"}])
    assert (again.choices[0].message.reasoning, again.usage.completion_tokens_details.reasoning_tokens) == (None, 0)


@pytest.mark.usefixtures("answering")
def test_the_sdks_own_helper_collects_log_probabilities(sdk: OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Hi"}]
    model = sdk.models.list().data[0].id
    with sdk.chat.completions.stream(messages=messages, model=model, logprobs=True) as stream:
        logprobs = stream.get_final_completion().choices[0].logprobs
    assert logprobs is not None
    assert len(logprobs.content or ()) == 4


@pytest.mark.usefixtures("answering")
def test_no_log_probabilities_come_unless_they_are_asked_for(sdk: OpenAI) -> None:
    assert create(sdk).choices[0].logprobs is None


@pytest.mark.usefixtures("answering")
def test_a_stream_has_no_usage_unless_asked(sdk: OpenAI) -> None:
    assert all(chunk.usage is None for chunk in create(sdk, stream=True))


@pytest.mark.usefixtures("answering")
def test_the_sdks_own_helper_collects_a_stream(sdk: OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Hi"}]
    with sdk.chat.completions.stream(messages=messages, model=sdk.models.list().data[0].id) as stream:
        assert stream.get_final_completion().choices[0].message.content == ANSWER


def end_as(store: Store, state: JobState, **values: Any) -> None:
    """End the one job that is queued, as soon as it is there."""
    rows: Any = []
    while not rows:
        with store.begin() as db:
            db.execute(sa.select(jobs.c.id).with_for_update())
            rows = states.transition(db, [JobState.QUEUED], state, **values)


@pytest.mark.parametrize(
    ("state", "values", "error", "status", "code"),
    [
        (JobState.FAILED, {"error_code": "engine_fault"}, openai.InternalServerError, 502, "engine_fault"),
        (JobState.FAILED, {"error_code": "deadline_exceeded"}, openai.InternalServerError, 504, "deadline_exceeded"),
        (JobState.FAILED, {"error_code": "prompt_rejected"}, openai.BadRequestError, 400, "prompt_rejected"),
        (JobState.CANCELLED, {}, openai.ConflictError, 409, "job_cancelled"),
    ],
)
def test_a_job_that_went_wrong_is_an_error_and_is_not_ordered_again(
    make_sdk: Callable[..., OpenAI],
    key: str,
    store: Store,
    calls: list[str],
    state: JobState,
    values: dict[str, Any],
    error: type[openai.APIStatusError],
    status: int,
    code: str,
) -> None:
    ending = threading.Thread(target=end_as, args=(store, state), kwargs=values)
    ending.start()

    with pytest.raises(error) as raised:
        create(make_sdk(key, max_retries=2))

    ending.join()
    assert (raised.value.status_code, raised.value.code) == (status, code)
    assert raised.value.response.headers["x-job-id"].startswith("job_")
    assert calls.count("POST /v1/chat/completions") == 1


@pytest.mark.parametrize(("workers_live", "tries"), [(True, 2), (False, 1)], ids=["a worker serves", "none comes"])
def test_a_job_that_expired_is_ordered_again_where_that_may_help(
    make_sdk: Callable[..., OpenAI], key: str, store: Store, calls: list[str], workers_live: bool, tries: int
) -> None:
    if workers_live:
        with store.begin() as db:
            info = WorkerInfo(new_id(), "gpu@test", "host-1", "chat", "simulator", "served", 8, 2048, 65_536, 16)
            workers.register(db, info, 600)
    with pytest.raises(openai.InternalServerError) as raised:
        create(make_sdk(key, max_retries=1), extra_body={"job": {"max_wait": 0.1}})
    assert (raised.value.status_code, raised.value.code) == (503, "expired")
    assert calls.count("POST /v1/chat/completions") == tries


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools.0.type"),
        ({"n": 129}, "n"),
        ({"n": 2, "temperature": 0}, "n"),
        ({"logit_bias": {"1": 200}}, "logit_bias.1"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"modalities": ["audio"]}, "modalities.0"),
        ({"store": True}, "store"),
        ({"messages": []}, "messages"),
    ],
)
def test_what_is_not_served_is_refused_by_name(sdk: OpenAI, arguments: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        create(sdk, **arguments)
    assert raised.value.param == param
