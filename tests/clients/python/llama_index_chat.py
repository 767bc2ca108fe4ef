"""LlamaIndex's `OpenAILike`."""

from cells import KEY, MODEL, QUESTION, URL, check_answer, check_pieces, run

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
from pydantic import BaseModel

MESSAGES = [ChatMessage(role="user", content=QUESTION)]


class Wheel(BaseModel):
    """A water wheel."""

    name: str
    paddles: int


def chat() -> None:
    check_answer(llm.chat(MESSAGES).message.content)


def stream() -> None:
    check_pieces([chunk.delta for chunk in llm.stream_chat(MESSAGES)])


def structured() -> None:
    assert isinstance(llm.as_structured_llm(Wheel).chat(MESSAGES).raw, Wheel)


run(chat=chat, stream=stream, structured=structured)
