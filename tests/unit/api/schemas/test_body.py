"""A body is read strictly: what JSON can say and nothing behind it can hold is refused, by name."""

import json
import time
import tracemalloc
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError

from api.schemas.body import NESTING_LIMIT, VALUES_LIMIT, _values, parse_object, suggested, validated
from api.schemas.chat import ChatRequest
from api.schemas.completions import CompletionRequest
from api.schemas.embeddings import EmbeddingRequest
from api.schemas.fields import Request
from api.schemas.jobs import JobRequest
from api.schemas.response_request import ResponseRequest
from api.schemas.tokens import DetokenizeRequest, TokenizeRequest
from headrace.errors import HeadraceError, InvalidRequest


def nested(levels: int) -> bytes:
    """An object with that many levels, the outermost included."""
    return b'{"a":' * levels + b"1" + b"}" * levels


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        (b'{"prompt": "a\\u0000b"}', "prompt"),
        (b'{"prompt": "\\ud800"}', "prompt"),
        (b'{"prompt": "\\udc00\\ud800"}', "prompt"),
        (b'{"messages": [{"content": "ok"}, {"content": "\\u0000"}]}', "messages.1.content"),
        (b'{"stop": ["\\udfff"]}', "stop.0"),
        (b'{"metadata": {"a\\u0000": "b"}}', "metadata.a\ufffd"),
        (b'{"temperature": NaN}', "temperature"),
        (b'{"temperature": -Infinity}', "temperature"),
        (b'{"temperature": 1e400}', "temperature"),
        (b'{"seed": ' + b"9" * 20 + b"}", "seed"),
        (b'{"seed": -' + b"9" * 100_000 + b"}", "seed"),
        (b'{"prompt": "a", "prompt": "b"}', "prompt"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_cannot_be_held_is_refused_by_name(raw: bytes, param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse_object(raw)
    assert raised.value.param == param
    str(raised.value).encode()  # The message itself can be sent.


@pytest.mark.parametrize("unit", [b"\0", *(code.encode("utf-8", "surrogatepass") for code in "\ud800\udfff")], ids=repr)
def test_what_is_searched_only_where_there_are_escapes_is_no_json_without_them(unit: bytes) -> None:
    for raw in (b'{"prompt": "a%sb"}' % unit, b'{"metadata": {"a%sb": "c"}}' % unit):
        assert b"\\u" not in raw
        with pytest.raises(InvalidRequest) as raised:
            parse_object(raw)
        assert raised.value.code == "invalid_json"


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b'"text"', b"null", b'{"a":', b"{'a': 1}", b'{"a": 1} x', b'{"a": "\xed\xa0\x80"}', b"\xff\xfe{}"],
)
def test_what_is_no_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse_object(raw)
    assert raised.value.code == "invalid_json"


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"prompt=Why%3F&lane=high", "name=value"),
        (b"metadata[row]=%ff\xff", "name=value"),
        (b'--x1\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n\xff', "multipart/form-data"),
    ],
)
def test_a_form_is_named_as_one(raw: bytes, kind: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        parse_object(raw)
    assert str(error.value).startswith(f"The body is a form ({kind}). Send one JSON object")
    assert error.value.code == "invalid_json"


@pytest.mark.parametrize("raw", [b"{'prompt': 1}", b"prompt", b" ", b"--", b'{"prompt": "a=b"', b"=", b"a b=c"])
def test_what_is_no_form_is_not_called_one(raw: bytes) -> None:
    with pytest.raises(InvalidRequest, match="The body is not valid JSON: "):
        parse_object(raw)


def test_an_empty_body_is_called_empty() -> None:
    with pytest.raises(InvalidRequest, match=r"The body is empty\. Send one JSON object\.") as raised:
        parse_object(b"")
    assert raised.value.code == "invalid_json"


def test_nesting_is_bounded() -> None:
    assert parse_object(nested(NESTING_LIMIT))
    for levels in (NESTING_LIMIT + 1, 500, 90_000):
        with pytest.raises(InvalidRequest, match="deeper"):
            parse_object(nested(levels))


def wide(items: int, item: bytes = b"1") -> bytes:
    """An object with a list of that many items."""
    return b'{"a":[' + b",".join([item] * items) + b"]}"


def test_width_is_bounded_whatever_it_is_made_of() -> None:
    assert parse_object(wide(VALUES_LIMIT - 1))
    fields = b"{" + b",".join(b'"%d":1' % number for number in range(VALUES_LIMIT + 1)) + b"}"
    for raw in (wide(VALUES_LIMIT), wide(VALUES_LIMIT, b'""'), wide(VALUES_LIMIT // 2, b'{"b":1}'), fields):
        with pytest.raises(InvalidRequest, match="more than 100000 values") as raised:
            parse_object(raw)
        assert raised.value.code == "invalid_json"


MANY = {
    "objects": b"{},",
    "lists": b"[],",
    "nested lists": b"[[[[]]]],",
    "numbers": b"1,",
    "texts": b'"ab",',
    "texts with commas": b'"a,\\",[",',
}


@pytest.mark.parametrize("item", MANY.values(), ids=MANY)
def test_too_many_values_are_refused_before_any_of_them_takes_memory(item: bytes) -> None:
    raw = b'{"messages":[' + item * (8 * 2**20 // len(item) - 10) + b"1]}"
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest, match="more than 100000 values"):
            parse_object(raw)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 100_000


@pytest.mark.parametrize(
    "raw", [b'{"a":"' + b"," * 10**6, b'{"a":"' + b'\\"' * 10**6, b'"' * 10**6, b"[ " * 10**6 + b"\\"]
)
def test_counting_values_is_linear_whatever_the_bytes_are(raw: bytes) -> None:
    began_s = time.process_time()
    with pytest.raises(InvalidRequest):
        parse_object(raw + b"," * VALUES_LIMIT)
    assert time.process_time() - began_s < 5


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='a",\\[]{}é '),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet='a",\\[{'), inner),
    max_leaves=30,
)


def items(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return len(inner) + sum(map(items, inner))


@hypothesis.given(JSON, st.integers(0, 20), st.sampled_from([None, 1]))
def test_values_are_counted_as_they_will_be_read(value: Any, limit: int, indent: int | None) -> None:
    raw = json.dumps(value, indent=indent, ensure_ascii=False).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("api.schemas.body.VALUES_LIMIT", limit)
        assert (_values(raw) > limit) == (items(value) > limit)


def test_a_field_that_is_given_twice_is_found_among_many() -> None:
    names = [b'"%d":1' % number for number in range(VALUES_LIMIT - 1)]
    began_s = time.process_time()
    with pytest.raises(InvalidRequest, match="given twice") as raised:
        parse_object(b"{" + b",".join([*names, names[-1]]) + b"}")
    assert raised.value.param == str(VALUES_LIMIT - 2)
    # To look through all of them for each would take an hour.
    assert time.process_time() - began_s < 20


@pytest.mark.parametrize(
    ("schema", "body", "param"),
    [
        (JobRequest, {"messages": [1] * 1000}, "messages.0"),
        (JobRequest, {"prompt": "a", "stop": [""] * 1000}, "stop.0"),
        (ChatRequest, {"messages": [{}] * 1000}, "messages.0.role"),
        (ChatRequest, {"messages": [{"role": "user", "content": [1] * 1000}]}, "messages.0.content.0"),
        (ResponseRequest, {"input": [{}] * 1000}, "input.0.role"),
        (ResponseRequest, {"input": [{"role": "user", "content": [{}] * 1000}]}, "input.0.content.0.type"),
    ],
)
def test_of_a_list_only_the_first_complaint_is_written(
    schema: type[BaseModel], body: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidRequest) as raised:
        validated(schema, body)
    assert raised.value.param == param
    cause = raised.value.__cause__
    assert isinstance(cause, ValidationError)
    assert cause.error_count() <= 2


def test_text_beyond_ascii_is_kept_as_it_is() -> None:
    assert parse_object('{"a": "ü\U0001f600", "b": "\\ud83d\\ude00"}'.encode()) == {
        "a": "ü\U0001f600",
        "b": "\U0001f600",
    }


class Inner(Request):
    number: int


class Outer(Request):
    inner: Inner
    many: list[Inner] = Field([], min_length=1, max_length=2)
    named: dict[str, int] = Field(default_factory=dict)


@pytest.mark.parametrize(
    ("values", "param", "code"),
    [
        ({}, "inner", "missing_parameter"),
        ({"inner": {"number": "5"}}, "inner.number", "invalid_value"),
        ({"inner": {"number": True}}, "inner.number", "invalid_value"),
        ({"inner": {"number": 5.0}}, "inner.number", "invalid_value"),
        ({"inner": {"number": 1}, "many": [{"number": 1}, {}]}, "many.1.number", "missing_parameter"),
        ({"inner": {"number": 1, "else": 2}}, "inner.else", "unknown_parameter"),
        ({"inner": {"number": 1}, "x" * 1000: 2}, "x" * 80, "unknown_parameter"),
    ],
)
def test_a_wrong_value_is_named_by_its_path(values: dict[str, object], param: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        validated(Outer, values)
    assert (raised.value.param, raised.value.code) == (param, code)
    assert param in str(raised.value)


@pytest.mark.parametrize(
    ("schema", "name", "meant"),
    [
        (ChatRequest, "temprature", "Did you mean 'temperature'?"),
        (ChatRequest, "max_output_tokens", "Did you mean 'max_completion_tokens'?"),
        (ChatRequest, "max_wait", "Did you mean 'job.max_wait'?"),
        (ChatRequest, "input", "Did you mean 'messages'?"),
        (ResponseRequest, "lane", "Did you mean 'job.lane' or 'service_tier'?"),
        (ResponseRequest, "messages", "Did you mean 'input'?"),
        (ResponseRequest, "max_tokens", "Did you mean 'max_output_tokens'?"),
        (ResponseRequest, "max_token", "Did you mean 'max_output_tokens'?"),
        (JobRequest, "promt", "Did you mean 'prompt'?"),
        (JobRequest, "service_tier", "Did you mean 'lane'?"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_an_unknown_field_comes_with_the_one_that_is_meant(schema: type[BaseModel], name: str, meant: str) -> None:
    assert f"Did you mean {suggested(schema, [name])}?" == meant


@pytest.mark.parametrize("name", ["colour", "x" * 1000, "a"], ids=["colour", "long", "short"])
def test_a_name_that_is_near_no_field_comes_without(name: str) -> None:
    assert suggested(ChatRequest, [name]) == ""


def test_a_field_without_a_name_is_refused_like_any_other() -> None:
    with pytest.raises(InvalidRequest) as raised:
        validated(ResponseRequest, {"input": "Hi", "": 1})
    assert (raised.value.code, str(raised.value)) == ("unknown_parameter", "Unknown parameter: ''.")


@pytest.mark.parametrize(
    ("schema", "given", "meant"),
    [
        (ResponseRequest, {"model": "m", "messages": []}, "Unknown parameter: 'messages'. Did you mean 'input'?"),
        (ChatRequest, {"input": "Hi"}, "Unknown parameter: 'input'. Did you mean 'messages'?"),
        (ChatRequest, {"model": "m"}, "Missing required parameter: 'messages'."),
    ],
)
def test_a_missing_field_that_is_there_in_other_words_is_suggested(
    schema: type[BaseModel], given: dict[str, object], meant: str
) -> None:
    with pytest.raises(InvalidRequest) as raised:
        validated(schema, given)
    assert str(raised.value) == meant


def test_a_misspelt_field_of_job_is_found_among_its_own() -> None:
    with pytest.raises(InvalidRequest, match=r"Unknown parameter: 'job.max_waits'. Did you mean 'job.max_wait'\?"):
        validated(ResponseRequest, {"input": "Hi", "job": {"max_waits": 1}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"many": []}, "Invalid 'many': it must not be empty."),
        ({"many": [{"number": 1}] * 3}, "Invalid 'many': it may have at most 2 items."),
        ({"many": ["text"]}, "Invalid 'many.0': Input should be an object, not \"text\"."),
        ({"named": ["text"]}, "Invalid 'named': Input should be an object, not a list."),
        ({"inner": {"number": 1.5}}, "Invalid 'inner.number': Input should be a valid integer, not 1.5."),
        ({"inner": {"number": {}}}, "Invalid 'inner.number': Input should be a valid integer, not an object."),
        ({"inner": {"number": None}}, "Invalid 'inner.number': Input should be a valid integer, not null."),
        (
            {"inner": {"number": "ä" * 41}},
            f"Invalid 'inner.number': Input should be a valid integer, not \"{'ä' * 40}…\".",
        ),
    ],
)
def test_what_is_wrong_is_said_in_the_words_of_json(change: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        validated(Outer, {"inner": {"number": 1}, **change})
    assert str(raised.value) == message


def test_unknown_fields_that_are_null_ask_for_nothing() -> None:
    items = [{"number": 1, "a": None}, {"number": 2, "b": None}]
    made = validated(Outer, {"inner": {"number": 1, "c": None, "d": None}, "many": items, "e": None})
    assert made.model_dump() == {"inner": {"number": 1}, "many": [{"number": 1}, {"number": 2}], "named": {}}


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"inner": {"number": 1, "a": None}, "b": 0}, "b"),
        ({"inner": {"number": None}}, "inner.number"),
        ({"inner": {"number": 1}, "many": [{"number": 1, "a": None}, {"number": 2, "a": 0}]}, "many.1.a"),
    ],
    ids=["of two", "known", "of one item"],
)
def test_an_unknown_field_with_a_value_is_still_named(values: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        validated(Outer, values)
    assert raised.value.param == param


def test_nulls_in_many_items_cost_one_pass() -> None:
    turns = [{"role": "user", "content": "Hi", "function": None, "audio_id": None}] * 20_000
    began_s = time.process_time()
    assert len(validated(ChatRequest, {"messages": turns}).messages) == 20_000
    assert time.process_time() - began_s < 5


def test_a_mark_at_the_beginning_of_utf_8_is_not_part_of_the_body() -> None:
    assert parse_object(b'\xef\xbb\xbf{"a": "b"}') == {"a": "b"}


#: A body of each call that is right.
PLAIN: dict[type[BaseModel], dict[str, Any]] = {
    JobRequest: {"prompt": "Hi"},
    ChatRequest: {"messages": [{"role": "user", "content": "Hi"}]},
    ResponseRequest: {"input": "Hi"},
    CompletionRequest: {"prompt": "Hi"},
    EmbeddingRequest: {"input": "Hi"},
    TokenizeRequest: {"prompt": "Hi"},
    DetokenizeRequest: {"tokens": [1]},
}
#: Words that mean something somewhere: types, roles, choices.
WORDS = (
    *("user", "assistant", "system", "tool", "developer", "function", "text", "input_text", "output_text", "message"),
    *(
        "function_call",
        "function_call_output",
        "item_reference",
        "reasoning",
        "json_schema",
        "json_object",
        "image_url",
    ),
    *(
        "auto",
        "none",
        "required",
        "high",
        "batch",
        "never",
        "priority",
        "flex",
        "type",
        "role",
        "content",
        "name",
        "id",
    ),
    *(
        "parameters",
        "schema",
        "arguments",
        "call_id",
        "tool_calls",
        "tool_call_id",
        "strict",
        "effort",
        "include_usage",
    ),
)
NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.integers(-3, 300)
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(max_size=12) | st.sampled_from(WORDS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=12,
)


def mutated(draw: st.DrawFn, schema: type[BaseModel]) -> bytes:
    """A right body with some fields changed: by their own names, and sometimes inside."""
    body = json.loads(json.dumps(PLAIN[schema]))
    names = st.sampled_from([*schema.model_fields, "unknown"])
    body |= draw(st.dictionaries(names, VALUES, max_size=4))
    if draw(st.booleans()) and isinstance(turns := body.get("messages", body.get("input")), list):
        turns.append(draw(st.dictionaries(st.sampled_from(WORDS), VALUES, max_size=5)))
    return json.dumps(body).encode()


@pytest.mark.parametrize("schema", list(PLAIN))
def test_a_hostile_body_is_refused_by_name_or_understood(schema: type[BaseModel]) -> None:
    seen = {"drafts": 0, "refusals": 0}

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def check(data: st.DataObject) -> None:
        raw = mutated(data.draw, schema)
        try:
            made = validated(schema, parse_object(raw))
            if hasattr(made, "to_draft"):
                made.to_draft()
            seen["drafts"] += 1
        except HeadraceError as error:
            seen["refusals"] += bool(str(error))

    check()
    assert min(seen.values()) > 0, seen
