"""Responses through the unchanged SDK: in the background, waiting, streaming, and what can be done with one later."""

import threading
from collections.abc import Callable
from typing import Any

import openai
import pytest
import sqlalchemy as sa
from openai import OpenAI
from redis import Redis

from headrace.broker.messages import list_key
from headrace.domain.ids import parse_id
from headrace.domain.prompts.payloads import read_sampling
from headrace.store import Store
from headrace.tables import job_texts

PROMPT = "Why is the sky blue?"
THOUGHTFUL = "Why is the sky blue? Do think."
ANSWER = "Because of Rayleigh scattering."


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
    assert (done.status, done.output_text) == ("completed", ANSWER)
    assert (done.usage.input_tokens, done.usage.output_tokens, done.usage.total_tokens) == (9, 7, 16)
    assert done.usage.input_tokens_details.cached_tokens == 2
    assert done.job["cost"] == {"usd": "0.000001230", "currency": "USD", "price_version": "test-1"}
    assert done.job["engine"] == "simulator"


def test_a_response_says_how_much_was_to_be_thought(sdk: OpenAI, store: Store) -> None:
    made, plain = create(sdk, reasoning={"effort": "low"}), create(sdk)
    assert made.reasoning == sdk.responses.retrieve(made.id).reasoning
    assert [(each.reasoning.effort, each.reasoning.summary) for each in (made, plain)] == [("low", None), (None, None)]
    with store.begin() as db:
        stored = sa.select(job_texts.c.sampling).where(job_texts.c.job_id == parse_id(made.id))
        assert read_sampling(db.scalar(stored)).reasoning_effort == "low"


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


@pytest.mark.usefixtures("answering")
def test_what_a_caller_leaves_out_is_chosen_by_how_it_takes_the_answer_and_echoed(sdk: OpenAI) -> None:
    background = create(sdk)
    waiting = create(sdk, background=False)
    [*_, last] = create(sdk, background=False, stream=True)
    low = create(sdk, background=False, service_tier="flex")
    for made, max_wait_s in ((background, 600), (waiting, 30), (last.response, 30), (low, 4 * 3600)):
        assert (made.max_output_tokens, made.job["max_tokens"], made.job["max_wait"]) == (1024, 1024, max_wait_s)


def test_our_own_fields_travel_in_job(sdk: OpenAI) -> None:
    made = create(
        sdk, extra_body={"job": {"lane": "batch", "max_wait": 60, "overflow": "never", "max_cost_usd": "0.1"}}
    )
    assert (made.job["lane"], made.job["queue"], made.job["max_wait"]) == ("batch", "chat.batch", 60)


def test_a_cancel_is_seen_at_once_and_can_be_repeated(sdk: OpenAI, redis: Redis) -> None:
    made = create(sdk)
    assert [sdk.responses.cancel(made.id).status for _ in range(2)] == ["cancelled", "cancelled"]
    assert sdk.responses.retrieve(made.id).status == "cancelled"
    assert redis.llen(list_key("chat.normal")) == 0


def test_a_retried_create_is_one_response(sdk: OpenAI) -> None:
    headers = {"Idempotency-Key": "a"}
    assert create(sdk, extra_headers=headers).id == create(sdk, extra_headers=headers).id


@pytest.mark.usefixtures("answering")
def test_without_background_the_answer_is_waited_for(sdk: OpenAI) -> None:
    raw = sdk.responses.with_raw_response.create(input=PROMPT)
    done = raw.parse()
    assert (done.status, done.output_text, done.background) == ("completed", ANSWER, False)
    assert parse_id(raw.headers["x-job-id"]) == parse_id(done.id)
    with pytest.raises(openai.BadRequestError) as raised:
        sdk.responses.cancel(done.id)
    assert raised.value.code == "not_background"


def test_a_waiting_request_tells_of_a_job_that_expired(sdk: OpenAI) -> None:
    done = create(sdk, background=False, extra_body={"job": {"max_wait": 0.1}})
    assert (done.status, done.error.code, done.error.type) == ("failed", "server_error", "expired")


@pytest.mark.usefixtures("answering")
@pytest.mark.parametrize("background", [True, False])
def test_a_stream_tells_the_whole_story(sdk: OpenAI, background: bool) -> None:
    events = list(create(sdk, background=background, stream=True))

    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.queued"]
    assert kinds[-1] == "response.completed"
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == ANSWER
    numbers = [event.sequence_number for event in events]
    assert numbers == list(range(len(numbers)))
    last = events[-1].response
    assert (last.status, last.output_text, last.background) == ("completed", ANSWER, background)
    assert sdk.responses.retrieve(last.id).output_text == ANSWER


@pytest.mark.usefixtures("answering")
def test_each_token_comes_with_its_log_probability(sdk: OpenAI) -> None:
    events = list(create(sdk, include=["message.output_text.logprobs"], top_logprobs=2, stream=True))

    text = events[-1].response.output[0].content[0]
    assert [token.token for token in text.logprobs] == ["Because of ", "Rayleigh ", "scattering.", "<|im_end|>"]
    assert [top.token for top in text.logprobs[0].top_logprobs] == ["Because of ", "other0"]
    assert bytes(text.logprobs[0].bytes) == b"Because of "
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert [(each.delta, [token.token for token in each.logprobs]) for each in deltas] == [
        *((word, [word]) for word in ("Because of ", "Rayleigh ", "scattering.")),
        ("", ["<|im_end|>"]),
    ]
    assert sdk.responses.retrieve(events[-1].response.id).output[0] == events[-1].response.output[0]


@pytest.mark.usefixtures("answering")
def test_what_the_model_thinks_is_an_item_before_its_answer(sdk: OpenAI) -> None:
    events = list(create(sdk, input=THOUGHTFUL, stream=True))

    thoughts = [event.delta for event in events if event.type == "response.reasoning_text.delta"]
    assert thoughts == ["Light, ", "and air: "]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == ANSWER
    last = events[-1].response
    assert [item.type for item in last.output] == ["reasoning", "message"]
    assert last.output[0].content[0].text == "Light, and air: "
    assert last.output_text == ANSWER
    assert last.usage.output_tokens_details.reasoning_tokens == 3
    assert sdk.responses.retrieve(last.id).output == last.output

    again = create(
        sdk, input=[{"role": "user", "content": THOUGHTFUL}, *last.output, {"role": "user", "content": "So?"}]
    )
    items = sdk.responses.input_items.list(again.id, order="asc").data
    assert [item.content[0].text for item in items] == [THOUGHTFUL, ANSWER, "So?"]


@pytest.mark.usefixtures("answering")
@pytest.mark.parametrize("question", [PROMPT, THOUGHTFUL], ids=["plain", "thoughtful"])
def test_a_stream_is_resumed_after_any_of_its_events(sdk: OpenAI, question: str) -> None:
    def told(event: Any) -> tuple[Any, ...]:
        return event.sequence_number, event.type, getattr(event, "delta", None)

    whole = list(create(sdk, input=question, stream=True))
    response_id = whole[0].response.id

    for event in whole:
        after = event.sequence_number
        rest = sdk.responses.retrieve(response_id, stream=True, starting_after=after)
        assert [told(each) for each in rest] == [told(each) for each in whole if each.sequence_number > after]


@pytest.mark.usefixtures("answering")
def test_the_sdks_own_helper_follows_a_stream_to_its_end(sdk: OpenAI) -> None:
    made = create(sdk, stream=True)
    response_id = next(iter(made)).response.id
    made.close()
    with sdk.responses.stream(response_id=response_id, starting_after=1) as stream:
        assert stream.get_final_response().output_text == ANSWER


def test_a_response_without_a_stream_has_none_to_resume(sdk: OpenAI) -> None:
    made = create(sdk)
    with pytest.raises(openai.BadRequestError) as raised:
        sdk.responses.retrieve(made.id, stream=True)
    assert raised.value.code == "stream_not_available"


def test_a_deleted_response_is_found_no_more(sdk: OpenAI, finish: Callable[..., None]) -> None:
    made = create(sdk)
    finish(parse_id(made.id))

    sdk.responses.delete(made.id)

    for call in (sdk.responses.retrieve, sdk.responses.cancel, sdk.responses.delete, sdk.responses.input_items.list):
        with pytest.raises(openai.NotFoundError):
            call(made.id)


def test_a_response_that_has_not_ended_cannot_be_deleted(sdk: OpenAI) -> None:
    made = create(sdk)
    with pytest.raises(openai.ConflictError) as raised:
        sdk.responses.delete(made.id)
    assert raised.value.code == "job_not_ended"
    sdk.responses.cancel(made.id)
    sdk.responses.delete(made.id)


def test_the_input_is_listed_page_by_page(sdk: OpenAI) -> None:
    turns: Any = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": [{"type": "input_text", "text": PROMPT}]},
    ]
    made = create(sdk, instructions="Be brief.", input=turns)

    items = list(sdk.responses.input_items.list(made.id, order="asc", limit=1))

    assert [item.role for item in items] == ["system", "user", "assistant", "user"]
    assert [item.content[0].text for item in items] == ["Be brief.", "Hi", "Hello.", PROMPT]
    newest = sdk.responses.input_items.list(made.id, limit=2)
    assert [item.id for item in newest.data] == [items[3].id, items[2].id]
    assert newest.has_more
    assert [item.id for item in sdk.responses.input_items.list(made.id, after=items[2].id)] == [
        items[1].id,
        items[0].id,
    ]


def test_the_models_are_listed_and_read(sdk: OpenAI) -> None:
    [model] = list(sdk.models.list())
    assert sdk.models.retrieve(model.id).id == model.id
    with pytest.raises(openai.NotFoundError):
        sdk.models.retrieve("nope")
