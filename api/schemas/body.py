"""Turns bytes or a query string into a checked model, or an error that names the field.

Knows no field by name.
"""

import codecs
import json
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from api.schemas.fields import names_of
from headrace.errors import InvalidRequest, nearest

#: Levels of nested objects and lists. A sensible JSON schema in `response_format`, the deepest body, stays below.
NESTING_LIMIT = 32
#: Values in one body: fields, list items and what is in them. More would fill the memory with an error for each.
VALUES_LIMIT = 100_000
#: Longer names of fields are no misspelling.
NAME_CHARS = 40
#: Longer whole numbers fit no field and no column; reading them takes quadratic time.
INT_DIGITS_LIMIT = 19

#: JSON's terms for errors that pydantic states in Python's. No field may require more than one item of a list.
_WORDS: Mapping[str, str] = {
    "dict_type": "Input should be an object",
    "model_type": "Input should be an object",
    "too_long": "it may have at most {max_length} items",
    "too_short": "it must not be empty",
}

#: Matches up to the next comma, or up to the bracket that opens a non-empty list or object: a value follows each of
#: these. At last it matches up to the end.
_VALUE = re.compile(rb'(?:[^",\[{]++|"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[{](?=\s*[\]}]))*+(?:([,\[{])|\Z)', re.DOTALL)
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")

Schema = TypeVar("Schema", bound=BaseModel)


def parse_object(raw: bytes) -> dict[str, Any]:
    """Read a request body: one JSON object, in UTF-8, with nothing in it that Postgres or an engine cannot hold.

    Raises: InvalidRequest that says where.
    """
    if not raw:
        raise InvalidRequest("The body is empty. Send one JSON object.", code="invalid_json")
    if len(raw) > VALUES_LIMIT and _values(raw) > VALUES_LIMIT:
        raise _too_many("")
    try:
        # Some clients on Windows begin their UTF-8 with a mark.
        parsed = _DECODER.decode(raw.removeprefix(codecs.BOM_UTF8).decode())
    except UnicodeDecodeError as error:
        _refuse_form(raw)
        raise InvalidRequest(f"The body is not UTF-8: byte {error.start} is not.", code="invalid_json") from error
    except json.JSONDecodeError as error:
        _refuse_form(raw)
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidRequest(f"The body is not valid JSON: {error.msg} ({where}).", code="invalid_json") from error
    except RecursionError as error:
        raise _too_deep("") from error
    if not isinstance(parsed, dict):
        raise InvalidRequest("The body must be a JSON object.", code="invalid_json")
    # JSON has no other spelling for what is refused in a text, and a search of all texts takes longer than the parsing.
    _check(parsed, has_escapes=b"\\u" in raw)
    return parsed


#: How an HTML form begins: with a field's name and `=`, or as parts.
_FORM = re.compile(rb"[\w.%+\[\]-]{1,80}=")
_PARTS = re.compile(rb"--[^\r\n]{1,70}\r\nContent-Disposition: form-data", re.IGNORECASE)


def _refuse_form(raw: bytes) -> None:
    """Raises: InvalidRequest if the body is a form. Its Content-Type does not say so: curl sends each body as one."""
    kind = "multipart/form-data" if _PARTS.match(raw) else "name=value" if _FORM.match(raw) else None
    if kind is not None:
        message = f'The body is a form ({kind}). Send one JSON object, such as {{"name": "value"}}.'
        raise InvalidRequest(message, code="invalid_json")


def _values(raw: bytes) -> int:
    """Count the values in a body, up to one more than the limit, before any of them takes memory.

    Linear for any bytes: each match begins where the last ended, and none is tried twice.
    """
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") <= VALUES_LIMIT:
        return 0
    begun = (match[1] for match in _VALUE.finditer(raw))
    return sum(1 for _ in islice(filter(None, begun), VALUES_LIMIT + 1))


def validated(schema: type[Schema], values: Mapping[str, Any]) -> Schema:
    """The values as a model. Raises: InvalidRequest about the first field at fault."""
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise _invalid(_first(error.errors(include_url=False)), schema) from error


def _first(details: Sequence[ErrorDetails]) -> ErrorDetails:
    """The error to report. Where a field is missing, an unknown one first: it may be another request's word for it."""
    unknown = (each for each in details if each["type"] == "extra_forbidden")
    return next(unknown, details[0]) if details[0]["type"] == "missing" else details[0]


def _invalid(detail: ErrorDetails, schema: type[BaseModel]) -> InvalidRequest:
    # pydantic marks an object's key with "[key]", which means nothing to the caller.
    path = [part for part in detail["loc"] if part != "[key]"]
    named = detail.get("ctx", {}).get("param")
    param = _dotted([*path, named] if named else path)
    match detail["type"]:
        case "extra_forbidden":
            meant = f" Did you mean {near}?" if (near := suggested(schema, path)) else ""
            return InvalidRequest(f"Unknown parameter: '{param}'.{meant}", code="unknown_parameter", param=param)
        case "missing":
            return InvalidRequest(f"Missing required parameter: '{param}'.", code="missing_parameter", param=param)
        case "unsupported_parameter" | "webhook_url_not_allowed" as code:
            return InvalidRequest(detail["msg"], code=code, param=param)
        case "literal_error" if path[-1] == "type" and isinstance(detail["input"], str):
            message = f"Unsupported type '{_shown(detail['input'])}' in '{_dotted(path[:-1])}': {detail['msg']}."
            return InvalidRequest(message, code="unsupported_parameter", param=param)
    words = _WORDS.get(detail["type"])
    said = words.format(**detail.get("ctx", {})) if words else detail["msg"].rstrip(".")
    given = f", not {shown}" if said.startswith("Input should") and (shown := _value(detail["input"])) else ""
    return InvalidRequest(f"Invalid '{param}': {said}{given}.", param=param)


#: Characters of a value that an error shows.
SHOWN_CHARS = 40


def _value(given: object) -> str:
    """A caller's value as JSON, shortened; empty where it says nothing."""
    match given:
        case str():
            text = _UNSTORABLE.sub("\ufffd", given)
            return json.dumps(text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…", ensure_ascii=False)
        case list():
            return "a list"
        case dict():
            return "an object"
        case None | bool() | int() | float() if given not in (math.inf, -math.inf):
            return json.dumps(given)
    return ""


#: The same field in the words of other requests, likeliest first.
_OTHER_WORDS: Mapping[str, Sequence[str]] = {
    "input": ("messages", "prompt"),
    "max_completion_tokens": ("max_output_tokens", "max_tokens"),
    "max_output_tokens": ("max_completion_tokens", "max_tokens"),
    "max_tokens": ("max_output_tokens",),
    "messages": ("input", "prompt"),
    "prompt": ("input", "messages"),
    "reasoning": ("reasoning_effort",),
    "reasoning_effort": ("reasoning",),
    "response_format": ("text",),
    "service_tier": ("lane",),
    "text": ("response_format",),
}
#: The share of letters in order that a misspelt name has in common with what is meant.
_LIKENESS = 0.75


def suggested(schema: type[BaseModel], path: Sequence[str | int]) -> str:
    """The fields that an unknown one may stand for, in quotation marks; empty where none is near.

    Args: path: of the unknown field. Only the fields of the body itself, and those of `job`, are searched.
    """
    # A field whose name is empty has no path.
    *inside, name = map(str, path or [""])
    known = _names(schema)
    if inside == ["job"]:
        known = {each for each in known if each.startswith("job.")}
        name = f"job.{name}"
    elif inside or len(name) > NAME_CHARS:
        return ""
    if f"job.{name}" in known:
        found = [f"job.{name}", *(["service_tier"] if name == "lane" else [])]
    else:
        found = _in_other_words(name, known) or nearest(name, known, _LIKENESS)
        if not found and (near := nearest(name, _OTHER_WORDS, _LIKENESS)):
            found = _in_other_words(near[0], known)
    return " or ".join(f"'{each}'" for each in found)


def _in_other_words(name: str, known: Collection[str]) -> list[str]:
    return [each for each in _OTHER_WORDS.get(name, ()) if each in known][:1]


def _names(schema: type[BaseModel]) -> set[str]:
    """The names of a body's fields, and of those in its `job`, as a caller spells them."""
    job = schema.model_fields.get("job")
    if job is None or not (isinstance(job.annotation, type) and issubclass(job.annotation, BaseModel)):
        return set(names_of(schema))
    return {*names_of(schema), *(f"job.{name}" for name in names_of(job.annotation))}


def _parse_int(digits: str) -> int | float:
    return int(digits) if len(digits.lstrip("-")) <= INT_DIGITS_LIMIT else math.inf


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = _first_twice([name for name, _ in pairs])
        raise InvalidRequest(
            f"'{_shown(twice)}' is given twice in one object.", code="invalid_json", param=_shown(twice)
        )
    return found


#: Made once: `json.loads` would make one for each body.
_DECODER = json.JSONDecoder(parse_int=_parse_int, object_pairs_hook=_object)


def _first_twice(names: Sequence[str]) -> str:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    raise ValueError("no name is there twice")


def _check(body: dict[str, Any], *, has_escapes: bool) -> None:
    """Refuse JSON that Postgres or an engine cannot hold.

    A loop, so that no nesting can exhaust the stack. It keeps one branch, so that no width can fill the memory.
    Args: has_escapes: whether a text may contain NUL or a lone surrogate.
    """
    count = len(body)
    branch: list[tuple[tuple[str | int, ...], Iterator[tuple[str | int, Any]]]] = [
        ((), _children(body, (), has_escapes=has_escapes))
    ]
    while branch:
        path, children = branch[-1]
        if count > VALUES_LIMIT:
            raise _too_many(_dotted(path))
        for key, value in children:
            if isinstance(value, str):
                if has_escapes:
                    _check_text(value, (*path, key))
            elif isinstance(value, float) and not math.isfinite(value):
                name = _dotted((*path, key))
                raise InvalidRequest(f"Invalid '{name}': the number is out of range.", param=name)
            elif isinstance(value, dict | list):
                inner = (*path, key)
                if len(inner) >= NESTING_LIMIT:
                    raise _too_deep(_dotted(inner))
                count += len(value)
                branch.append((inner, _children(value, inner, has_escapes=has_escapes)))
                break
        else:
            branch.pop()


def _children(
    value: dict[str, Any] | list[Any], path: Sequence[str | int], *, has_escapes: bool
) -> Iterator[tuple[str | int, Any]]:
    if isinstance(value, list):
        # Whole numbers and flags need no check, and a body can hold many.
        return ((at, child) for at, child in enumerate(value) if not isinstance(child, int))
    for key in value if has_escapes else ():
        _check_text(key, (*path, key))
    return iter(value.items())


def _check_text(text: str, path: Sequence[str | int]) -> None:
    bad = _UNSTORABLE.search(text)
    if bad:
        name = _dotted(path)
        kind = "NUL" if bad.group() == "\0" else "a lone surrogate"
        raise InvalidRequest(
            f"Invalid '{name}': it contains {kind} at character {bad.start()}; text must be valid Unicode without NUL.",
            param=name,
        )


def _too_deep(name: str) -> InvalidRequest:
    return InvalidRequest(
        f"The body nests deeper than {NESTING_LIMIT} levels.", code="invalid_json", param=name or None
    )


def _too_many(name: str) -> InvalidRequest:
    return InvalidRequest(f"The body holds more than {VALUES_LIMIT} values.", code="invalid_json", param=name or None)


def _dotted(path: Sequence[str | int]) -> str:
    return ".".join(_shown(str(part)) for part in path)


def _shown(name: str) -> str:
    """A caller's name made safe for an answer: short, and valid text."""
    return _UNSTORABLE.sub("\ufffd", name)[:80]
