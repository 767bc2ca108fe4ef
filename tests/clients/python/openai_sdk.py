"""The official SDK, old and new."""

from cells import KEY, MODEL, QUESTION, URL, check_answer, check_pieces, run

# configure
from openai import OpenAI

client = OpenAI(base_url=URL, api_key=KEY)
# end
from pydantic import BaseModel

MESSAGES = [{"role": "user", "content": QUESTION}]


class Wheel(BaseModel):
    name: str
    paddles: int
    kind: str | None


def chat() -> None:
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES)
    check_answer(answer.choices[0].message.content)
    assert answer.choices[0].finish_reason == "stop"


def stream() -> None:
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True, stream_options=options))
    check_pieces([chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices])
    assert chunks[-1].usage.completion_tokens > 5


def structured() -> None:
    answer = client.chat.completions.parse(model=MODEL, messages=MESSAGES, response_format=Wheel)
    assert isinstance(answer.choices[0].message.parsed, Wheel)


def responses() -> None:
    response = client.responses.create(model=MODEL, input=QUESTION)
    check_answer(response.output_text)
    assert response.status == "completed"


def responses_stream() -> None:
    with client.responses.stream(model=MODEL, input=QUESTION) as events:
        check_pieces([event.delta for event in events if event.type == "response.output_text.delta"])
        check_answer(events.get_final_response().output_text)


def responses_structured() -> None:
    response = client.responses.parse(model=MODEL, input=QUESTION, text_format=Wheel)
    assert isinstance(response.output_parsed, Wheel)


run(
    chat=chat,
    stream=stream,
    structured=structured,
    responses=responses,
    responses_stream=responses_stream,
    responses_structured=responses_structured,
)
