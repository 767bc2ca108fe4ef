"""How a file is split into lines, and by what their order goes. No socket."""

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from plugins.batches.domain import NewLine
from plugins.batches.running.reading import CHUNK, CHUNK_BYTES, _chunks, _split, beginning
from plugins.batches.store import PREFIX_CHARS

LIMIT = 40
USER = {"role": "user", "content": "Why?"}


@pytest.mark.parametrize(
    ("body", "begins"),
    [
        ({"messages": [{"role": "system", "content": "You label."}, USER]}, "You label."),
        ({"messages": [USER]}, "Why?"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Part"}]}]}, "Part"),
        ({"instructions": "Be short.", "input": "Why?"}, "Be short."),
        ({"input": "Why?"}, "Why?"),
        ({"input": [USER]}, "Why?"),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "Part"}]}]}, "Part"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "7"}]}, ""),
        ({"prompt": "Once upon"}, "Once upon"),
        ({"prompt": ["Once upon", "a time"]}, "Once upon"),
        ({"input": [5, 6, 7]}, "5"),
        ({"input": [[5, 6], [7]]}, "5"),
        ({"messages": []}, ""),
        ({"messages": [{}]}, ""),
        ({"messages": [None]}, ""),
        ({"messages": "text"}, "text"),
        ({"messages": 7}, "7"),
        ({}, ""),
        ({"prompt": "x" * 1000}, "x" * PREFIX_CHARS),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else "",
)
def test_how_a_prompt_begins(body: dict[str, Any], begins: str) -> None:
    assert beginning(body) == begins


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["content", "text", "x"]), inner),
)


@hypothesis.given(st.dictionaries(st.sampled_from(["instructions", "messages", "prompt", "input"]), JSON))
def test_the_beginning_of_any_body_is_a_short_text(body: dict[str, Any]) -> None:
    assert len(beginning(body)) <= PREFIX_CHARS


def parts_of(content: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = [0, *sorted(cuts), len(content)]
    return [content[begin:end] for begin, end in pairwise(places)]


@hypothesis.given(
    st.lists(st.binary(max_size=2 * LIMIT).map(lambda raw: raw.replace(b"\n", b"")), max_size=6),
    st.lists(st.integers(0, 300), max_size=6),
)
def test_wherever_the_parts_end_the_lines_are_the_same(lines: list[bytes], cuts: list[int]) -> None:
    content = b"\n".join(lines)
    found = list(_split(parts_of(content, [min(cut, len(content)) for cut in cuts]), LIMIT))
    # A mark at the file's beginning is none of a line's.
    whole = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if content.endswith(b"\n") or not content:
        whole.pop()
    assert len(found) == len(whole)
    for got, line in zip(found, whole, strict=True):
        assert got == line if len(line) <= LIMIT else len(got) > LIMIT


def test_a_line_without_an_end_is_not_kept() -> None:
    (found,) = _split([b"x" * 10] * 1000, LIMIT)
    assert LIMIT < len(found) <= LIMIT + 10 + 1


def test_a_mark_that_comes_in_two_parts_is_passed_over() -> None:
    assert list(_split([b"\xef", b"\xbb\xbf{}\n", b"\xef\xbb\xbf"], LIMIT)) == [b"{}", b"\xef\xbb\xbf"]


def test_the_lines_of_a_transaction_are_bounded_in_number_and_in_size() -> None:
    short = [(2, NewLine(number, "id", "", "{}")) for number in range(2 * CHUNK + 1)]
    assert [len(chunk) for chunk in _chunks(short)] == [CHUNK, CHUNK, 1]
    long = [(CHUNK_BYTES // 2, line) for _, line in short[:5]]
    assert [len(chunk) for chunk in _chunks(long)] == [2, 2, 1]
    assert [len(chunk) for chunk in _chunks([(CHUNK_BYTES, None), *long])] == [0, 2, 2, 1], "what is passed over counts"
    assert list(_chunks([])) == []
