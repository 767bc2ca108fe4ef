"""instructor: its default mode calls a tool, and another one keeps to a JSON schema."""

from cells import KEY, MODEL, QUESTION, URL, check_several, run

# configure
import instructor
from openai import OpenAI

by_tools = instructor.from_openai(OpenAI(base_url=URL, api_key=KEY))
by_schema = instructor.from_openai(OpenAI(base_url=URL, api_key=KEY), mode=instructor.Mode.JSON_SCHEMA)
# end
from pydantic import BaseModel, Field

MESSAGES = [{"role": "user", "content": QUESTION}]


class Wheel(BaseModel):
    """A water wheel."""

    name: str = Field(max_length=20)
    paddles: int = Field(ge=1, le=99)


def partial_wheels(client: instructor.Instructor) -> list[Wheel]:
    """A wheel that grows until it is whole."""
    wheels = list(client.chat.completions.create_partial(model=MODEL, messages=MESSAGES, response_model=Wheel))
    Wheel.model_validate(wheels[-1].model_dump())
    return wheels


def structured() -> None:
    wheel = by_schema.chat.completions.create(model=MODEL, messages=MESSAGES, response_model=Wheel)
    assert isinstance(wheel, Wheel)


def structured_stream() -> None:
    check_several(lambda: partial_wheels(by_schema))


def tools() -> None:
    wheel = by_tools.chat.completions.create(model=MODEL, messages=MESSAGES, response_model=Wheel)
    assert isinstance(wheel, Wheel)


def tools_stream() -> None:
    check_several(lambda: partial_wheels(by_tools))


run(structured=structured, structured_stream=structured_stream, tools=tools, tools_stream=tools_stream)
