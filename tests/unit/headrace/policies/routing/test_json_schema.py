"""Whether an answer keeps to a schema: what a validator says, within a bounded number of steps."""

import json
import subprocess
import sys
from collections.abc import Mapping
from random import Random
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from headrace.policies.routing.json_schema import MOST_STEPS, Steps, TooManySteps, verdict

LEAF = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.floats(-3, 3), st.text("ab", max_size=3))
NAMES = st.sampled_from(["a", "b", "c"])
VALUES = st.recursive(
    LEAF, lambda each: st.lists(each, max_size=3) | st.dictionaries(NAMES, each, max_size=3), max_leaves=8
)
TYPES = st.sampled_from(["object", "array", "string", "boolean", "null", "number", "integer"])
LEAF_SCHEMAS = st.one_of(
    st.booleans(),
    st.builds(lambda of: {"type": of}, TYPES | st.lists(TYPES, min_size=1, max_size=3, unique=True)),
    st.builds(lambda values: {"enum": values}, st.lists(LEAF, min_size=1, max_size=3)),
    st.builds(lambda value: {"const": value}, LEAF),
    st.builds(lambda least, most: {"minimum": least, "maximum": most}, st.integers(-3, 3), st.integers(-3, 3)),
    st.builds(lambda least: {"exclusiveMinimum": least}, st.integers(-3, 3)),
    st.builds(lambda least, most: {"minLength": least, "maxLength": most}, st.integers(0, 3), st.integers(0, 3)),
    st.just({"pattern": "^a"}),
)


def whole(each: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    objects = st.builds(
        lambda properties, required, others: {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": others,
        },
        st.dictionaries(NAMES, each, max_size=3),
        st.lists(NAMES, max_size=2, unique=True),
        st.booleans(),
    )
    arrays = st.builds(
        lambda items, least, most: {"items": items, "minItems": least, "maxItems": most},
        each,
        st.integers(0, 3),
        st.integers(0, 3),
    )
    several = st.lists(each, min_size=1, max_size=3)
    return (
        objects | arrays | several.map(lambda all_of: {"anyOf": all_of}) | several.map(lambda all_of: {"allOf": all_of})
    )


SCHEMAS = st.recursive(LEAF_SCHEMAS, whole, max_leaves=8)


@given(SCHEMAS, VALUES)
def test_it_says_what_a_whole_validator_says(schema: Any, value: Any) -> None:
    assert verdict(value, schema) == ("kept" if jsonschema_rs.is_valid(schema, value) else "broken")


def chain(levels: int, keyword: str, last: Any) -> dict[str, Any]:
    """Parts that each refer to the next one twice."""
    parts = {f"n{level}": {keyword: 2 * [{"$ref": f"#/$defs/n{level + 1}"}]} for level in range(levels)}
    return {"$ref": "#/$defs/n0", "$defs": {**parts, f"n{levels}": last}}


#: Schemas and values that take a validator minutes or years, and what is said of them.
ATTACKS: Mapping[str, tuple[Any, Any, str]] = {
    "a pattern that backtracks": (
        {"allOf": [{"type": "string", "pattern": "^((a+)+b|a+)$"}, {"type": "string", "pattern": "^a{30}$"}]},
        "a" * 30,
        "kept",
    ),
    **{f"{levels} levels of anyOf": (chain(levels, "anyOf", False), "x", "unchecked") for levels in (18, 28, 400)},
    "allOf": (chain(40, "allOf", True), "x", "unchecked"),
    "oneOf": (chain(40, "oneOf", False), "x", "unchecked"),
    "what evaluates its parts again": (chain(40, "anyOf", False) | {"unevaluatedProperties": False}, {}, "unchecked"),
    "a circle": ({"anyOf": [{"not": {"$ref": "#"}}, {"$ref": "#"}]}, "x", "unchecked"),
    "branches at each level of the value": (
        {"allOf": 2 * [{"items": {"$ref": "#"}}]},
        json.loads(60 * "[" + 60 * "]"),
        "unchecked",
    ),
    "a long chain of references": (
        {"$ref": "#/$defs/n0", "$defs": {f"n{no}": {"$ref": f"#/$defs/n{no + 1}"} for no in range(100_000)}},
        1,
        "unchecked",
    ),
    "many large patterns": ({"anyOf": [{"pattern": f".{{{2000 + no}}}"} for no in range(20_000)]}, "x", "unchecked"),
    "a pattern of many states": ({"pattern": "[ab]*a[ab]{4000}c"}, "abbab" * 100_000, "unchecked"),
    "items that must differ": ({"uniqueItems": True}, [[n, {}] for n in range(9_000)], "unchecked"),
    "a large enum for each item": ({"items": {"enum": [[n] for n in range(9_000)]}}, 99_000 * [[-1]], "unchecked"),
    "a deep value": ({"items": {"$ref": "#"}}, json.loads(900 * "[" + 900 * "]"), "unchecked"),
}


#: Judges what it reads, and says how after each.
JUDGE = """
import json, sys
from headrace.policies.routing.json_schema import verdict
for name, (schema, value, _) in json.load(sys.stdin).items():
    print(name, verdict(value, schema), sep=": ", flush=True)
"""


def test_no_schema_of_a_caller_freezes_a_worker() -> None:
    # A validator holds the GIL, so only another process can end one that takes minutes.
    given = {"input": json.dumps(ATTACKS), "capture_output": True, "text": True, "timeout": 60}
    judged = subprocess.run([sys.executable, "-c", JUDGE], **given, check=True)
    assert judged.stdout.splitlines() == [f"{name}: {said}" for name, (_, _, said) in ATTACKS.items()]


class Visit:
    """A keyword of this test's own. It counts how often the validator visits a part of a schema."""

    number = 0

    def __init__(self, *_: Any) -> None: ...

    def validate(self, _: Any) -> None:
        Visit.number += 1


LEVELS = 6
SAME_VALUE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "$ref")
WITHIN = ("properties", "patternProperties", "additionalProperties", "items", "prefixItems", "contains")


def part(level: int, chance: Random) -> dict[str, Any]:
    """A part with some keywords. What looks at the same value is of a deeper level, so no check is endless."""
    made: dict[str, Any] = {"visit": True}
    for keyword in chance.sample(SAME_VALUE + WITHIN, 4) if level < LEVELS else ():
        first = level + 1 if keyword in SAME_VALUE else 0
        one, other = ({"$ref": f"#/$defs/{chance.randint(first, LEVELS)}"} for _ in range(2))
        if keyword in ("allOf", "anyOf", "oneOf", "prefixItems"):
            made[keyword] = [one, other]
        elif keyword in ("properties", "patternProperties", "dependentSchemas"):
            made[keyword] = {"a": one, "b": other}
        else:
            made[keyword] = one["$ref"] if keyword == "$ref" else one
    return made


@given(st.integers(), VALUES)
def test_a_validator_visits_no_more_than_was_counted(seed: int, value: Any) -> None:
    chance = Random(seed)
    schema = {"$ref": "#/$defs/0", "$defs": {str(level): part(level, chance) for level in range(LEVELS + 1)}}
    try:
        counted = Steps(schema).count(schema, value)
    except TooManySteps:
        reject()
    validator = jsonschema_rs.Draft202012Validator(schema, keywords={"visit": Visit})
    Visit.number = 0
    validator.is_valid(value)
    assert Visit.number <= counted <= MOST_STEPS


def test_a_schema_may_refer_to_its_own_parts() -> None:
    node = {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}}
    schema = {"$ref": "#/$defs/node", "$defs": {"node": {**node, "required": ["next"], "additionalProperties": False}}}

    assert verdict({"next": {"next": None}}, schema) == "kept"
    assert verdict({"next": {"next": 1}}, schema) == "broken"
    assert verdict({"next": None, "other": 1}, schema) == "broken"


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/gone"},
        {"$ref": "https://example.com/s"},
        {"$ref": "#"},
        {"pattern": "("},
        {"pattern": "(?=a)"},
        {"pattern": r"(a)\1"},
        {"patternProperties": {"(?!a)": {}}},
        {"type": "text"},
        {"properties": {"a": {"$id": "https://example.com/a"}}},
        {"$dynamicRef": "#a"},
        [],
    ],
)
def test_what_cannot_be_checked_passes_and_says_so(schema: Any) -> None:
    assert verdict("x", schema) == "unchecked"


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "integer"}, 1.5),
        ({"type": "integer"}, True),
        ({"enum": [1]}, True),
        ({"required": ["a"]}, {}),
        ({"items": {"type": "string"}}, ["a", 1]),
        ({"minItems": 1}, []),
        ({"pattern": r"^\d{3}$"}, "12a"),
        ({"multipleOf": 5}, 7),
        ({"oneOf": [True, {"type": "string"}]}, "x"),
        ({"not": {"type": "string"}}, "x"),
        # The name and the draft of the whole change nothing.
        ({"$schema": "http://json-schema.org/draft-07/schema#", "$id": "https://example.com/s", "type": "null"}, 1),
        ({"$ref": "#/definitions/a", "definitions": {"a": {"type": "null"}}}, 1),
    ],
)
def test_an_answer_that_breaks_its_schema_is_found(schema: Any, value: Any) -> None:
    assert verdict(value, schema) == "broken"


def test_a_large_schema_and_a_long_answer_of_every_day_are_checked() -> None:
    fields = {f"field {no}": {"type": ["string", "null"], "description": "What it is. " * 5} for no in range(200)}
    each = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    schema = {"type": "object", "properties": {"rows": {"type": "array", "items": {"$ref": "#/$defs/row"}}}}
    schema["$defs"] = {"row": each}
    row = dict.fromkeys(fields, "some words")

    assert verdict(json.loads(json.dumps({"rows": 50 * [row]})), schema) == "kept"
    assert verdict({"rows": [*(49 * [row]), {**row, "field 7": 7}]}, schema) == "broken"


def test_a_format_is_no_constraint() -> None:
    assert verdict("tomorrow", {"format": "date"}) == "kept"
