"""Labelled examples: one JSON object a line, and whether an answer is right."""

import json
from collections.abc import Iterable
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from headrace.errors import ConfigError
from headrace.policies.agreement import contains, same_json, same_text

#: How an answer is compared with the right one. `exact`: as text, whatever its case, spaces and outer punctuation.
Match = Literal["exact", "json", "contains"]


class Turn(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Literal["system", "developer", "user", "assistant"]
    content: str


class Label(BaseModel):
    """A prompt with its right answer.

    Attributes:
        answer: a text, or any JSON value, which is compared as JSON.
        match: by default `json` where `answer` is no text or `response_format` asks for JSON, else `exact`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str | None = Field(None, min_length=1)
    messages: tuple[Turn, ...] | None = Field(None, min_length=1)
    task: str | None = Field(None, min_length=1)
    answer: Any
    match: Match | None = None
    max_tokens: int | None = Field(None, gt=0)
    response_format: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one_prompt(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give one of 'prompt' and 'messages'")
        return self

    @property
    def chars(self) -> int:
        """Characters of the whole prompt, as rules count them."""
        return len(self.prompt or "") + sum(len(turn.content) for turn in self.messages or ())

    def request(self) -> dict[str, Any]:
        """The fields of `POST /v1/jobs` that it decides."""
        given = {"prompt", "messages", "max_tokens", "response_format"}
        body = self.model_dump(mode="json", include=given, exclude_none=True)
        return body | ({"metadata": {"task": self.task}} if self.task else {})

    def is_right(self, text: str) -> bool:
        """Whether an answer is the right one."""
        wants_json = (self.response_format or {}).get("type", "text") != "text"
        match self.match or ("json" if wants_json or not isinstance(self.answer, str) else "exact"):
            case "json":
                is_text = isinstance(self.answer, str)
                return same_json(text, self.answer if is_text else json.dumps(self.answer))
            case "contains":
                return contains(text, str(self.answer))
            case _:
                return same_text(text, str(self.answer))


def read_labels(lines: Iterable[str], name: str) -> list[Label]:
    """The examples of a file. Args: name: the file's, for errors. Raises: ConfigError that names the line."""
    labels = [_label(line, f"{name}:{number}") for number, line in enumerate(lines, start=1) if line.strip()]
    if not labels:
        raise ConfigError(f"{name} has no examples: give one JSON object a line.", param="FILE")
    return labels


def _label(line: str, where: str) -> Label:
    try:
        return Label.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        message = f"{where}: {f'{field}: ' if field else ''}{first['msg']}."
        raise ConfigError(message.replace("Value error, ", ""), param="FILE") from None
