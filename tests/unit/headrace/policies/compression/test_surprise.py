"""Compression by surprise: the phrases that surprise least go, down to a share of the tokens, and nothing protected."""

import math
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.domain.compression import Compression, TokenSurprise
from headrace.domain.prompts import Message
from headrace.policies.compression import apply, open_turns, surprise, surprising
from headrace.policies.compression.protected import paragraphs
from tests.unit.headrace.policies.compression.texts import MESSAGES, compressions, fixed, is_subsequence


def scored(text: str, nats: dict[str, float] | None = None, seed: int = 0) -> list[TokenSurprise]:
    """A token for each word with the space before it. Args: nats: by word; others are random."""
    chance, tokens, end = random.Random(seed), list[TokenSurprise](), 0
    for word in text.split():
        end = text.index(word, end) + len(word)
        found = (nats or {}).get(word.strip(".,"), chance.random() * 9)
        tokens.append(TokenSurprise(end, found))
    return tokens


def cut(text: str, kept: float, nats: dict[str, float]) -> str:
    """What is left of a turn."""
    messages = [Message("assistant", text)]
    return apply(messages, surprising(messages, {0: scored(text, nats)}, kept))[0].content


@given(MESSAGES, compressions("surprise"), st.integers())
def test_nothing_protected_changes_whatever_the_model_says(
    messages: tuple[Message, ...], compression: Compression, seed: int
) -> None:
    scores = {no: scored(messages[no].content, seed=seed) for no in open_turns(messages, compression)}

    after = apply(messages, surprising(messages, scores, compression.to))

    for no, (old, new) in enumerate(zip(messages, after, strict=True)):
        assert is_subsequence(new.content, old.content)
        assert fixed(new.content) == fixed(old.content)
        assert bool(new.content.strip()) == bool(old.content.strip())
        if no not in scores:
            assert new == old
        place = 0
        for start, end in (span for paragraph in paragraphs(old.content) for span in paragraph.spans):
            place = new.content.index(old.content[start:end], place) + end - start


@given(MESSAGES, compressions("surprise"), st.integers())
def test_no_more_is_cut_than_the_share_allows(
    messages: tuple[Message, ...], compression: Compression, seed: int
) -> None:
    scores = {no: scored(messages[no].content, seed=seed) for no in open_turns(messages, compression)}

    cuts = surprising(messages, scores, compression.to)

    tokens = [(no, token.end) for no, found in scores.items() for token in found]
    gone = sum(cut.message == no and cut.start < end <= cut.end for no, end in tokens for cut in cuts)
    assert gone <= len(tokens) * (1 - compression.to) + 1e-9


def test_the_least_surprising_phrases_go_first() -> None:
    text = "As you know, the mill burned down, which is sad, in a strange green fire."
    nats = dict.fromkeys(("As", "you", "know"), 0.1) | dict.fromkeys(("which", "is", "sad"), 0.2)

    assert cut(text, 0.9, nats) == text
    assert cut(text, 0.75, nats) == "the mill burned down, which is sad, in a strange green fire."
    assert cut(text, 0.5, nats) == "the mill burned down, in a strange green fire."


def test_a_phrase_with_a_number_or_a_negation_stays_whole() -> None:
    text = "As of 2026, as is well known, it does not rain, as they say."

    assert cut(text, 0.1, {}) == "As of 2026, it does not rain, "


def test_a_turn_keeps_a_phrase() -> None:
    assert cut("one, two, three.", 0.1, {"one": 3.0, "two": 2.0, "three": 1.0}) == "one, "


def test_a_phrase_without_a_prediction_stays_longest() -> None:
    text = "alpha beta, gamma delta, epsilon zeta."
    tokens = scored(text, {"gamma": 8.0, "delta": 8.0, "epsilon": 9.0, "zeta": 9.0})
    tokens[:2] = [TokenSurprise(token.end, None) for token in tokens[:2]]
    messages = [Message("assistant", text)]

    assert apply(messages, surprising(messages, {0: tokens}, 0.6))[0].content == "alpha beta, epsilon zeta."


@pytest.mark.parametrize("nats", [math.inf, 0.0])
def test_extreme_surprise_is_no_error(nats: float) -> None:
    text = "alpha beta, gamma delta, epsilon zeta."
    assert is_subsequence(cut(text, 0.5, dict.fromkeys(("alpha", "gamma"), nats)), text)


def test_white_space_takes_no_square_of_its_length() -> None:
    text = "a" + "\u00a0" * 30_000 + "b (c)"
    began = time.thread_time()
    assert [gap.end() for gap in surprise._PHRASE_END.finditer(text)] == [len(text) - 3]
    assert time.thread_time() - began < 1
