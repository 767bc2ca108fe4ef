"""The body of a call of the paid API, from a request. Pure: knows no SDK."""

from typing import Any

from headrace.domain.prompts import Message, Sampling
from headrace.domain.prompts.extra_sampling import for_paid
from headrace.domain.prompts.tools import Tools


def decoding(sampling: Sampling) -> dict[str, Any]:
    """How to decode, and the tools, by the API's names. What the request does not set is left out."""
    given = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "stop": list(sampling.stop) or None,
        "seed": sampling.seed,
        "response_format": sampling.response_format,
        "logprobs": None if sampling.top_logprobs is None else True,
        # Some compatible servers refuse a zero.
        "top_logprobs": sampling.top_logprobs or None,
        "reasoning_effort": sampling.reasoning_effort,
        "n": sampling.n if sampling.n > 1 else None,
        **(_tools(sampling.tools) if sampling.tools else {}),
        **for_paid(sampling.extra),
    }
    return {name: value for name, value in given.items() if value is not None}


def message_fields(message: Message) -> dict[str, Any]:
    """A turn as the API reads it: one of calls alone has no text."""
    return message.to_fields() | ({"content": None} if message.tool_calls and not message.content else {})


def _tools(tools: Tools) -> dict[str, Any]:
    """The tools as they were given. Some models refuse `parallel_tool_calls`, so it is sent only where it says no."""
    given: dict[str, Any] = {"tools": tools.specs, "tool_choice": tools.spelled_choice}
    return given | ({} if tools.parallel else {"parallel_tool_calls": False})
