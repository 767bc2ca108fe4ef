"""The official SDK, old and new."""

import json
from typing import Literal

from cells import (
    KEY,
    MODEL,
    QUESTION,
    TO_ANSWER,
    TO_CALL,
    URL,
    batch_lines,
    check_answer,
    check_batch,
    check_streamed,
    ended,
    run,
)

# configure
from openai import OpenAI

client = OpenAI(base_url=URL, api_key=KEY)
# end
from pydantic import BaseModel, Field

MESSAGES = [{"role": "user", "content": QUESTION}]


class Wheel(BaseModel):
    name: str = Field(max_length=20)
    paddles: int = Field(ge=1, le=99)
    kind: Literal["breast", "overshot"] | None


def chat() -> None:
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES)
    check_answer(answer.choices[0].message.content)
    assert answer.choices[0].finish_reason == "stop"


def stream() -> None:
    options = {"include_usage": True}

    def listen() -> list[str | None]:
        asked = {"model": MODEL, "messages": MESSAGES, "stream": True, "stream_options": options}
        *chunks, last = client.chat.completions.create(**asked)
        assert last.usage.completion_tokens > 5
        return [chunk.choices[0].delta.content for chunk in chunks]

    check_streamed(listen)


def structured() -> None:
    answer = client.chat.completions.parse(model=MODEL, messages=MESSAGES, response_format=Wheel)
    assert isinstance(answer.choices[0].message.parsed, Wheel)


def responses() -> None:
    response = client.responses.create(model=MODEL, input=QUESTION)
    check_answer(response.output_text)
    assert response.status == "completed"


def responses_stream() -> None:
    def listen() -> list[str]:
        with client.responses.stream(model=MODEL, input=QUESTION) as events:
            pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
            assert events.get_final_response().output_text == "".join(pieces)
        return pieces

    check_streamed(listen)


def responses_structured() -> None:
    response = client.responses.parse(model=MODEL, input=QUESTION, text_format=Wheel)
    assert isinstance(response.output_parsed, Wheel)


TURN = {
    "name": "turn",
    "description": "Turns a wheel.",
    "parameters": {
        "type": "object",
        "properties": {"paddles": {"type": "integer"}},
        "required": ["paddles"],
        "additionalProperties": False,
    },
}
TOOLS = [{"type": "function", "function": {**TURN, "strict": True}}]


def tools() -> None:
    offered = {"model": MODEL, "tools": TOOLS}
    message = client.chat.completions.create(messages=MESSAGES, **offered, **TO_CALL).choices[0].message
    (call,) = message.tool_calls
    assert (call.function.name, list(json.loads(call.function.arguments))) == ("turn", ["paddles"])
    output = {"role": "tool", "tool_call_id": call.id, "content": "It turns."}
    turns = [*MESSAGES, message.model_dump(exclude_none=True), output]
    check_answer(client.chat.completions.create(messages=turns, **offered, **TO_ANSWER).choices[0].message.content)


def tools_stream() -> None:
    with client.chat.completions.stream(model=MODEL, messages=MESSAGES, tools=TOOLS, tool_choice="required") as events:
        kinds = {event.type for event in events}
        completion = events.get_final_completion()
    assert {"tool_calls.function.arguments.delta", "tool_calls.function.arguments.done"} <= kinds
    assert completion.choices[0].finish_reason == "tool_calls"


def responses_tools() -> None:
    offered = {"model": MODEL, "tools": [{"type": "function", "strict": True, **TURN}]}
    response = client.responses.create(input=QUESTION, **offered, **TO_CALL)
    (call,) = [item for item in response.output if item.type == "function_call"]
    assert (call.name, list(json.loads(call.arguments))) == ("turn", ["paddles"])
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "It turns."}
    after = {"previous_response_id": response.id, **offered, **TO_ANSWER}
    check_answer(client.responses.create(input=[output], **after).output_text)


def batches() -> None:
    file = client.files.create(file=("lines.jsonl", batch_lines()), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"run": "7"}
    )
    assert ended(lambda: client.batches.retrieve(batch.id).status) == "completed"
    batch = client.batches.retrieve(batch.id)
    assert (batch.request_counts.total, batch.request_counts.completed, batch.error_file_id) == (3, 3, None)
    check_batch(client.files.content(batch.output_file_id).text)
    assert batch.id in [each.id for each in client.batches.list(limit=5)]
    assert client.files.delete(file.id).deleted


def example_tools() -> None:
    # example: tools
    import json

    def weather(city: str) -> str:
        return f"Sunny in {city}."

    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    while True:
        message = client.chat.completions.create(model=MODEL, messages=messages, tools=tools).choices[0].message
        if not message.tool_calls:
            break
        messages.append(message)
        for call in message.tool_calls:
            output = weather(**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": output})
    print(message.content)
    # end
    check_answer(message.content)
    assert [each["role"] for each in messages if isinstance(each, dict)] == ["user", "tool"]


def example_structured() -> None:
    # example: structured
    from pydantic import BaseModel

    class City(BaseModel):
        name: str
        people: int

    question = [{"role": "user", "content": "Describe Paris."}]
    city = client.chat.completions.parse(model=MODEL, messages=question, response_format=City).choices[0].message.parsed
    print(city.name, city.people)
    # end
    assert isinstance(city, City)


run(
    chat=chat,
    stream=stream,
    structured=structured,
    responses=responses,
    responses_stream=responses_stream,
    responses_structured=responses_structured,
    tools=tools,
    tools_stream=tools_stream,
    responses_tools=responses_tools,
    batches=batches,
    example_tools=example_tools,
    example_structured=example_structured,
)
