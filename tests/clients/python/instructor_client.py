"""instructor: its default mode calls a tool, and another one keeps to a JSON schema."""

from cells import KEY, MODEL, QUESTION, URL, run

# configure
import instructor
from openai import OpenAI

by_tools = instructor.from_openai(OpenAI(base_url=URL, api_key=KEY))
by_schema = instructor.from_openai(OpenAI(base_url=URL, api_key=KEY), mode=instructor.Mode.JSON_SCHEMA)
# end
from pydantic import BaseModel

MESSAGES = [{"role": "user", "content": QUESTION}]


class Wheel(BaseModel):
    """A water wheel."""

    name: str
    paddles: int


def structured() -> None:
    wheel = by_schema.chat.completions.create(model=MODEL, messages=MESSAGES, response_model=Wheel)
    assert isinstance(wheel, Wheel)


def structured_stream() -> None:
    wheels = list(by_schema.chat.completions.create_partial(model=MODEL, messages=MESSAGES, response_model=Wheel))
    assert len(wheels) > 1
    Wheel.model_validate(wheels[-1].model_dump())


def tools() -> None:
    wheel = by_tools.chat.completions.create(model=MODEL, messages=MESSAGES, response_model=Wheel)
    assert isinstance(wheel, Wheel)


def tools_stream() -> None:
    wheels = list(by_tools.chat.completions.create_partial(model=MODEL, messages=MESSAGES, response_model=Wheel))
    assert len(wheels) > 1
    Wheel.model_validate(wheels[-1].model_dump())


run(structured=structured, structured_stream=structured_stream, tools=tools, tools_stream=tools_stream)
