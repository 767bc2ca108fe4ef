"""Converts a request's sampling to vLLM's arguments. Pure: does not import vllm."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from headrace.domain.logprobs import TokenLogprob, alternative
from headrace.domain.prompts import Sampling
from headrace.domain.prompts.extra_sampling import ExtraSampling
from headrace.errors import PromptRejected


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

    Args:
        places: for each place, vLLM's `Logprob` by token id: first the token's own, then those of the likeliest tokens,
            best first. The token may be one of these.
    """
    for token_id, place in zip(token_ids, places, strict=True):
        by_rank = sorted(place.values(), key=lambda each: each.rank)
        top = [alternative(each.decoded_token or "", each.logprob) for each in by_rank[:top_logprobs]]
        made = place[token_id]
        yield {**alternative(made.decoded_token or "", made.logprob), "top_logprobs": top}
