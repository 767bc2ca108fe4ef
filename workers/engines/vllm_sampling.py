"""What a request asks of decoding, in vLLM's words. Pure: does not import vllm."""

from collections.abc import Mapping
from typing import Any

from headrace.errors import PromptRejected
from headrace.jobs import Sampling


def decoding(sampling: Sampling) -> dict[str, Any]:
    """The arguments of SamplingParams that were asked for; what was not is left to the model's defaults."""
    given = {"temperature": sampling.temperature, "top_p": sampling.top_p, "seed": sampling.seed}
    return {**{name: value for name, value in given.items() if value is not None}, "stop": list(sampling.stop)}


def constraint(response_format: Mapping[str, Any] | None) -> dict[str, Any]:
    """The arguments of StructuredOutputsParams, from the shape that chat completions use; none for plain text.

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
