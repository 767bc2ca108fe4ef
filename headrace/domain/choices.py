"""Choices: the answers of a job that asks for several (`n`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from headrace.domain.logprobs import TokenLogprob
from headrace.domain.prompts.tools import ToolCall

#: The most answers that a job may ask for. Source: OpenAI's API.
MOST_CHOICES = 128


@dataclass(frozen=True, slots=True)
class Choice:
    """An answer after the first. The first one is in the fields that a job with a single answer has.

    Attributes:
        logprobs: of the answer's tokens; None if not requested.
        reasoning: the model's reasoning before the answer; empty if it gave none.
        tool_calls: the answer's calls of tools. It may have no text then.
    """

    text: str
    finish_reason: str | None
    logprobs: Sequence[TokenLogprob] | None = None
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()

    def to_fields(self) -> dict[str, Any]:
        """The choice as JSON."""
        logprobs = None if self.logprobs is None else list(self.logprobs)
        return {
            "text": self.text,
            "finish_reason": self.finish_reason,
            "logprobs": logprobs,
            "reasoning": self.reasoning,
            "tool_calls": [call.to_fields() for call in self.tool_calls],
        }

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Self:
        """Read `to_fields`."""
        calls = tuple(map(ToolCall.of, fields["tool_calls"]))
        return cls(fields["text"], fields["finish_reason"], fields["logprobs"], fields["reasoning"], calls)
