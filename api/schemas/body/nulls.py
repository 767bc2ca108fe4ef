"""Unknown fields that are null: some clients send every field that they know, whether it is set or not. Pure."""

from collections.abc import Mapping, Sequence, Set
from typing import Any

from pydantic_core import ErrorDetails

#: Different unknown fields of one body that may be null. Each may be in every item of a list.
NULLS_LIMIT = 32
#: Stands for every item of a list.
ITEM = "*"

#: Where a field is: names of objects' fields, and `ITEM`.
Place = tuple[str, ...]


def unknown_nulls(details: Sequence[ErrorDetails]) -> set[Place]:
    """The places of the unknown fields among these errors that are null."""
    unknown = (each for each in details if each["type"] == "extra_forbidden" and each["input"] is None)
    return {tuple(ITEM if isinstance(part, int) else part for part in each["loc"]) for each in unknown}


def without_nulls(value: Mapping[str, Any], places: Set[Place]) -> dict[str, Any]:
    """A copy of the object in which the fields at these places are left out where they are null."""
    kept = dict(value)
    inner: dict[str, set[Place]] = {}
    for name, *rest in places:
        if rest:
            inner.setdefault(name, set()).add(tuple(rest))
        elif kept.get(name, ITEM) is None:
            del kept[name]
    return {name: _inner(each, inner[name]) if name in inner else each for name, each in kept.items()}


def _inner(value: Any, places: Set[Place]) -> Any:
    if isinstance(value, dict):
        return without_nulls(value, places)
    if isinstance(value, list):
        items = {tuple(rest) for head, *rest in places if head == ITEM and rest}
        return [_inner(each, items) for each in value] if items else value
    return value
