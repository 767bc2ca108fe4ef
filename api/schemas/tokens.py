"""`/tokenize` and `/detokenize`: a text's tokens and back, in the format of vLLM's own server."""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from api.schemas.chat import ChatTurn
from api.schemas.fields import Answer, Request, TemplateKwargs, refusal
from api.schemas.tools import TOOLS_LIMIT, FunctionTool, check_outputs
from headrace.domain.prompts import Message
from headrace.domain.prompts.tools import Tools

#: Ids of tokenizers are unsigned and have 32 bits.
MOST_ID = 2**32 - 1


class TokenizeRequest(Request):
    """A text, or a conversation, whose tokens are asked for. Give one of `prompt` and `messages`."""

    model: str | None = Field(None, description="A model of GET /v1/models; the first one by default.")
    prompt: str | None = Field(None, description="A text, without the model's chat template.")
    messages: list[ChatTurn] | None = Field(
        None, min_length=1, fail_fast=True, description="A conversation, by the model's chat template."
    )
    add_special_tokens: bool = Field(True, description="Adds the tokens that the model expects around a prompt.")
    add_generation_prompt: Literal[True] = Field(True, description="Messages are written as a job's prompt is.")
    return_token_strs: bool | None = Field(None, description="Each token as the vocabulary spells it, too.")
    chat_template_kwargs: TemplateKwargs | None = Field(
        None, description="Variables of the template that messages are written with."
    )
    tools: list[FunctionTool] | None = Field(
        None, max_length=TOOLS_LIMIT, description="The tools that go with messages."
    )

    @model_validator(mode="after")
    def _one_text(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise refusal("give one of 'prompt' and 'messages'", param="prompt")
        if self.messages is None and self.chat_template_kwargs:
            raise refusal("it needs 'messages': a prompt has no template", param="chat_template_kwargs")
        if self.messages is None and self.tools:
            raise refusal("it needs 'messages': a prompt has no template", param="tools")
        check_outputs(self.turns, "messages.")
        return self

    @property
    def variables(self) -> dict[str, Any]:
        """The variables of the chat template, the tools among them."""
        tools = {"tools": Tools(tuple(each.function.to_fields() for each in self.tools)).specs} if self.tools else {}
        return {**(self.chat_template_kwargs or {}), **tools}

    @property
    def turns(self) -> tuple[Message, ...]:
        """The conversation; empty for a text."""
        return tuple(turn.message for turn in self.messages or ())

    @property
    def chars(self) -> int:
        """How long the text is, about."""
        return len(self.prompt or "") + sum(len(turn.content) for turn in self.turns) + len(json.dumps(self.variables))


class TokenizeBody(Answer):
    """A text's tokens."""

    count: int
    max_model_len: int | None = Field(description="The model's context, prompt and answer; null: unknown.")
    tokens: list[int]
    token_strs: list[str] | None


class DetokenizeRequest(Request):
    """Tokens whose text is asked for."""

    model: str | None = Field(None, description="A model of GET /v1/models; the first one by default.")
    tokens: list[Annotated[int, Field(ge=0, le=MOST_ID)]] = Field(fail_fast=True, description="The model's own ids.")


class DetokenizeBody(Answer):
    """The text of some tokens."""

    prompt: str
