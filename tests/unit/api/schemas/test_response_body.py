"""A conversation in pages: none of its turns is missed and none comes twice."""

from uuid import UUID

import pytest
from openai.types.responses import ResponseItem
from pydantic import TypeAdapter

from api.schemas.body import validated
from api.schemas.response_body import InputItemList, InputItemsQuery
from headrace.domain.prompts import Message
from headrace.domain.prompts.tools import ToolCall
from headrace.errors import InvalidRequest

JOB, OTHER = UUID("01a22e506c5e74c582c361719e190cde"), UUID("01a22e506c5e74c582c36172e3aaecf5")
TURNS = [
    Message("system", "0"),
    *(Message("user" if number % 2 else "assistant", str(number)) for number in range(1, 7)),
]


def page(**asked: str) -> InputItemList:
    return InputItemList.of(JOB, TURNS, validated(InputItemsQuery, asked))


def texts(page: InputItemList) -> str:
    return "".join(item.content[0].text for item in page.data)


@pytest.mark.parametrize(("order", "whole"), [("asc", "0123456"), ("desc", "6543210")])
@pytest.mark.parametrize("limit", ["1", "3", "7", "100"])
def test_pages_make_the_whole(order: str, whole: str, limit: str) -> None:
    heard, after = "", {}
    while True:
        found = page(order=order, limit=limit, **after)
        heard += texts(found)
        if not found.has_more:
            break
        after = {"after": found.last_id}
    assert heard == whole


def test_the_newest_turns_come_first_unless_asked_otherwise() -> None:
    assert texts(page()) == "6543210"


def test_an_answer_that_was_sent_back_is_an_output_text() -> None:
    kinds = {item.role: item.content[0].type for item in page().data}
    assert kinds == {"system": "input_text", "user": "input_text", "assistant": "output_text"}


@pytest.mark.parametrize("after", ["", "msg_1", f"msg_{JOB.hex}", f"msg_{JOB.hex}_7", f"msg_{OTHER.hex}_1"])
def test_an_item_of_something_else_is_refused(after: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        page(after=after)
    assert raised.value.param == "after"


def test_calls_and_outputs_are_items_of_their_own() -> None:
    calls = (ToolCall("a", "f", "{}"), ToolCall("b", "g", "{}"))
    turns = [
        Message("user", "Hi"),
        Message("assistant", "I call.", tool_calls=calls[:1]),
        Message("tool", "1", tool_call_id="a"),
        Message("assistant", "", tool_calls=calls),
    ]
    found = InputItemList.of(JOB, turns, validated(InputItemsQuery, {"order": "asc"})).data
    digits = JOB.hex
    assert [item.id for item in found] == [
        *(f"msg_{digits}_0", f"msg_{digits}_1", f"fc_{digits}_1_0", f"fco_{digits}_2"),
        *(f"fc_{digits}_3_0", f"fc_{digits}_3_1"),
    ]
    theirs = TypeAdapter(ResponseItem)
    assert [theirs.validate_python(item.model_dump()).type for item in found] == [
        *("message", "message", "function_call", "function_call_output", "function_call", "function_call"),
    ]
