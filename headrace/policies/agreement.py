"""Whether two answers say the same, as far as that can be told without a model. Pure.

It is meant for short answers: labels, names, numbers, JSON. Two free texts hardly ever agree.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from headrace.policies.normal_form import normal_form

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


def contains(text: str, part: str) -> bool:
    """Whether the text has the part in it as whole words, once both are normalised."""
    wanted = normalised(part)
    return bool(wanted) and re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", normalised(text)) is not None


def agree(one: str, other: str, response_format: Mapping[str, Any] | None) -> bool:
    """Whether two answers to one request agree: as JSON if it asked for JSON, else as text."""
    # A stored format may be malformed.
    wants_json = isinstance(response_format, Mapping) and response_format.get("type", "text") != "text"
    return same_json(one, other) if wants_json else same_text(one, other)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
