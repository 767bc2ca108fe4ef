"""Schemas by OpenAI's keywords, beside a whole validator."""

from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.policies.routing.json_schema import violation

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
    assert (violation(value, schema) is None) == jsonschema_rs.is_valid(schema, value)


def test_a_schema_may_refer_to_its_own_parts() -> None:
    node = {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}}
    schema = {"$ref": "#/$defs/node", "$defs": {"node": {**node, "required": ["next"], "additionalProperties": False}}}

    assert violation({"next": {"next": None}}, schema) is None
    assert violation({"next": {"next": 1}}, schema) == "anyOf"
    assert violation({"next": None, "other": 1}, schema) == "additionalProperties"


@pytest.mark.parametrize(
    "schema",
    [{"$ref": "#/gone"}, {"$ref": "https://example.com/s"}, {"oneOf": [False]}, {"$ref": "#"}, {"pattern": "("}],
)
def test_what_it_does_not_know_it_lets_through(schema: Any) -> None:
    assert violation("x", schema) is None


@pytest.mark.parametrize(
    ("schema", "value", "keyword"),
    [
        ({"type": "integer"}, 1.5, "type"),
        ({"type": "integer"}, True, "type"),
        ({"enum": [1]}, True, "enum"),
        ({"required": ["a"]}, {}, "required"),
        ({"items": {"type": "string"}}, ["a", 1], "type"),
        ({"minItems": 1}, [], "minItems"),
    ],
)
def test_it_names_the_keyword(schema: Any, value: Any, keyword: str) -> None:
    assert violation(value, schema) == keyword
