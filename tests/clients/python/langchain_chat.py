"""LangChain's `ChatOpenAI`."""

from cells import KEY, MODEL, QUESTION, TO_ANSWER, TO_CALL, URL, check_answer, check_streamed, run

# configure
from langchain_openai import ChatOpenAI

llm = ChatOpenAI(model=MODEL, base_url=URL, api_key=KEY)
# end
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from pydantic import BaseModel, Field


class Wheel(BaseModel):
    """A water wheel."""

    name: str = Field(max_length=20)
    paddles: int = Field(ge=1, le=99)


responding = ChatOpenAI(model=MODEL, base_url=URL, api_key=KEY, use_responses_api=True)


def chat() -> None:
    message = llm.invoke(QUESTION)
    check_answer(message.text)
    assert message.usage_metadata["output_tokens"] > 5


def stream() -> None:
    check_streamed(lambda: [chunk.text for chunk in llm.stream(QUESTION)])


def structured() -> None:
    assert isinstance(llm.with_structured_output(Wheel).invoke(QUESTION), Wheel)


def responses() -> None:
    check_answer(responding.invoke(QUESTION).text)


def responses_stream() -> None:
    check_streamed(lambda: [chunk.text for chunk in responding.stream(QUESTION)])


def responses_structured() -> None:
    assert isinstance(responding.with_structured_output(Wheel).invoke(QUESTION), Wheel)


@tool
def turn(paddles: int) -> str:
    """Turns a wheel."""
    return f"{paddles} paddles turn."


def use_tool(model: ChatOpenAI) -> None:
    """The model calls the tool, and answers with its output."""
    message = model.bind_tools([turn], strict=True, **TO_CALL).invoke(QUESTION)
    (call,) = message.tool_calls
    assert isinstance(call["args"]["paddles"], int)
    check_answer(
        model.bind_tools([turn], **TO_ANSWER).invoke([HumanMessage(QUESTION), message, turn.invoke(call)]).text
    )


def tools() -> None:
    use_tool(llm)


def tools_stream() -> None:
    first, *others = llm.bind_tools([turn], tool_choice="any").stream(QUESTION)
    whole = sum(others, first)
    assert [call["name"] for call in whole.tool_calls] == ["turn"]


def responses_tools() -> None:
    use_tool(responding)


def example_tools() -> None:
    # example: tools
    from langchain_core.messages import HumanMessage
    from langchain_core.tools import tool

    @tool
    def weather(city: str) -> str:
        """Today's weather."""
        return f"Sunny in {city}."

    with_tools = llm.bind_tools([weather])
    messages = [HumanMessage("What is the weather in Paris?")]
    while calls := (answer := with_tools.invoke(messages)).tool_calls:
        messages += [answer, *map(weather.invoke, calls)]
    print(answer.text)
    # end
    check_answer(answer.text)
    assert len(messages) == 3


def example_structured() -> None:
    # example: structured
    from pydantic import BaseModel

    class City(BaseModel):
        name: str
        people: int

    city = llm.with_structured_output(City).invoke("Describe Paris.")
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
    example_tools=example_tools,
    example_structured=example_structured,
)
