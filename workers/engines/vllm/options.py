"""Checks an operator's `engine_options` before vLLM loads anything. Pure: does not import vllm.

The caller passes the names and types of vLLM's engine arguments, as dataclass fields.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import Field
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from headrace.errors import ConfigError

_PLAIN = {bool, int, float, str, dict, list, set, NoneType}


def checked(options: Mapping[str, Any], known: Iterable[Field[Any]], where: str) -> dict[str, Any]:
    """Convert the options to vLLM's types. A text from an environment variable may stand for a number or JSON.

    Does not check an option whose type is a class of vLLM's, because vLLM checks it at its start.

    Args:
        known: the fields of vLLM's engine arguments.
        where: the dotted path of the options.

    Raises:
        ConfigError: vLLM does not have the option, or refuses its value. `param` is its dotted path.
    """
    types = {field.name: field.type for field in known if not field.name.startswith("_")}
    return {name: _value(name, value, types, where) for name, value in options.items()}


def blamed(error: ValidationError, options: Mapping[str, Any]) -> str | None:
    """The dotted path of the option that vLLM's own error is about; None if the error does not show it."""
    path = [str(part) for part in error.errors()[0]["loc"]]
    # The class SpeculativeConfig is the option speculative_config.
    owner = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", error.title).lower()
    for option in ([owner, *path], path):
        if option and option[0] in options:
            return ".".join(option)
    return None


def _value(name: str, value: Any, types: Mapping[str, Any], where: str) -> Any:
    param = f"{where}.{name}"
    if name not in types:
        near = get_close_matches(name, types, 1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise ConfigError(f"{param}: vLLM has no such option.{hint}", param=param)
    if not _is_plain(types[name]):
        return _read(value)
    adapter = TypeAdapter[Any](types[name])
    for attempt in (value, _read(value)):
        try:
            return adapter.validate_python(attempt)
        except ValidationError as error:
            complaint = error
    raise ConfigError(f"{param}: {complaint.errors()[0]['msg']}. Got {value!r}.", param=param)


def _read(value: Any) -> Any:
    """The value; a text that is JSON is parsed."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _is_plain(kind: Any) -> bool:
    """True for a type of plain values: not a class of vLLM's, nor the name of one."""
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return all(map(_is_plain, get_args(kind)))
    return origin is Literal or (origin or kind) in _PLAIN
