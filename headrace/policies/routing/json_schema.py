"""Whether a JSON value keeps to a schema, by the keywords of OpenAI's structured outputs. Pure.

Other keywords, such as `oneOf` or `not`, are ignored: an engine that follows a schema has followed them, and an answer
must not be called bad for a keyword that this does not know.
Source: OpenAI's guide "Structured model outputs", supported schemas.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

#: How deep a schema may refer to itself before a value is taken as it is. OpenAI allows a nesting of 10.
DEEPEST = 64

_TYPES: Mapping[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
}


def violation(value: Any, schema: Any) -> str | None:
    """The first keyword that the value does not keep to; None if it keeps to all."""
    return _violation(value, schema, schema, DEEPEST)


def _violation(value: Any, schema: Any, root: Any, depth: int) -> str | None:
    if schema is False:
        return "false"
    if not isinstance(schema, Mapping) or depth == 0:
        return None
    if (found := _resolved(schema, root)) is not None and (broken := _violation(value, found, root, depth - 1)):
        return broken
    if "type" in schema and not _is_any(value, schema["type"]):
        return "type"
    if "enum" in schema and not any(_equal(value, each) for each in schema["enum"]):
        return "enum"
    if "const" in schema and not _equal(value, schema["const"]):
        return "const"
    if "anyOf" in schema and all(_violation(value, each, root, depth - 1) for each in schema["anyOf"]):
        return "anyOf"
    for each in schema.get("allOf", ()):
        if broken := _violation(value, each, root, depth - 1):
            return broken
    if isinstance(value, dict):
        return _of_object(value, schema, root, depth)
    if isinstance(value, list):
        return _of_array(value, schema, root, depth)
    return _of_scalar(value, schema)


def _of_object(value: dict[str, Any], schema: Mapping[str, Any], root: Any, depth: int) -> str | None:
    if any(name not in value for name in schema.get("required", ())):
        return "required"
    known = schema.get("properties", {})
    for name, each in value.items():
        # A name that `patternProperties` may cover is not checked.
        others = True if "patternProperties" in schema else schema.get("additionalProperties", True)
        of_name = known.get(name, others)
        if broken := _violation(each, of_name, root, depth - 1):
            return "additionalProperties" if of_name is False else broken
    return None


def _of_array(value: list[Any], schema: Mapping[str, Any], root: Any, depth: int) -> str | None:
    if len(value) < schema.get("minItems", 0):
        return "minItems"
    if len(value) > schema.get("maxItems", math.inf):
        return "maxItems"
    if "prefixItems" in schema:
        return None
    broken = (_violation(each, schema.get("items", True), root, depth - 1) for each in value)
    return next(filter(None, broken), None)


def _of_scalar(value: Any, schema: Mapping[str, Any]) -> str | None:
    if isinstance(value, str):
        if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", math.inf):
            return "maxLength"
        return "pattern" if "pattern" in schema and not _matches(schema["pattern"], value) else None
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not schema.get("minimum", -math.inf) <= value <= schema.get("maximum", math.inf):
            return "maximum"
        if not schema.get("exclusiveMinimum", -math.inf) < value < schema.get("exclusiveMaximum", math.inf):
            return "exclusiveMaximum"
    return None


def _matches(pattern: str, value: str) -> bool:
    try:
        return re.search(pattern, value) is not None
    except re.error:
        return True  # A JavaScript pattern that Python does not read.


def _is_any(value: Any, types: Any) -> bool:
    return any(_is(value, each) for each in ([types] if isinstance(types, str) else types))


def _is(value: Any, name: str) -> bool:
    if name in ("number", "integer"):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and (name == "number" or isinstance(value, int) or value.is_integer())
    return name not in _TYPES or isinstance(value, _TYPES[name])


def _equal(one: Any, other: Any) -> bool:
    """Equal as JSON, in which `true` is not 1."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _resolved(schema: Mapping[str, Any], root: Any) -> Any:
    """What `$ref` names inside the document; None without one, or for one that leads elsewhere."""
    reference = schema.get("$ref")
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    found = root
    for part in filter(None, reference[1:].split("/")):
        name = part.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, Mapping) else None
    return found
