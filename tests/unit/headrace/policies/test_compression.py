"""Compression: which turns may change, what goes, and what must not change.

What must not change is read here by other rules than those of the policy, so that a test can disagree with it.
"""

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.config import PoolSettings
from headrace.domain.prompts import Message
from headrace.domain.prompts.compression import CompressChoice, Compression, CompressPart, Cut
from headrace.domain.prompts.tools import ToolCall
from headrace.errors import InvalidRequest
from headrace.policies.compression import apply, chosen, open_turns, paragraphs, plain

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


COMPRESSIONS = st.builds(Compression, st.just("plain"), ALSO)


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


# Which turns may change, and how cuts are applied.

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


def test_calls_of_tools_and_their_outputs_never_change() -> None:
    call = ToolCall("c", "f", "{}")
    talk = (Message("user", "a"), Message("assistant", "b", tool_calls=(call,)), Message("tool", "c", tool_call_id="c"))
    talk = (*talk, Message("assistant", "d"), Message("user", "e"))
    assert open_turns(talk, Compression("plain", also=("last_turn", "system"))) == [0, 3, 4]
    assert apply(talk, [Cut(0, 0, 1)])[1:] == talk[1:]


# Plain compression: what is said twice and white space goes, all else stays as it is and where it is.

ALL = Compression("plain", also=("last_turn", "system"))
NOTICE = "This message is confidential and meant for the one who reads it. Please print it only where you really must."


def of(*turns: str, compression: Compression = ALL) -> list[str]:
    """The compressed texts of user turns."""
    return [message.content for message in plain([Message("user", turn) for turn in turns], compression)]


@given(MESSAGES, COMPRESSIONS)
def test_it_only_deletes_and_a_second_time_finds_nothing(
    messages: tuple[Message, ...], compression: Compression
) -> None:
    once = plain(messages, compression)

    assert [message.role for message in once] == [message.role for message in messages]
    for before, after in zip(messages, once, strict=True):
        assert is_subsequence(after.content, before.content)
        assert bool(after.content.strip()) == bool(before.content.strip())
    assert plain(once, compression) == once


@given(MESSAGES, COMPRESSIONS)
def test_what_is_protected_stays_byte_for_byte_unless_its_paragraph_stood_earlier(
    messages: tuple[Message, ...], compression: Compression
) -> None:
    once = plain(messages, compression)

    before = [fixed(message.content) for message in messages]
    after = [fixed(message.content) for message in once]
    for (fences, lines, words), (fences_left, lines_left, words_left) in zip(before, after, strict=True):
        assert (fences_left, lines_left) == (fences, lines)
        assert is_subsequence(words_left, words)
    assert numbers(once) == numbers(messages)


@given(MESSAGES, COMPRESSIONS)
def test_every_protected_span_is_found_again_in_order(messages: tuple[Message, ...], compression: Compression) -> None:
    shorter = plain(messages, compression)
    said, left = (" ".join(message.content for message in each) for each in (messages, shorter))
    for before, after in zip(messages, shorter, strict=True):
        place = 0
        for paragraph in paragraphs(before.content):
            spans = [before.content[start:end] for start, end in paragraph.spans]
            assert all(span in left for span in spans)
            if all(said.count(span) > 1 for span in spans):
                # It may be a repetition, which went as a whole.
                continue
            for span in spans:
                place = after.content.find(span, place)
                assert place >= 0


@given(MESSAGES)
def test_system_prompt_and_last_turn_are_left_alone_unless_asked(messages: tuple[Message, ...]) -> None:
    after = plain(messages, Compression("plain"))

    last = max((no for no, message in enumerate(messages) if message.role == "user"), default=None)
    for no, message in enumerate(messages):
        if message.role in ("system", "developer") or no == last:
            assert after[no] == message


def test_a_paragraph_that_stood_in_an_earlier_turn_goes_with_its_numbers() -> None:
    report = "The mill of 1887 stands where 2 rivers meet, and grinds 40 bags of flour on a good day."

    assert of(report, f"{report}\n\nIs that right?") == [report, "Is that right?"]
    assert of(f"{report}\n\n\n\n{report}\n\nWhy?") == [f"{report}\n\nWhy?"]


def test_a_sentence_that_stood_earlier_goes_and_the_rest_of_its_paragraph_stays() -> None:
    first, second = NOTICE.split(". ")

    assert of(f"Hello. {NOTICE}", f"{first}. Good bye.") == [f"Hello. {NOTICE}", "Good bye."]
    assert of(NOTICE, f"Good bye. {second}") == [NOTICE, "Good bye."]


def test_what_was_said_in_the_system_prompt_need_not_be_said_again() -> None:
    messages = [Message("system", NOTICE), Message("user", f"{NOTICE}\n\nHi."), Message("user", "Well?")]

    assert [message.content for message in plain(messages, Compression("plain"))] == [NOTICE, "Hi.", "Well?"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('The sign on the old mill says "wait here" in red.', 'The sign on the old mill says "wait  here" in red.'),
        (f"{NOTICE}", NOTICE.replace("This message", '"This message') + '"'),
        (NOTICE, NOTICE.replace("it. Please", '"it.  Please"').replace("must.", "must!")),
    ],
)
def test_what_differs_in_a_protected_part_is_no_repetition(before: str, after: str) -> None:
    assert of(before, f"{after}\n\nWhy?") == [before, f"{after}\n\nWhy?"]


def test_white_space_that_is_protected_stays_at_the_end_too() -> None:
    assert of("the the. [ the the. \n\n") == ["the the. [ the the. "]


def test_a_turn_that_only_repeats_stays() -> None:
    assert of(NOTICE, NOTICE) == [NOTICE, NOTICE]


def test_short_repetitions_are_a_way_of_speaking() -> None:
    assert of("Yes, please. Yes, please.\n\nYes, please.") == ["Yes, please. Yes, please.\n\nYes, please."]


@pytest.mark.parametrize(
    "block",
    [
        "```\nwith  gaps, and long enough to be a repetition of itself\n```",
        "    indented  code that is long enough to be a repetition of itself",
        "| a row  of a table | that is long enough | to be a repetition |",
        "> a quoted  line that is long enough to be a repetition of itself",
        '{"json":  "that is long enough",  "to be": "a repetition of itself"}',
        "column one      column two of a table\nriver           mill, without a frame",
        "class Mill(Building):  # long enough to be a repetition of itself",
    ],
)
def test_code_tables_and_quotations_stay_as_they_are_however_often(block: str) -> None:
    text = f"See:\n\n{block}\n\nAgain:\n\n{block}"

    assert of(text) == [text]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("one  two \t three", "one two three"),
        ("end of line   \nnext", "end of line\nnext"),
        ("a\n\n\n\nb", "a\n\nb"),
        ("\n\na\n \n", "a"),
        ("- item\n  - nested  item", "- item\n  - nested item"),
        ('she said "wait  here"  twice', 'she said "wait  here" twice'),
        ("a.  b.  c", "a. b. c"),
        ("5\" and  'so  on'  it goes", "5\" and 'so  on' it goes"),
    ],
)
def test_white_space_goes_where_it_says_nothing(text: str, left: str) -> None:
    assert of(text) == [left]


# How a prompt is compressed: the request decides before the pool, and what has no effect is refused by name.

OFF = PoolSettings()
PLAIN = PoolSettings(compress="plain", compress_also=("last_turn",))


@pytest.mark.parametrize(
    ("pool", "choice", "found"),
    [
        (OFF, CompressChoice(), None),
        (OFF, CompressChoice("plain"), Compression("plain")),
        (PLAIN, CompressChoice(), Compression("plain", also=("last_turn",))),
        (PLAIN, CompressChoice(also=()), Compression("plain")),
        (PLAIN, CompressChoice("off"), None),
        (
            OFF,
            CompressChoice("plain", also=("system", "last_turn")),
            Compression("plain", also=("last_turn", "system")),
        ),
    ],
)
def test_the_request_decides_before_the_pool(
    pool: PoolSettings, choice: CompressChoice, found: Compression | None
) -> None:
    assert chosen(choice, pool) == found


@pytest.mark.parametrize(
    ("pool", "choice", "param"),
    [
        (OFF, CompressChoice(also=("system",)), "compress_also"),
        (PLAIN, CompressChoice("off", also=("system",)), "compress_also"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(pool: PoolSettings, choice: CompressChoice, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        chosen(choice, pool)
    assert refused.value.param == param
