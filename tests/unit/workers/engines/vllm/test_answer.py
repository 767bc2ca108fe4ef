"""An answer as vLLM's outputs make it grow, whose tokens come one by one or several at once."""

from types import SimpleNamespace
from typing import Any

import pytest

from headrace.domain.answers import TokenLogprob
from headrace.domain.prompts import Message, Sampling
from headrace.domain.prompts.tools import ToolCall, ToolCallPiece, Tools, joined
from workers.engines.base import Delta, GenerationRequest
from workers.engines.vllm.answer import GrowingAnswer

WORDS = ("<think>", "Hm", ". ", "</think>", "It", " is", "<end>")
#: What becomes of each: a thought, a text, or nothing.
THOUGHTS, TEXTS = ("", "Hm", ". ", "", "", "", ""), ("", "", "", "", "It", " is", "")


class Reading:
    """Stands for vLLM's parser: it knows each token."""

    def read(self, output: Any) -> Delta:
        thought, text = ("".join(of[each] for each in output.token_ids) for of in (THOUGHTS, TEXTS))
        return Delta(text, reasoning=thought)

    def tokens_of(self, text: str, token_ids: list[int]) -> int:
        return sum(each >= 4 for each in token_ids) if text else 0


def answer(*sizes: int, reading: Any = None, on_delta: Any = None) -> GrowingAnswer:
    """The answer after all tokens came, this number at once."""
    request = GenerationRequest("r", (Message("user", "So?"),), Sampling(16, top_logprobs=1))
    made, at = GrowingAnswer(request, on_delta, reading), 0
    for size in sizes:
        token_ids = list(range(at, at + size))
        places = [{each: SimpleNamespace(logprob=-0.5, rank=1, decoded_token=WORDS[each])} for each in token_ids]
        text = "".join(WORDS[each] for each in token_ids)
        end = {"finish_reason": "stop" if at + size == len(WORDS) else None, "stop_reason": None}
        made.add(SimpleNamespace(token_ids=token_ids, logprobs=places, text=text, **end))
        at += size
    return made


def words(logprobs: tuple[TokenLogprob, ...] | None) -> list[str]:
    return [each["token"] for each in logprobs or ()]


SIZES = [(1,) * 7, (7,), (3, 4), (2, 3, 2), (4, 3), (5, 2), (6, 1)]


@pytest.mark.parametrize("sizes", SIZES)
def test_log_probabilities_and_counts_are_of_what_was_said_however_it_came(sizes: tuple[int, ...]) -> None:
    deltas: list[Delta] = []
    made = answer(*sizes, reading=Reading(), on_delta=deltas.append)
    assert (made.reasoning, made.text) == ("Hm. ", "It is")
    assert (made.tokens, made.reasoning_tokens) == (7, 4)
    assert words(made.logprobs) == ["It", " is", "<end>"]
    assert "".join(delta.reasoning for delta in deltas) == made.reasoning
    for delta in deltas:
        assert "".join(words(delta.logprobs)) == delta.text
    # The last piece may come before the token that ends the answer.
    assert [delta.tokens for delta in deltas] == sorted({delta.tokens for delta in deltas})
    assert deltas[-1].tokens in (6, 7)


@pytest.mark.parametrize("sizes", SIZES)
def test_where_nothing_is_thought_all_is_said(sizes: tuple[int, ...]) -> None:
    made = answer(*sizes)
    assert (made.reasoning, made.text) == ("", "".join(WORDS))
    assert (made.tokens, made.reasoning_tokens, words(made.logprobs)) == (7, 0, list(WORDS))


def test_an_answer_that_is_cut_in_its_thoughts_has_no_tokens_of_its_own() -> None:
    made = answer(1, 2, reading=Reading())
    assert (made.reasoning, made.text, made.logprobs) == ("Hm. ", "", ())
    assert made.tokens == made.reasoning_tokens == 3


class CallReading:
    """Stands for vLLM's parser: each token is a piece of a call."""

    def read(self, output: Any) -> Delta:
        arguments = "".join(WORDS[each] for each in output.token_ids)
        return Delta(
            "",
            tool_calls=(
                ToolCallPiece(0, "c", "f") if 0 in output.token_ids else ToolCallPiece(0, arguments=arguments),
            ),
        )

    def tokens_of(self, text: str, token_ids: list[int]) -> int:
        return 0


def test_calls_are_collected_and_told() -> None:
    deltas: list[Delta] = []
    made = answer(*(1,) * 7, reading=CallReading(), on_delta=deltas.append)
    assert (made.text, made.tokens, made.reasoning_tokens) == ("", 7, 0)
    assert made.tool_calls == (ToolCall("c", "f", "".join(WORDS[1:])),)
    assert joined([piece for delta in deltas for piece in delta.tool_calls]) == made.tool_calls
    assert all(delta.logprobs == () for delta in deltas)


@pytest.mark.parametrize(
    ("choice", "ended_by", "reason"),
    [
        ("auto", "stop", "tool_calls"),
        ("required", "stop", "tool_calls"),
        ("function", "stop", "stop"),
        ("auto", "length", "length"),
        ("auto", "abort", "abort"),
    ],
)
def test_an_answer_ends_by_its_calls_if_the_model_chose_them(choice: Any, ended_by: Any, reason: str) -> None:
    tools = Tools(({"name": "f"},), choice, "f")
    ended = SimpleNamespace(token_ids=[0], logprobs=None, text="x", finish_reason=ended_by, stop_reason=None)
    made = GrowingAnswer(GenerationRequest("r", (Message("user", "So?"),), Sampling(16, tools=tools)), None, None)
    made.add(ended)
    assert made.finish_reason == ended_by
    made = GrowingAnswer(
        GenerationRequest("r", (Message("user", "So?"),), Sampling(16, tools=tools)), None, CallReading()
    )  # type: ignore[arg-type]
    made.add(ended)
    assert made.finish_reason == reason
