"""Tells whether two answers say the same, as far as that can be told without a model. Pure.

`agree` compares two answers to one request, `read_alike` answers to one question in two wordings. Both are meant for
short answers: labels, names, numbers, JSON. Two free texts hardly ever agree.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from headrace.policies.reuse import guard
from headrace.policies.reuse.lexicon import normal_form

#: Code, tables and nested lists, whose spaces mean something.
_LAID_OUT = re.compile(r"```|^[ \t]*\||^[ \t]{2,}\S", re.M)
#: What may stand around an answer without changing it.
_AROUND = " \t\r\n.,;:!?\"'`*“”„’()[]"  # noqa: RUF001


def normalised(text: str) -> str:
    """The text in one Unicode form and letter case, with single spaces, without punctuation around it."""
    folded = normal_form("NFKC", text).casefold()
    return re.sub(r"\s+", " ", folded).strip(_AROUND)


def same_text(one: str, other: str) -> bool:
    """Equal once both are normalised."""
    return normalised(one) == normalised(other)


def same_json(one: str, other: str) -> bool:
    """Equal as JSON, whatever the spaces and the order of names. False if either is not JSON, or too deep."""
    try:
        return _canonical(json.loads(one)) == _canonical(json.loads(other))
    except (ValueError, RecursionError):
        return False


def agree(one: str, other: str, response_format: Mapping[str, Any] | None) -> bool:
    """True if two answers to one request agree: as JSON if it asked for JSON, else as text."""
    # A stored format may be malformed.
    wants_json = isinstance(response_format, Mapping) and response_format.get("type", "text") != "text"
    return same_json(one, other) if wants_json else same_text(one, other)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def read_alike(one: str, other: str) -> bool:
    """True if two answers have the same lines, are equal JSON, or read as the same (`reuse.guard`). Symmetric.

    For answers to one question in two wordings, to tell whether the one could have served for the other. A doubt counts
    against the cache: answers that say the same in words which the guard cannot join count as different. The cost is
    hits, of questions that a model answers in free prose. Short and closed answers agree: labels, names, numbers, JSON.
    """
    if _lines(one) == _lines(other):
        return True
    as_json = _json(one), _json(other)
    if any(as_json):
        return as_json[0] == as_json[1]
    if _LAID_OUT.search(one) or _LAID_OUT.search(other):
        return False
    return guard.compare(one, other).may_serve


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]


def _json(text: str) -> str | None:
    """An object or a list in one spelling; None for any other text. Other JSON is plain text too."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.dumps(json.loads(text), sort_keys=True)
    except (ValueError, RecursionError):
        return None
