"""Whether a JSON value keeps to a JSON schema, as far as a bounded number of steps can tell. Pure.

A schema comes from a caller. `jsonschema_rs` holds the GIL while it validates, and knows no limit: parts that refer to
others twice take exponential time. So the steps that it may take are counted first, from above: each visit of a part of
the schema to a part of the value, again for each way that leads there. What may take too many is not checked.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal
from urllib.parse import unquote

from jsonschema_rs import Draft202012Validator, ReferencingError, RegexOptions

#: `unchecked`: the check would take too long, or the schema is none, or has what a bounded check cannot follow.
Verdict = Literal["kept", "broken", "unchecked"]

#: The most steps to compile a schema, and again to check a value: together some 0.1 s on a slow processor.
MOST_STEPS = 100_000
#: Steps of compiling, measured against those of a visit. The compiler's stack and time grow with a chain of references.
_PART_STEPS, _REF_STEPS, _PATTERN_STEPS = 2, 100, 1_000
#: Steps for each character that a pattern is matched with: the engine follows up to thousands of states at once.
_MATCH_STEPS = 10
#: Characters of a text, or bits of a whole number, that are read in one step; and parts that are compared in one.
_READ_IN_A_STEP, _COMPARED_IN_A_STEP = 64, 8
#: An engine without backtracking: linear in the text. A pattern with look-around, a back-reference or too many states
#: is an error.
_PATTERNS = RegexOptions(size_limit=256 << 10, dfa_size_limit=1 << 20)

#: Keywords that change what a reference means, or whose work this cannot count: `unevaluated...` evaluates parts again.
_NOT_COUNTED = frozenset(
    ("$id", "$schema", "$dynamicRef", "$recursiveRef", "unevaluatedItems", "unevaluatedProperties", "contentSchema")
)
#: Keywords by where they hold parts that look at the same value.
_ONE, _SEVERAL, _NAMED = (
    ("not", "if", "then", "else"),
    ("allOf", "anyOf", "oneOf"),
    ("dependentSchemas", "dependencies"),
)
_OF_OBJECTS = ("properties", "patternProperties", "additionalProperties", "propertyNames")
_OF_ARRAYS = ("prefixItems", "items", "additionalItems", "contains")
_WITH_PARTS = frozenset((*_ONE, *_SEVERAL, *_NAMED, *_OF_OBJECTS, *_OF_ARRAYS, "$defs", "definitions"))


class TooManySteps(Exception):
    """The check would take too many steps, or their number is unknown."""


def verdict(value: Any, schema: Any) -> Verdict:
    """Whether the value keeps to the schema. JSON Schema 2020-12, whatever `$schema` says; `format` is no constraint.

    Bound: `MOST_STEPS`, once for the schema and once for the value.
    """
    if isinstance(schema, Mapping):
        # The name of the whole and its draft. Where a part has them, it is not checked.
        schema = {name: each for name, each in schema.items() if name not in ("$id", "$schema")}
    try:
        _check_size(schema)
        Steps(schema).count(schema, value)
        validator = Draft202012Validator(schema, validate_formats=False, pattern_options=_PATTERNS, offline=True)
        return "kept" if validator.is_valid(value) else "broken"
    except (TooManySteps, RecursionError, ReferencingError, ValueError):  # ValueError: the schema is none.
        return "unchecked"


def _check_size(schema: Any) -> None:
    """Raises: TooManySteps: the schema takes too many steps to compile, or has a keyword that is not counted."""
    steps = 0
    for part in _parts(schema):
        steps += _PART_STEPS + _reading(part)
        if isinstance(part, Mapping):
            if not _NOT_COUNTED.isdisjoint(part):
                raise TooManySteps
            patterns = part.get("patternProperties")
            steps += _REF_STEPS * isinstance(part.get("$ref"), str)
            steps += _PATTERN_STEPS * isinstance(part.get("pattern"), str)
            steps += _PATTERN_STEPS * (len(patterns) if isinstance(patterns, Mapping) else 0)
        if steps > MOST_STEPS:
            raise TooManySteps


class Steps:
    """Counts the steps of checking one value. What is counted once is known, so counting is bounded like the check."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema
        self._known: dict[tuple[int, int], int] = {}
        self._known_own: dict[int, int] = {}
        self._counted = 0

    def count(self, schema: Any, value: Any) -> int:
        """The most steps of this part of the schema on this part of the value. Raises: TooManySteps, RecursionError."""
        if not isinstance(schema, Mapping):
            return 1
        at = id(schema), id(value)
        if (known := self._known.get(at)) is not None:
            return known
        self._known[at] = MOST_STEPS + 1  # For what leads back here: such a check would never end.
        steps = self._own(schema) + _of_value(schema, value)
        self._counted += steps
        for part, of in self._visits(schema, value):
            if (steps := steps + self.count(part, of)) > MOST_STEPS:
                raise TooManySteps
        if self._counted > MOST_STEPS:
            raise TooManySteps
        self._known[at] = steps
        return steps

    def _own(self, schema: Mapping[str, Any]) -> int:
        """The steps of a part's own keywords, without those of the parts in them."""
        if (known := self._known_own.get(id(schema))) is None:
            compared = sum(
                1 + (len(each) if isinstance(each, list | Mapping) else 0) if keyword in _WITH_PARTS else _size(each)
                for keyword, each in schema.items()
            )
            known = self._known_own[id(schema)] = 1 + compared // _COMPARED_IN_A_STEP
        return known

    def _visits(self, schema: Mapping[str, Any], value: Any) -> Iterator[tuple[Any, Any]]:
        """The parts that the library may visit from here, each with the part of the value that it looks at."""
        if "$ref" in schema:
            if (target := referenced(self._schema, schema["$ref"])) is None:
                raise TooManySteps
            yield target, value
        for keyword in _ONE:
            if keyword in schema:
                yield schema[keyword], value
        for keyword in _SEVERAL:
            for each in listed(schema, keyword):
                yield each, value
        for keyword in _NAMED:
            for each in named(schema, keyword).values():
                yield each, value
        if isinstance(value, Mapping):
            yield from _of_object(schema, value)
        elif isinstance(value, list):
            yield from _of_array(schema, value)


def referenced(schema: Any, reference: Any) -> Any:
    """The part of a schema, or the bool, that a JSON pointer into the schema itself names; None for anything else."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    found, (first, *names) = schema, unquote(reference[1:]).split("/")
    for name in names:
        name = name.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        else:
            found = found.get(name) if isinstance(found, Mapping) else None
    return None if first or not isinstance(found, Mapping | bool) else found


def _of_value(schema: Mapping[str, Any], value: Any) -> int:
    """The steps that a part's own keywords take for the value's size."""
    steps = _reading(value)
    if isinstance(value, str) and "pattern" in schema:
        steps += _MATCH_STEPS * len(value)
    if isinstance(value, list) and schema.get("uniqueItems"):
        steps += len(value) * _size(value)
    if isinstance(value, Mapping) and (patterns := named(schema, "patternProperties")):
        steps += _MATCH_STEPS * len(patterns) * sum(1 + len(name) for name in value)
    return steps


def _of_object(schema: Mapping[str, Any], value: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    properties, patterns = named(schema, "properties"), named(schema, "patternProperties")
    for name, each in value.items():
        yield properties.get(name, schema.get("additionalProperties")), each
        if "propertyNames" in schema:
            yield schema["propertyNames"], name
        for part in patterns.values():
            yield part, each


def _of_array(schema: Mapping[str, Any], value: list[Any]) -> Iterator[tuple[Any, Any]]:
    yield from zip(listed(schema, "prefixItems"), value, strict=False)
    for keyword in ("items", "additionalItems", "contains"):
        if keyword in schema:
            for each in value:
                yield schema[keyword], each


def listed(schema: Mapping[str, Any], keyword: str) -> list[Any]:
    """What a keyword holds, if that is a list; else none."""
    return found if isinstance(found := schema.get(keyword), list) else []


def named(schema: Mapping[str, Any], keyword: str) -> Mapping[str, Any]:
    """What a keyword holds, if that is a mapping; else none."""
    return found if isinstance(found := schema.get(keyword), Mapping) else {}


def _parts(tree: Any) -> Iterator[Any]:
    """Every part of a JSON value, itself and names included."""
    left = [tree]
    while left:
        yield (part := left.pop())
        if isinstance(part, Mapping):
            left += part.keys()
            left += part.values()
        elif isinstance(part, list):
            left += part


def _size(tree: Any) -> int:
    return sum(1 + _reading(part) for part in _parts(tree))


def _reading(part: Any) -> int:
    """Steps to read a text or a number, beyond the first."""
    length = len(part) if isinstance(part, str) else part.bit_length() if isinstance(part, int) else 0
    return length // _READ_IN_A_STEP
