"""DSPy."""

from cells import KEY, MODEL, QUESTION, URL, check_answer, run

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


run(chat=chat, structured=structured)
