"""LiteLLM's SDK."""

import json

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


def batches() -> None:
    # Files and batches belong to no model.
    here = {"custom_llm_provider": "openai", "api_base": URL, "api_key": KEY}
    file = litellm.create_file(file=("lines.jsonl", batch_lines()), purpose="batch", **here)
    batch = litellm.create_batch(
        completion_window="24h", endpoint="/v1/chat/completions", input_file_id=file.id, **here
    )
    assert ended(lambda: litellm.retrieve_batch(batch.id, **here).status) == "completed"
    output = litellm.retrieve_batch(batch.id, **here).output_file_id
    check_batch(litellm.file_content(output, **here).text)


def example_tools() -> None:
    # example: tools
    import json

    def weather(city: str) -> str:
        return f"Sunny in {city}."

    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    while True:
        message = litellm.completion(messages=messages, tools=tools, **headrace).choices[0].message
        if not message.tool_calls:
            break
        messages.append(message)
        for call in message.tool_calls:
            output = weather(**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": output})
    print(message.content)
    # end
    check_answer(message.content)
    assert len(messages) == 3


def example_structured() -> None:
    # example: structured
    from pydantic import BaseModel

    class City(BaseModel):
        name: str
        people: int

    question = [{"role": "user", "content": "Describe Paris."}]
    answer = litellm.completion(messages=question, response_format=City, **headrace)
    city = City.model_validate_json(answer.choices[0].message.content)
    print(city.name, city.people)
    # end


run(
    chat=chat,
    stream=stream,
    structured=structured,
    responses=responses,
    responses_stream=responses_stream,
    tools=tools,
    tools_stream=tools_stream,
    batches=batches,
    example_tools=example_tools,
    example_structured=example_structured,
)
