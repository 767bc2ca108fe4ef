"""LlamaIndex's `OpenAILike`."""

from cells import IS_SIMULATED, KEY, MODEL, QUESTION, URL, check_answer, check_streamed, run

# configure
from llama_index.llms.openai_like import OpenAILike

llm = OpenAILike(
    model=MODEL,
    api_base=URL,
    api_key=KEY,
    context_window=2048,
    is_chat_model=True,
    is_function_calling_model=True,
    should_use_structured_outputs=True,
)
# end
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel, Field

MESSAGES = [ChatMessage(role="user", content=QUESTION)]


class Wheel(BaseModel):
    """A water wheel."""

    name: str = Field(max_length=20)
    paddles: int = Field(ge=1, le=99)


def chat() -> None:
    check_answer(llm.chat(MESSAGES).message.content)


def stream() -> None:
    check_streamed(lambda: [chunk.delta for chunk in llm.stream_chat(MESSAGES)])


def structured() -> None:
    assert isinstance(llm.as_structured_llm(Wheel).chat(MESSAGES).raw, Wheel)


def turn(paddles: int) -> str:
    """Turns a wheel."""
    return f"{paddles} paddles turn."


def tools() -> None:
    answer = llm.chat_with_tools([FunctionTool.from_defaults(turn)], user_msg=QUESTION, tool_required=not IS_SIMULATED)
    (call,) = llm.get_tool_calls_from_response(answer)
    assert (call.tool_name, list(call.tool_kwargs)) == ("turn", ["paddles"])
    output = ChatMessage(
        role="tool", content=turn(**call.tool_kwargs), additional_kwargs={"tool_call_id": call.tool_id}
    )
    check_answer(llm.chat([*MESSAGES, answer.message, output]).message.content)


def example_tools() -> None:
    # example: tools
    from llama_index.core.llms import ChatMessage
    from llama_index.core.tools import FunctionTool

    def weather(city: str) -> str:
        """Today's weather."""
        return f"Sunny in {city}."

    tools = [FunctionTool.from_defaults(weather)]
    messages = [ChatMessage("What is the weather in Paris?")]
    answer = llm.chat_with_tools(tools, chat_history=messages)
    while calls := llm.get_tool_calls_from_response(answer, error_on_no_tool_call=False):
        messages.append(answer.message)
        for call in calls:
            of_call = {"tool_call_id": call.tool_id}
            messages.append(ChatMessage(weather(**call.tool_kwargs), role="tool", additional_kwargs=of_call))
        answer = llm.chat_with_tools(tools, chat_history=messages)
    print(answer.message.content)
    # end
    check_answer(answer.message.content)
    assert len(messages) == 3


def example_structured() -> None:
    # example: structured
    from llama_index.core.llms import ChatMessage
    from pydantic import BaseModel

    class City(BaseModel):
        name: str
        people: int

    city = llm.as_structured_llm(City).chat([ChatMessage("Describe Paris.")]).raw
    print(city.name, city.people)
    # end
    assert isinstance(city, City)


run(
    chat=chat,
    stream=stream,
    structured=structured,
    tools=tools,
    example_tools=example_tools,
    example_structured=example_structured,
)
