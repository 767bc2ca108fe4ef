"""Labelled examples: what a line may say, and when an answer is right."""

from typing import Any

import pytest

from headrace.cli.calibrate.labels import Label, read_labels
from headrace.errors import ConfigError

LINE = '{"prompt": "Is it spam?", "task": "classify", "answer": "no"}'


def test_a_file_has_an_example_on_each_line_that_is_not_empty() -> None:
    turns = '[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]'
    one, other = read_labels([LINE, "\n", f'{{"messages": {turns}, "answer": "Hi"}}'], "x.jsonl")

    assert one.request() == {"prompt": "Is it spam?", "metadata": {"task": "classify"}}
    assert (one.chars, other.chars) == (len("Is it spam?"), len("Be brief.Hi"))
    assert other.request() == {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    }


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", r"x\.jsonl:2: Invalid JSON"),
        ('["a"]', r"x\.jsonl:2: "),
        ('{"prompt": "x"}', r"x\.jsonl:2: answer: Field required"),
        ('{"answer": "x"}', r"x\.jsonl:2: give one of 'prompt' and 'messages'"),
        ('{"prompt": "x", "messages": [{"role": "user", "content": "x"}], "answer": "x"}', "give one of"),
        ('{"prompt": "x", "answer": "x", "match": "about"}', r"x\.jsonl:2: match: .*'exact', 'json' or 'contains'"),
        ('{"prompt": "x", "answer": "x", "label": 1}', r"x\.jsonl:2: label: Extra inputs are not permitted"),
        ('{"messages": [{"role": "tool", "content": "x"}], "answer": "x"}', r"x\.jsonl:2: messages\.0\.role: "),
    ],
)
def test_a_wrong_line_is_named(line: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_labels([LINE, line], "x.jsonl")


def test_a_file_without_examples_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"x\.jsonl has no examples"):
        read_labels(["\n"], "x.jsonl")


@pytest.mark.parametrize(
    ("label", "text", "is_right"),
    [
        ({"answer": "no"}, " No. ", True),
        ({"answer": "no"}, "No, it is not.", False),
        ({"answer": "no", "match": "contains"}, "No, it is not.", True),
        ({"answer": {"a": 1}}, '{ "a": 1 }', True),
        ({"answer": {"a": 1}}, "a is 1", False),
        ({"answer": 5}, "5", True),
        ({"answer": '{"a": 1}', "response_format": {"type": "json_object"}}, '{"a":1}', True),
        ({"answer": '{"a": 1}', "match": "json"}, '{"a":1}', True),
        ({"answer": '{"a": 1}'}, '{"a":1}', False),
        ({"answer": 5, "match": "contains"}, "It is 5.", True),
    ],
)
def test_an_answer_is_right_by_what_the_label_asks_for(label: dict[str, Any], text: str, is_right: bool) -> None:
    assert Label(prompt="x", **label).is_right(text) is is_right
