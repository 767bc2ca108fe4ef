"""How the word lists of `english` and `german` are written, and one normal form for words. Pure."""

import re
import unicodedata
from typing import Literal


def words_of(text: str) -> frozenset[str]:
    """The words of a list that is written as text."""
    return frozenset(text.split())


def pairs_of(text: str) -> dict[str, str]:
    """The pairs of a list of `form=base`."""
    return dict(pair.split("=", 1) for pair in text.split())


def names_of(text: str) -> dict[str, str]:
    """Each word of a list of `name = word word`, and its name."""
    lines = (line.partition("=") for part in text.splitlines() for line in part.split(";"))
    return {word: name.strip() for name, _, words in lines for word in words.split()}


#: A character of ASCII, which needs no change itself, with what may join it. Sorting the marks of one letter takes the
#: square of their number, and Python runs no other thread meanwhile: 32,000 marks take 9 s.
_PIECE = re.compile(r"[\x00-\x7f]?[^\x00-\x7f]{1,256}")


def normal_form(form: Literal["NFC", "NFKC"], text: str) -> str:
    """The text in this form, in linear time.

    Characters on either side of a cut, after 256 that are not ASCII, are not joined. So texts with equal results are
    equivalent in Unicode's sense, but two such texts may have different results.
    """
    return _PIECE.sub(lambda piece: unicodedata.normalize(form, piece[0]), text)
