"""JSON of a schema, held against a validator that knows nothing of how it was made."""

import json
import math
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.errors import PromptRejected
from workers.engines.simulator.constrained import stricter, write

FORMATS = ["date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"]
PATTERNS = [r"^[A-Z]{2,4}-\d{3}$", r"^\d+$", r"^(red|green)+$", r"^#[0-9a-f]{6}$", r"^\S+@\S+$", r"^ä+$"]
NODE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
        "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
    },
    "required": ["name", "next", "children"],
    "additionalProperties": False,
}

sizes = st.integers(0, 6)
scalars = st.sampled_from([None, True, False, 0, -7, 2.5, "", "wheel", 'a "quoted" ä'])
names = st.sampled_from(["name", "age", "a b", 'x"y', "größe", "properties", "enum"])


def bounds(kind: str, low: float, width: float, names: tuple[str, str]) -> dict[str, Any]:
    return {"type": kind, names[0]: low, names[1]: low + width}


leaves = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.just({"type": "integer"}),
    st.just({"type": "number"}),
    st.just({"$ref": "#/$defs/node"}),
    st.just({"$ref": "#/$defs/leaf"}),
    st.builds(lambda low, more: {"type": "string", "minLength": low, "maxLength": low + more}, sizes, sizes),
    st.builds(lambda low: {"type": "string", "minLength": low}, st.integers(0, 40)),
    st.sampled_from(FORMATS).map(lambda name: {"type": "string", "format": name}),
    st.sampled_from(PATTERNS).map(lambda pattern: {"type": "string", "pattern": pattern}),
    st.lists(scalars, min_size=1, max_size=4).map(lambda values: {"enum": values}),
    scalars.map(lambda value: {"const": value}),
    st.builds(
        bounds,
        st.sampled_from(["integer", "number"]),
        st.integers(-2000, 2000),
        st.integers(2, 5000),
        st.sampled_from([("minimum", "maximum"), ("exclusiveMinimum", "exclusiveMaximum")]),
    ),
    st.builds(
        bounds,
        st.just("number"),
        st.sampled_from([0, 0.5, -3.25]),
        st.sampled_from([0.001, 0.25, 10]),
        st.sampled_from([("minimum", "maximum"), ("exclusiveMinimum", "exclusiveMaximum")]),
    ),
    st.sampled_from([{"type": "integer", "multipleOf": 7}, {"type": ["string", "null"]}, {}]),
)


def objects(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    @st.composite
    def draw(draw: st.DrawFn) -> dict[str, Any]:
        properties = draw(st.dictionaries(names, inner, max_size=4))
        required = draw(st.lists(st.sampled_from(sorted(properties)), unique=True)) if properties else []
        others = draw(
            st.sampled_from([{}, {"additionalProperties": False}, {"additionalProperties": {"type": "null"}}])
        )
        return {"type": "object", "properties": properties, "required": required, **others}

    return draw()


def arrays(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(
        lambda items, low, more: {"type": "array", "items": items, "minItems": low, "maxItems": low + more},
        inner,
        st.integers(0, 3),
        st.integers(0, 3),
    )


def wider(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.one_of(objects(inner), arrays(inner), st.lists(inner, min_size=1, max_size=3).map(lambda s: {"anyOf": s}))


schemas = st.recursive(leaves, wider, max_leaves=8).map(
    lambda schema: {**schema, "$defs": {"node": NODE, "leaf": {"enum": ["low", "lower", "high"]}}}
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(schema=schemas, seed=st.text(max_size=4))
def test_what_is_written_keeps_to_the_schema(schema: dict[str, Any], seed: str) -> None:
    text, is_whole = write(schema, seed, 20_000)

    assert is_whole
    # Keys in an object are unique, which a validator does not see.
    value = json.loads(text, object_pairs_hook=unique)
    jsonschema_rs.validator_for(schema, validate_formats=True).validate(value)
    assert write(schema, seed, 20_000) == (text, True)


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({name for name, _ in pairs}) == len(pairs)
    return dict(pairs)


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(schema=schemas)
def test_the_stricter_schema_allows_nothing_more(schema: dict[str, Any]) -> None:
    try:
        text, _ = write(stricter(schema), "seed", 20_000)
    except PromptRejected:
        return  # It may allow nothing: the schema itself is then the guide.
    jsonschema_rs.validator_for(schema, validate_formats=True).validate(json.loads(text))


def test_optional_properties_are_written_in_order_and_unnamed_ones_are_not() -> None:
    kinds = {"string": str, "integer": int, "number": float | int, "boolean": bool, "array": list, "object": dict}
    schema = {"type": "object", "properties": {f"{kind}s": {"type": kind} for kind in kinds}}

    value = json.loads(write(schema, "", 2000)[0])

    assert list(value) == [f"{kind}s" for kind in kinds]
    assert all(isinstance(value[f"{kind}s"], python) for kind, python in kinds.items())


def test_another_seed_makes_another_value() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}, "t": {"type": "string"}}}
    assert len({write(schema, str(seed), 2000)[0] for seed in range(20)}) > 10


@pytest.mark.parametrize("name", FORMATS)
def test_a_text_has_its_format(name: str) -> None:
    text, _ = write({"type": "string", "format": name}, "", 200)
    assert jsonschema_rs.validator_for({"format": name}, validate_formats=True).is_valid(json.loads(text)), text


def test_an_open_end_is_closed_in_half_of_the_room() -> None:
    schema = {"$ref": "#/$defs/node", "$defs": {"node": NODE}}
    for seed in range(50):
        text, is_whole = write(schema, str(seed), 400)
        assert is_whole, text


def test_a_text_that_does_not_fit_is_broken_off() -> None:
    text, is_whole = write({"type": "string", "minLength": 500}, "", 100)
    assert not is_whole
    assert len(text) == 100


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"not": {"type": "string"}}, '"not"'),
        ({"type": "string", "format": "zip"}, "Unknown format: zip"),
        ({"type": "integer", "minimum": 2, "maximum": 1}, "Unsatisfiable"),
        ({"$ref": "#/$defs/none"}, "no part '#/\\$defs/none'"),
        ({"$ref": "https://headrace.example/schema"}, "no part 'https://headrace.example/schema'"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"type": "integer", "minimum": math.nan}, "JSON schema"),
        ({"type": "array", "minItems": 10**9}, "lists have up to 1000000000 items"),
        ({"type": "array", "maxItems": 10**9, "minItems": 1}, "may have 30000 together"),
        ({"anyOf": [{"items": {"maxItems": 2**14}, "minItems": 2**14}]}, "lists have up to 32768 items"),
    ],
    ids=str,
)
def test_a_schema_that_cannot_guide_is_rejected(schema: dict[str, Any], reason: str) -> None:
    with pytest.raises(PromptRejected, match=reason) as refusal:
        write(schema, "", 100)
    assert refusal.value.param == "response_format"


def test_only_the_bounds_of_lists_count() -> None:
    named = {"maxItems": {"type": "integer", "const": 7, "examples": [{"minItems": 10**9}]}}
    schema = {"type": "object", "properties": named, "required": ["maxItems"], "default": {"maxItems": 10**9}}
    assert json.loads(write(schema, "", 200)[0])["maxItems"] == 7
