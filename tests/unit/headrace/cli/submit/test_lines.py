"""What a file of prompts may say, and what an error says of a line."""

from pathlib import Path

import pytest

from headrace.cli.submit.lines import Line, read_lines


def lines_of(tmp_path: Path, content: bytes) -> list[Line]:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(content)
    return list(read_lines(path))


def test_an_object_is_a_body_and_a_text_is_its_prompt(tmp_path: Path) -> None:
    found = lines_of(tmp_path, b'\xef\xbb\xbf{"prompt": "Hi", "max_tokens": 3}\n\n"Hello"\r\n')
    assert [(line.number, line.body) for line in found] == [
        (1, {"prompt": "Hi", "max_tokens": 3}),
        (3, {"prompt": "Hello"}),
    ]


def test_a_digest_is_of_what_a_line_says(tmp_path: Path) -> None:
    first, again, other = lines_of(tmp_path, b'{"a": 1, "b": "\xc3\xa9"}\n{ "b":"\\u00e9","a":1 }\n{"a": 2, "b": ""}\n')
    assert first.digest == again.digest != other.digest


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"What is it?", 'Give one JSON value a line, such as {"prompt": "Hi"} or "Hi".'),
        (b'{"prompt": "Hi"', "It is not JSON: Expecting ',' delimiter at character 16."),
        (b"[1]", "It is neither a JSON object nor a text"),
        (b'{"temperature": NaN}', "It cannot be sent as JSON"),
        (b'"\\ud800"', "It cannot be sent as JSON"),
        (b'"\xff"', "It is not UTF-8 text: byte 1 is not."),
        (b"[" * 100_000, "It cannot be sent as JSON"),
    ],
)
def test_a_line_that_cannot_be_read_says_why_and_stops_no_other(tmp_path: Path, raw: bytes, problem: str) -> None:
    wrong, right = lines_of(tmp_path, raw + b'\n"Hi"')
    assert wrong.body is None
    assert problem in str(wrong.problem)
    assert right.body == {"prompt": "Hi"}
