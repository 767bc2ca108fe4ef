"""LiteLLM's SDK."""

import json

from cells import KEY, MODEL, QUESTION, TO_ANSWER, TO_CALL, URL, check_answer, check_streamed, run

# configure
import litellm

headrace = {"model": f"openai/{MODEL}", "api_base": URL, "api_key": KEY}
# litellm.completion(messages=[...], **headrace)
# end
from pydantic import BaseModel, Field

MESSAGES = [{"role": "user", "content": QUESTION}]


class Wheel(BaseModel):
    name: str = Field(max_length=20)
    paddles: int = Field(ge=1, le=99)


def chat() -> None:
    check_answer(litellm.completion(messages=MESSAGES, **headrace).choices[0].message.content)


def stream() -> None:
    def listen() -> list[str | None]:
        chunks = litellm.completion(messages=MESSAGES, stream=True, **headrace)
        return [chunk.choices[0].delta.content for chunk in chunks]

    check_streamed(listen)


def structured() -> None:
    answer = litellm.completion(messages=MESSAGES, response_format=Wheel, **headrace)
    Wheel.model_validate_json(answer.choices[0].message.content)


def responses() -> None:
    response = litellm.responses(input=QUESTION, **headrace)
    check_answer(response.output_text)


def responses_stream() -> None:
    def listen() -> list[str]:
        events = litellm.responses(input=QUESTION, stream=True, **headrace)
        return [event.delta for event in events if event.type == "response.output_text.delta"]

    check_streamed(listen)


TURN = {
    "name": "turn",
    "description": "Turns a wheel.",
    "parameters": {"type": "object", "properties": {"paddles": {"type": "integer"}}, "required": ["paddles"]},
}
TOOLS = [{"type": "function", "function": TURN}]


def tools() -> None:
    message = litellm.completion(messages=MESSAGES, tools=TOOLS, **TO_CALL, **headrace).choices[0].message
    (call,) = message.tool_calls
    assert list(json.loads(call.function.arguments)) == ["paddles"]
    turns = [*MESSAGES, message, {"role": "tool", "tool_call_id": call.id, "content": "It turns."}]
    check_answer(litellm.completion(messages=turns, tools=TOOLS, **TO_ANSWER, **headrace).choices[0].message.content)


def tools_stream() -> None:
    chunks = list(litellm.completion(messages=MESSAGES, tools=TOOLS, stream=True, **TO_CALL, **headrace))
    (call,) = litellm.stream_chunk_builder(chunks).choices[0].message.tool_calls
    assert list(json.loads(call.function.arguments)) == ["paddles"]


run(
    chat=chat,
    stream=stream,
    structured=structured,
    responses=responses,
    responses_stream=responses_stream,
    tools=tools,
    tools_stream=tools_stream,
)
