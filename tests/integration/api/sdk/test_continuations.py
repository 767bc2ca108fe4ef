"""Conversations that go on from stored responses, through the SDK: composed, counted, and an app's own alone."""

from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai import OpenAI

from headrace.domain.ids import parse_id
from tests.web import ApiClient, Web

ANSWER = "Because of Rayleigh scattering."
QUESTION = "Why is the sky blue?"


def told(sdk: OpenAI, response_id: str) -> list[tuple[str, str]]:
    """What the model was given, as (role, text)."""
    items: Any = sdk.responses.input_items.list(response_id, order="asc").data
    return [(item.role, item.content[0].text) for item in items]


@pytest.fixture
def first(sdk: OpenAI, answering: None) -> Any:
    return sdk.responses.create(input=QUESTION, instructions="Be brief.")


BEFORE = [("system", "Be brief."), ("user", QUESTION), ("assistant", ANSWER)]


def test_the_conversation_of_an_earlier_response_comes_first(sdk: OpenAI, first: Any) -> None:
    second = sdk.responses.create(input="And at night?", previous_response_id=first.id)
    assert second.output_text == ANSWER
    assert told(sdk, second.id) == [*BEFORE, ("user", "And at night?")]
    third = sdk.responses.create(input="So?", previous_response_id=second.id, instructions="Be long.", stream=True)
    events = list(third)
    assert told(sdk, events[-1].response.id) == [
        ("system", "Be long."),
        *BEFORE[1:],
        ("user", "And at night?"),
        ("assistant", ANSWER),
        ("user", "So?"),
    ]


def test_items_are_sent_back_by_their_ids(sdk: OpenAI, first: Any) -> None:
    items: Any = sdk.responses.input_items.list(first.id, order="asc").data
    references: list[Any] = [{"type": "item_reference", "id": each.id} for each in (items[1], first.output[0])]
    second = sdk.responses.create(input=[*references, {"role": "user", "content": "And?"}])
    assert told(sdk, second.id) == [*BEFORE[1:], ("user", "And?")]


def test_reasoning_by_its_id_is_left_out_as_where_it_is_sent_back(sdk: OpenAI, answering: None) -> None:
    thoughtful = sdk.responses.create(input="Why? Do think.")
    references: list[Any] = [{"type": "item_reference", "id": each.id} for each in thoughtful.output]
    assert [each.type for each in thoughtful.output] == ["reasoning", "message"]
    second = sdk.responses.create(input=[*references, {"role": "user", "content": "And?"}])
    assert told(sdk, second.id) == [("assistant", ANSWER), ("user", "And?")]


def test_what_comes_before_is_counted(sdk: OpenAI, first: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="maximum context length is 2048 tokens") as raised:
        sdk.responses.create(input="word " * 1635, previous_response_id=first.id)
    assert (raised.value.code, raised.value.param) == ("context_length_exceeded", "input")
    # Alone it fits.
    sdk.responses.create(input="word " * 1635, background=True)


def references(first: Any) -> list[tuple[dict[str, Any], str]]:
    """Each way to name a response or a part of it, with the field that does."""
    digits = parse_id(first.id).hex
    items = [f"msg_{digits}", f"msg_{digits}_0", f"rs_{digits}"]
    return [
        ({"input": "And?", "previous_response_id": first.id}, "previous_response_id"),
        *(({"input": [{"type": "item_reference", "id": item}]}, "input.0.id") for item in items),
    ]


def refused(sdk: OpenAI, arguments: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        sdk.responses.create(**arguments)
    assert (raised.value.code, raised.value.param) == ("not_found", param)


def test_another_apps_responses_are_not_found(
    make_sdk: Callable[..., OpenAI], make_key: Callable[[str], str], first: Any
) -> None:
    for arguments, param in references(first):
        refused(make_sdk(make_key("other")), arguments, param)


def test_erased_responses_are_not_found(sdk: OpenAI, first: Any) -> None:
    second = sdk.responses.create(input="And?", previous_response_id=first.id)
    sdk.responses.delete(first.id)
    for arguments, param in references(first):
        refused(sdk, arguments, param)
    # What was composed of it is the later response's own.
    assert told(sdk, second.id)[:3] == BEFORE


@pytest.mark.parametrize(
    "item", ["msg_1", f"msg_{'0' * 32}", f"fc_{'0' * 32}", "", "msg_" + "0" * 32 + "_0", "rs_" + "0" * 32]
)
def test_what_never_was_is_not_found(sdk: OpenAI, item: str) -> None:
    refused(sdk, {"input": [{"type": "item_reference", "id": item}]}, "input.0.id")
    refused(sdk, {"input": "Hi", "previous_response_id": item or "x"}, "previous_response_id")


def test_a_place_beyond_the_last_turn_is_not_found(sdk: OpenAI, first: Any) -> None:
    refused(sdk, {"input": [{"type": "item_reference", "id": f"msg_{parse_id(first.id).hex}_2"}]}, "input.0.id")


def test_a_response_that_has_no_answer_yet_can_be_continued_later(sdk: OpenAI, finish: Callable[..., None]) -> None:
    waiting = sdk.responses.create(input=QUESTION, background=True)
    with pytest.raises(openai.ConflictError) as raised:
        sdk.responses.create(input="And?", previous_response_id=waiting.id)
    assert raised.value.code == "job_not_ended"
    finish(parse_id(waiting.id))
    assert sdk.responses.create(input="And?", previous_response_id=waiting.id, background=True).status == "queued"


def test_a_response_without_an_answer_cannot(sdk: OpenAI) -> None:
    cancelled = sdk.responses.create(input=QUESTION, background=True)
    sdk.responses.cancel(cancelled.id)
    with pytest.raises(openai.BadRequestError, match="no answer") as raised:
        sdk.responses.create(input="And?", previous_response_id=cancelled.id)
    assert raised.value.param == "previous_response_id"


def test_a_request_that_is_sent_again_finds_its_job_though_what_it_continues_is_erased(
    make_sdk: Callable[..., OpenAI], sdk: OpenAI, first: Any
) -> None:
    again = {"input": "And?", "previous_response_id": first.id, "extra_headers": {"Idempotency-Key": "k"}}
    second = sdk.responses.create(**again)
    sdk.responses.delete(first.id)
    assert sdk.responses.create(**again).id == second.id


@pytest.fixture
def small(build_web: Callable[..., Web]) -> Web:
    """A server that takes bodies of 1,000 bytes at most."""
    return build_web(body_limit_bytes=1000)


def test_what_is_composed_is_bounded_as_a_body_is(
    sdk: OpenAI, client_of: Callable[..., ApiClient], key: str, small: Web, answering: None
) -> None:
    first = sdk.responses.create(input="x" * 990)
    client = client_of(key, small)
    for more in (
        {"input": "And?", "previous_response_id": first.id},
        {"input": [{"type": "item_reference", "id": first.output[0].id}, {"role": "user", "content": "And?"}]},
    ):
        response = client.post("/v1/responses", json=more)
        assert response.status_code == 400
        assert response.get_json()["error"]["code"] == "context_length_exceeded"
