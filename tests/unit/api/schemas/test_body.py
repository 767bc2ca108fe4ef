"""A body is read strictly: what JSON can say and nothing behind it can hold is refused, by name."""

import pytest
from pydantic import BaseModel, ConfigDict

from api.schemas.body import NESTING_LIMIT, parse_object, validated
from headrace.errors import InvalidRequest


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


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b'"text"', b"null", b'{"a":', b"{'a': 1}", b'{"a": 1} x', b'{"a": "\xed\xa0\x80"}', b"\xff\xfe{}"],
)
def test_what_is_no_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse_object(raw)
    assert raised.value.code == "invalid_json"


def test_nesting_is_bounded() -> None:
    assert parse_object(nested(NESTING_LIMIT))
    for levels in (NESTING_LIMIT + 1, 500, 200_000):
        with pytest.raises(InvalidRequest, match="deeper"):
            parse_object(nested(levels))


def test_text_beyond_ascii_is_kept_as_it_is() -> None:
    assert parse_object('{"a": "ü\U0001f600", "b": "\\ud83d\\ude00"}'.encode()) == {
        "a": "ü\U0001f600",
        "b": "\U0001f600",
    }


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    number: int


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    inner: Inner
    many: list[Inner] = []


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
