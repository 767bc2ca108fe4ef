"""In which language a text is written, as far as its small words show it. Pure."""

import re

from headrace.policies.reuse.lexicon import words_of

_ENGLISH = words_of(
    "the of to is are how what does do i my you can and for with it on from this that when where which why who should "
    "by about between tell me please at be your our an has have did not or if there would could was were"
)
_GERMAN = words_of(
    "der die das den dem ist sind wie ich mein meine meinen ein eine einen einem einer und für mit von zu zum zur im "
    "kann man nicht auf wann warum welche welcher welches mir bitte bei aus über wird haben hat gibt nach oder sie wer "
    "wo dürfen können darf soll sollte muss müssen sollten kein keine auch zwischen viele viel erkläre nenne wieso "
    "weshalb heißt kostet ohne"
)
_WORD = re.compile(r"[^\W\d_]+")
#: A text of so many words has small words of its language; one without is in neither.
_MIN_WORDS = 6


def language_of(text: str) -> str | None:
    """`en` or `de`; `other` for a text of neither; None for one that is too short to show it."""
    words = [word.lower() for word in _WORD.findall(text)]
    english, german = sum(word in _ENGLISH for word in words), sum(word in _GERMAN for word in words)
    if german > english or (german == english and re.search("[äöüß]", text.lower())):
        return "de"
    if english > german:
        return "en"
    return "other" if len(words) >= _MIN_WORDS and not english else None
