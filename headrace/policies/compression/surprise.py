"""Cuts the phrases of a conversation that a small model finds least surprising. Pure.

Selective Context (Li et al., arXiv 2310.06201) drops phrases by the mean self-information of their tokens, LLMLingua
(Jiang et al., EMNLP 2023) single tokens by their perplexity. Here a phrase that has anything protected stays whole: a
number without its words says nothing.
"""

import math
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from headrace.domain.compression import Cut, TokenSurprise
from headrace.domain.prompts import Message
from headrace.policies.compression.protected import overlaps, paragraphs

#: The end of a phrase: a mark, with the white space behind it, or a new item of a list. The last part is tried
#: once for each run of white space: from each character of it, the time would be the square of their number.
_PHRASE_END = re.compile(r"(?<=[.!?…,;:)—])\s+|\n[ \t]*(?=[-*•]\s)|(?<!\s)\s++(?=[(—])")


@dataclass(frozen=True, slots=True)
class _Phrase:
    """A phrase with the white space behind it.

    Attributes:
        tokens: how many of the model's tokens end in it.
        nats: the mean surprise of these.
    """

    message: int
    start: int
    end: int
    tokens: int
    nats: float
    is_open: bool


def surprising(
    messages: Sequence[Message], scores: Mapping[int, Sequence[TokenSurprise]], kept_share: float
) -> list[Cut]:
    """What to cut so that this share of the tokens of running text is left, or the least that protection allows.

    Args:
        scores: of the messages that may change, by their number: the surprise of each token, in order.
    """
    phrases = [phrase for number, tokens in scores.items() for phrase in _phrases(number, messages[number], tokens)]
    spare = sum(phrase.tokens for phrase in phrases) * (1 - kept_share)
    left = {number: sum(phrase.message == number for phrase in phrases) for number in scores}
    cuts = []
    for phrase in sorted((each for each in phrases if each.is_open), key=lambda each: (each.nats, each.start)):
        # Not past the target, and no message without a word: some chat templates refuse one.
        if 0 < phrase.tokens <= spare and left[phrase.message] > 1:
            spare -= phrase.tokens
            left[phrase.message] -= 1
            cuts.append(Cut(phrase.message, phrase.start, phrase.end))
    return cuts


def _phrases(number: int, message: Message, tokens: Sequence[TokenSurprise]) -> Iterator[_Phrase]:
    text, ends = message.content, [token.end for token in tokens]
    for paragraph in paragraphs(text):
        if paragraph.is_set:
            continue
        gaps = [gap.end() for gap in _PHRASE_END.finditer(text, paragraph.start, paragraph.end)]
        start = paragraph.start
        for end in (*gaps, paragraph.end):
            if not text[start:end].strip():
                # White space at the end of the paragraph.
                continue
            # A token belongs to the phrase in which its last character stands.
            of_phrase = tokens[bisect_left(ends, start + 1) : bisect_left(ends, end + 1)]
            nats = [token.nats for token in of_phrase if token.nats is not None]
            yield _Phrase(
                message=number,
                start=start,
                end=end,
                tokens=len(of_phrase),
                nats=sum(nats) / len(nats) if nats else math.inf,
                is_open=not overlaps(paragraph.spans, start, end),
            )
            start = end
