"""pydantic-ai, on both APIs."""

import asyncio
from typing import Any

from cells import IS_SIMULATED, KEY, MODEL, QUESTION, URL, check_answer, run

# configure
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

provider = OpenAIProvider(base_url=URL, api_key=KEY)
by_chat = OpenAIChatModel(MODEL, provider=provider)
by_responses = OpenAIResponsesModel(MODEL, provider=provider)
# Agent(by_chat)
# end
from pydantic import BaseModel, Field


class Wheel(BaseModel):
    name: str = Field(max_length=20)
    paddles: int = Field(ge=1, le=99)


def ask(model: Any, **settings: Any) -> Any:
    return LOOP.run_until_complete(Agent(model, **settings).run(QUESTION)).output


async def texts_of(model: Any) -> list[str]:
    async with Agent(model).run_stream(QUESTION) as result:
        return [text async for text in result.stream_text(delta=True, debounce_by=None)]


def chat() -> None:
    check_answer(ask(by_chat))


def stream() -> None:
    check_answer("".join(LOOP.run_until_complete(texts_of(by_chat))))


def structured() -> None:
    assert isinstance(ask(by_chat, output_type=NativeOutput(Wheel)), Wheel)


def responses() -> None:
    check_answer(ask(by_responses))


def responses_stream() -> None:
    check_answer("".join(LOOP.run_until_complete(texts_of(by_responses))))


def responses_structured() -> None:
    assert isinstance(ask(by_responses, output_type=NativeOutput(Wheel)), Wheel)


def turn(paddles: int) -> str:
    """Turns a wheel."""
    TURNED.append(paddles)
    return f"{paddles} paddles turn."


def use_tool(model: Any) -> None:
    """A function tool, then the output tool of the default `output_type`."""
    TURNED.clear()
    if not IS_SIMULATED:
        # Told to call one of two tools, the demo's model calls the same one for ever. So it has the output tool alone.
        assert isinstance(ask(model, output_type=Wheel), Wheel)
        return
    assert isinstance(ask(model, output_type=Wheel, tools=[turn]), Wheel)
    assert len(TURNED) == 1


async def outputs_of(model: Any) -> list[Any]:
    async with Agent(model, output_type=Wheel).run_stream(QUESTION) as result:
        return [output async for output in result.stream_output(debounce_by=None)]


def tools() -> None:
    use_tool(by_chat)


def tools_stream() -> None:
    assert isinstance(LOOP.run_until_complete(outputs_of(by_chat))[-1], Wheel)


def responses_tools() -> None:
    use_tool(by_responses)


def example_tools() -> None:
    # example: tools
    agent = Agent(by_chat)

    @agent.tool_plain
    def weather(city: str) -> str:
        """Today's weather."""
        return f"Sunny in {city}."

    result = agent.run_sync("What is the weather in Paris?")
    print(result.output)
    # end
    check_answer(result.output)
    assert len(result.all_messages()) == 4


def example_structured() -> None:
    # example: structured
    from pydantic import BaseModel

    class City(BaseModel):
        name: str
        people: int

    city = Agent(by_chat, output_type=NativeOutput(City)).run_sync("Describe Paris.").output
    print(city.name, city.people)
    # end
    assert isinstance(city, City)


TURNED: list[int] = []


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
