"""Values as vLLM takes them: an operator's `engine_options` and a request's sampling. Pure: does not import vllm."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import Field
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from headrace.domain.answers import TokenLogprob, alternative
from headrace.domain.prompts import ExtraSampling, Sampling
from headrace.errors import ConfigError, PromptRejected, did_you_mean

_PLAIN = {bool, int, float, str, dict, list, set, NoneType}


def checked(options: Mapping[str, Any], known: Iterable[Field[Any]], where: str) -> dict[str, Any]:
    """Convert the options to vLLM's types. A text from an environment variable may stand for a number or JSON.

    Does not check an option whose type is a class of vLLM's, because vLLM checks it at its start.

    Args:
        known: the fields of vLLM's engine arguments, which are a dataclass.
        where: the dotted path of the options.

    Raises: ConfigError: vLLM does not have the option, or refuses its value. `param` is its dotted path.
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
        raise ConfigError(f"{param}: vLLM has no such option.{did_you_mean(name, types)}", param=param)
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


def decoding(sampling: Sampling) -> dict[str, Any]:
    """The arguments of SamplingParams that the request sets. The model's defaults apply to the others."""
    given = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
        "logprobs": sampling.top_logprobs,
    }
    set_here = {name: value for name, value in given.items() if value is not None}
    several = {"n": sampling.n} if sampling.n > 1 else {}
    return {**set_here, **several, **_extra(sampling.extra or {}), "stop": list(sampling.stop)}


def _extra(extra: ExtraSampling) -> dict[str, Any]:
    given = {name: value for name, value in extra.items() if name != "chat_template_kwargs"}
    if biases := given.get("logit_bias"):
        given["logit_bias"] = {int(token_id): bias for token_id, bias in biases.items()}
    return given


def constraint(response_format: Mapping[str, Any] | None) -> dict[str, Any]:
    """The arguments of StructuredOutputsParams, from a `response_format` of chat completions; none for plain text.

    Raises: PromptRejected.
    """
    match response_format:
        case None | {"type": "text"}:
            return {}
        case {"type": "json_object"}:
            return {"json_object": True}
        case {"type": "json_schema", "json_schema": {"schema": schema}}:
            return {"json": schema}
    raise PromptRejected("This response_format is not supported.", param="response_format")


def token_logprobs(
    token_ids: Sequence[int], places: Sequence[Mapping[int, Any]], top_logprobs: int
) -> Iterator[TokenLogprob]:
    """Convert vLLM's log probabilities to the format of chat completions.

    Args: places: for each place, vLLM's `Logprob` by token id: first the token's own, then those of the likeliest
        tokens, best first. The token may be one of these.
    """
    for token_id, place in zip(token_ids, places, strict=True):
        by_rank = sorted(place.values(), key=lambda each: each.rank)
        top = [alternative(each.decoded_token or "", each.logprob) for each in by_rank[:top_logprobs]]
        made = place[token_id]
        yield {**alternative(made.decoded_token or "", made.logprob), "top_logprobs": top}
