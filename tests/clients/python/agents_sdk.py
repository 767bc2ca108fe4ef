"""OpenAI's Agents SDK, on both APIs."""

import asyncio
from typing import Any

from cells import KEY, MODEL, QUESTION, TO_CALL, URL, check_answer, check_streamed, run

# configure
from agents import Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI

set_tracing_disabled(True)  # Traces go to OpenAI.
client = AsyncOpenAI(base_url=URL, api_key=KEY)
by_chat = OpenAIChatCompletionsModel(model=MODEL, openai_client=client)
by_responses = OpenAIResponsesModel(model=MODEL, openai_client=client)
# Agent(name="Miller", model=by_chat)
# end
from agents import ModelSettings
from pydantic import BaseModel, Field


class Wheel(BaseModel):
    name: str = Field(max_length=20)
    paddles: int = Field(ge=1, le=99)


def ask(model: Any, **settings: Any) -> Any:
    # The SDK's client belongs to one event loop.
    return LOOP.run_until_complete(Runner.run(Agent(name="Miller", model=model, **settings), QUESTION)).final_output


async def pieces_of(model: Any) -> list[str]:
    events = Runner.run_streamed(Agent(name="Miller", model=model), QUESTION).stream_events()
    raw = [event.data async for event in events if event.type == "raw_response_event"]
    return [event.delta for event in raw if event.type == "response.output_text.delta"]


def chat() -> None:
    check_answer(ask(by_chat))


def stream() -> None:
    check_streamed(lambda: LOOP.run_until_complete(pieces_of(by_chat)))


def structured() -> None:
    assert isinstance(ask(by_chat, output_type=Wheel), Wheel)


def responses() -> None:
    check_answer(ask(by_responses))


def responses_stream() -> None:
    check_streamed(lambda: LOOP.run_until_complete(pieces_of(by_responses)))


def responses_structured() -> None:
    assert isinstance(ask(by_responses, output_type=Wheel), Wheel)


@function_tool
def turn(paddles: int) -> str:
    """Turns a wheel."""
    TURNED.append(paddles)
    return f"{paddles} paddles turn."


def use_tool(model: Any) -> None:
    TURNED.clear()
    check_answer(ask(model, **TOOLED))
    assert len(TURNED) == 1


async def use_tool_streamed(model: Any) -> None:
    TURNED.clear()
    result = Runner.run_streamed(Agent(name="Miller", model=model, **TOOLED), QUESTION)
    names = [event.name async for event in result.stream_events() if event.type == "run_item_stream_event"]
    assert {"tool_called", "tool_output", "message_output_created"} <= set(names), names
    check_answer(result.final_output)
    assert len(TURNED) == 1


def tools() -> None:
    use_tool(by_chat)


def tools_stream() -> None:
    LOOP.run_until_complete(use_tool_streamed(by_chat))


def responses_tools() -> None:
    use_tool(by_responses)
    LOOP.run_until_complete(use_tool_streamed(by_responses))


TURNED: list[int] = []
#: The SDK sends `tool_choice` with the first request alone.
TOOLED = {"tools": [turn], "model_settings": ModelSettings(**TO_CALL)}


def example_tools() -> None:
    # example: tools
    @function_tool
    def weather(city: str) -> str:
        """Today's weather."""
        return f"Sunny in {city}."

    agent = Agent(name="Miller", model=by_chat, tools=[weather])
    result = Runner.run_sync(agent, "What is the weather in Paris?")
    print(result.final_output)
    # end
    check_answer(result.final_output)
    assert [item.type for item in result.new_items] == [
        "tool_call_item",
        "tool_call_output_item",
        "message_output_item",
    ]


def example_structured() -> None:
    # example: structured
    from pydantic import BaseModel

    class City(BaseModel):
        name: str
        people: int

    agent = Agent(name="Miller", model=by_chat, output_type=City)
    city = Runner.run_sync(agent, "Describe Paris.").final_output
    print(city.name, city.people)
    # end
    assert isinstance(city, City)


LOOP = asyncio.new_event_loop()
asyncio.set_event_loop(LOOP)
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
    example_tools=example_tools,
    example_structured=example_structured,
)
