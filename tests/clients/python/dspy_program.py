"""DSPy."""

from cells import KEY, MODEL, QUESTION, TO_CALL, URL, check_answer, run

# configure
import dspy
from dspy.lm15 import AccessPolicy, ModelSupport, OpenAIChatCompat, ProviderDefinition, register_provider

definition = ProviderDefinition.chat(AccessPolicy(provider="headrace", base_url=URL), compat=OpenAIChatCompat())
register_provider(definition, supports=ModelSupport(function_calling=True, response_schema=True))
lm = dspy.LM(f"headrace/{MODEL}", api_base=URL, api_key=KEY)
dspy.configure(lm=lm, adapter=dspy.JSONAdapter())
# end


def chat() -> None:
    check_answer(lm(QUESTION)[0])


def structured() -> None:
    made = dspy.Predict("question -> name: str, paddles: int")(question=QUESTION)
    assert isinstance(made.name, str)
    assert isinstance(made.paddles, int)


def turn(paddles: int) -> str:
    """Turns a wheel."""
    TURNED.append(paddles)
    return f"{paddles} paddles turn."


class Turning(dspy.Signature):
    """Turn the wheel."""

    question: str = dspy.InputField()
    tools: list[dspy.Tool] = dspy.InputField()
    calls: dspy.ToolCalls = dspy.OutputField()


def tools() -> None:
    made = dspy.Predict(Turning)(question=QUESTION, tools=[dspy.Tool(turn)], config=TO_CALL)
    (call,) = made.calls.tool_calls
    call.execute([dspy.Tool(turn)])
    assert [type(paddles) for paddles in TURNED] == [int]


def example_tools() -> None:
    # example: tools
    def weather(city: str) -> str:
        """Today's weather."""
        return f"Sunny in {city}."

    class Ask(dspy.Signature):
        """Find out what is asked."""

        question: str = dspy.InputField()
        tools: list[dspy.Tool] = dspy.InputField()
        calls: dspy.ToolCalls = dspy.OutputField()

    tools = [dspy.Tool(weather)]
    made = dspy.Predict(Ask)(question="What is the weather in Paris?", tools=tools)
    outputs = [call.execute(tools) for call in made.calls.tool_calls]
    print(outputs)
    # end
    assert str(outputs).find("Sunny in") > 0


def example_structured() -> None:
    # example: structured
    city = dspy.Predict("question -> name: str, people: int")(question="Describe Paris.")
    print(city.name, city.people)
    # end
    assert isinstance(city.people, int)


TURNED: list[int] = []

run(
    chat=chat,
    structured=structured,
    tools=tools,
    example_tools=example_tools,
    example_structured=example_structured,
)
