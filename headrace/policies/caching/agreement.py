"""Whether two answers to the same question say the same, so that one could have served for the other. Pure.

A doubt counts against the cache: answers that say the same in words which the guard cannot join count as different. The
cost is hits, of questions that a model answers in free prose. Short and closed answers agree: labels, names, numbers,
JSON.
"""

import json
import re

from headrace.policies.reuse import guard

#: Code, tables and nested lists, whose spaces mean something.
_LAID_OUT = re.compile(r"```|^[ \t]*\||^[ \t]{2,}\S", re.M)


def agree(one: str, other: str) -> bool:
    """Whether the answers have the same lines, are equal JSON, or read as the same (`reuse.guard`). Symmetric."""
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
