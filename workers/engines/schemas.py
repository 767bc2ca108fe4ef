"""JSON schemas that a grammar cannot be made of at a bounded cost. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from headrace.errors import PromptRejected

#: The most items that all lists of a schema may have together. llguidance writes each bound out: 30,000 items take 2 s
#: and 100 MB, 100,000 fail, and above 1,000,000 it takes all memory of the process, which cannot be stopped.
MOST_ITEMS = 30_000
_BOUNDS = ("minItems", "maxItems")
#: What they hold is no schema.
_VALUES = frozenset({"const", "enum", "default", "examples"})


def check_items(schema: Any) -> None:
    """Raises: PromptRejected: the lists of a schema may, or must, have too many items."""
    asked = sum(_items(schema))
    if asked > MOST_ITEMS:
        raise PromptRejected(
            f"This JSON schema cannot guide the answer: its lists have up to {asked:.0f} items by 'minItems' and "
            f"'maxItems', and may have {MOST_ITEMS} together. Leave the bounds out, or lower them.",
            param="response_format",
        )


def _items(schema: Any) -> Iterator[float]:
    """The larger bound of each list."""
    if isinstance(schema, list):
        for each in schema:
            yield from _items(each)
    if isinstance(schema, Mapping):
        yield max(map(_number, map(schema.get, _BOUNDS)))
        for name, each in schema.items():
            if name not in _VALUES:
                yield from _items(each)


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0
