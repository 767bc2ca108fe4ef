"""LangChain's `ChatOpenAI`."""

from cells import KEY, MODEL, QUESTION, URL, check_answer, check_pieces, run

# configure
from langchain_openai import ChatOpenAI

llm = ChatOpenAI(model=MODEL, base_url=URL, api_key=KEY)
# end
from pydantic import BaseModel


class Wheel(BaseModel):
    """A water wheel."""

    name: str
    paddles: int


responding = ChatOpenAI(model=MODEL, base_url=URL, api_key=KEY, use_responses_api=True)


def chat() -> None:
    message = llm.invoke(QUESTION)
    check_answer(message.text)
    assert message.usage_metadata["output_tokens"] > 5


def stream() -> None:
    check_pieces([chunk.text for chunk in llm.stream(QUESTION)])


def structured() -> None:
    assert isinstance(llm.with_structured_output(Wheel).invoke(QUESTION), Wheel)


def responses() -> None:
    check_answer(responding.invoke(QUESTION).text)


def responses_stream() -> None:
    check_pieces([chunk.text for chunk in responding.stream(QUESTION)])


def responses_structured() -> None:
    assert isinstance(responding.with_structured_output(Wheel).invoke(QUESTION), Wheel)


run(
    chat=chat,
    stream=stream,
    structured=structured,
    responses=responses,
    responses_stream=responses_stream,
    responses_structured=responses_structured,
)
