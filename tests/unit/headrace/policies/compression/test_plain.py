"""Plain compression: what is said twice and white space goes, all else stays as it is and where it is."""

import pytest
from hypothesis import given

from headrace.domain.compression import Compression
from headrace.domain.prompts import Message
from headrace.policies.compression import plain
from headrace.policies.compression.protected import paragraphs
from tests.unit.headrace.policies.compression.texts import MESSAGES, compressions, fixed, is_subsequence, numbers

ALL = Compression("plain", also=("last_turn", "system"))
NOTICE = "This message is confidential and meant for the one who reads it. Please print it only where you really must."


def of(*turns: str, compression: Compression = ALL) -> list[str]:
    """The compressed texts of user turns."""
    return [message.content for message in plain([Message("user", turn) for turn in turns], compression)]


@given(MESSAGES, compressions("plain"))
def test_it_only_deletes_and_a_second_time_finds_nothing(
    messages: tuple[Message, ...], compression: Compression
) -> None:
    once = plain(messages, compression)

    assert [message.role for message in once] == [message.role for message in messages]
    for before, after in zip(messages, once, strict=True):
        assert is_subsequence(after.content, before.content)
        assert bool(after.content.strip()) == bool(before.content.strip())
    assert plain(once, compression) == once


@given(MESSAGES, compressions("plain"))
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


@given(MESSAGES, compressions("plain"))
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
