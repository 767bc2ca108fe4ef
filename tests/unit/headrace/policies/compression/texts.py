"""Conversations made of prose and of what must not change, for Hypothesis; and what must not change in a text.

What must not change is read here by other rules than those of the policy, so that a test can disagree with it.
"""

import re
from collections.abc import Sequence

from hypothesis import strategies as st

from headrace.domain.compression import Compression
from headrace.domain.prompts import Message

WORDS = ("the", "river", "carries", "water", "down", "to", "a", "mill", "and", "its", "wheel", "turns", "slowly", "old")
SENTENCE = st.lists(st.sampled_from(WORDS), min_size=2, max_size=14).map(" ".join)
PROSE = st.tuples(SENTENCE, st.sampled_from([".", "!", "?", ";", ",", ":", ""])).map("".join)
INLINE = st.sampled_from(
    [
        *("42", "3.14 km", "-17 %", "2026-11-27", "$1,000", "not", "can't", "nicht", "`x  =  1`", "[1,  2]"),
        *('"as  it  is"', '"she said: not now"', "“so  far”", "«peu  à  peu»", "https://example.com/a?b=1", "a_b(c)"),
        *('"', "“", "[", "]", "{", "}", "'", "`", "<b>", "|"),
    ]
)
LINE = st.lists(st.one_of(PROSE, PROSE, INLINE), min_size=1, max_size=5).flatmap(
    lambda parts: st.sampled_from([" ", "  ", "\t", "\n"]).map(lambda gap: gap.join(parts))
)
BLOCK = st.sampled_from(
    [
        "```python\nx  =  1\n\n\nx  =  1\n```",
        "~~~\nno   end",
        "    indented  =  True\n    also  =  False",
        "| a  | b |\n|----|---|\n| 1  | 2 |",
        "name    size\nmill    1\nriver   2",
        '{\n  "a":  1,\n  "b":  [1,  2]\n}',
        "> as  they  said",
        "def f(x):\n    return  x",
    ]
)
SPACE = st.sampled_from(["\n\n", "\n", "\n\n\n\n", " \n\n", "\n \t\n"])
REPEATED = st.sampled_from(
    [
        "This message is confidential and meant for the one who reads it. Please print it only where you must.",
        "Please contact our friendly support team for any further questions that you may have about it.",
        'On page 12 it says "turn it on", and this is what we do with every one of the 40 mills that we own.',
    ]
)
TEXT = st.lists(st.tuples(st.one_of(LINE, LINE, BLOCK, REPEATED), SPACE), max_size=7).map(
    lambda parts: "".join(part + space for part, space in parts)
)
MESSAGES = st.lists(
    st.tuples(st.sampled_from(["system", "user", "assistant", "developer"]), TEXT), min_size=1, max_size=5
).map(lambda turns: tuple(Message(role, text) for role, text in turns))
ALSO = st.sampled_from([(), ("system",), ("last_turn",), ("last_turn", "system")])


def compressions(method: str) -> st.SearchStrategy[Compression]:
    """Any compression by this method."""
    return st.builds(Compression, st.just(method), st.floats(0.1, 1.0), ALSO)


_FENCED = re.compile(r"^(```|~~~).*?(?:^\1[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"\S*\d\S*")
_LINES = re.compile(r"^(?:\|.*\||>|    ).*$", re.MULTILINE)


def fixed(text: str) -> list[list[str]]:
    """What must not change, by kind and in order: fenced code, rows of tables and the like, words with numbers."""
    fenced = [found.group().rstrip() for found in _FENCED.finditer(text)]
    rest = _FENCED.sub("", text)
    return [fenced, [line.rstrip() for line in _LINES.findall(rest)], _NUMBER.findall(_LINES.sub("", rest))]


def numbers(messages: Sequence[Message]) -> set[str]:
    """The words with digits in a conversation, wherever they stand."""
    return {word for message in messages for word in _NUMBER.findall(message.content)}


def is_subsequence(part: Sequence[str], whole: Sequence[str]) -> bool:
    """True if the part is the whole with items left out."""
    rest = iter(whole)
    return all(item in rest for item in part)
