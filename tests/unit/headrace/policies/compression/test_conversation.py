"""Which turns may change, and how cuts are applied."""

import pytest

from headrace.domain.compression import Compression, CompressPart, Cut
from headrace.domain.prompts import Message
from headrace.domain.prompts.tools import ToolCall
from headrace.policies.compression import apply, digest, open_turns

TALK = (
    *(Message("system", "S"), Message("user", "first"), Message("assistant", "answer")),
    *(Message("developer", "D"), Message("user", "last"), Message("assistant", "begun")),
)


@pytest.mark.parametrize(
    ("also", "found"),
    [((), [1, 2, 5]), (("system",), [0, 1, 2, 3, 5]), (("last_turn",), [1, 2, 4, 5])],
)
def test_earlier_turns_may_change_and_others_only_if_asked(also: tuple[CompressPart, ...], found: list[int]) -> None:
    assert open_turns(TALK, Compression("plain", also=also)) == found


def test_inputs_of_embeddings_never_change() -> None:
    assert open_turns([Message("input", "text")], Compression("plain", also=("last_turn", "system"))) == []


def test_cuts_may_touch_and_overlap() -> None:
    messages = (Message("user", "abcdefgh"), Message("user", "other"))

    cuts = [Cut(0, 4, 6), Cut(0, 1, 3), Cut(0, 2, 4)]

    assert apply(messages, cuts) == (Message("user", "agh"), Message("user", "other"))


def test_a_digest_tells_texts_and_turns_apart() -> None:
    texts = [
        (Message("user", "ab"), Message("user", "c")),
        (Message("user", "a"), Message("user", "bc")),
        (Message("user", "ab"), Message("assistant", "c")),
    ]
    assert len({digest(messages) for messages in texts}) == 3


def test_calls_of_tools_and_their_outputs_never_change() -> None:
    call = ToolCall("c", "f", "{}")
    talk = (Message("user", "a"), Message("assistant", "b", tool_calls=(call,)), Message("tool", "c", tool_call_id="c"))
    talk = (*talk, Message("assistant", "d"), Message("user", "e"))
    assert open_turns(talk, Compression("plain", also=("last_turn", "system"))) == [0, 3, 4]
    assert apply(talk, [Cut(0, 0, 1)])[1:] == talk[1:]
