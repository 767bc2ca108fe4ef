"""instructor, in the mode that keeps to a JSON schema."""

from cells import KEY, MODEL, QUESTION, URL, run

# configure
import instructor
from openai import OpenAI

client = instructor.from_openai(OpenAI(base_url=URL, api_key=KEY), mode=instructor.Mode.JSON_SCHEMA)
# end
from pydantic import BaseModel

MESSAGES = [{"role": "user", "content": QUESTION}]


class Wheel(BaseModel):
    """A water wheel."""

    name: str
    paddles: int


def structured() -> None:
    wheel = client.chat.completions.create(model=MODEL, messages=MESSAGES, response_model=Wheel)
    assert isinstance(wheel, Wheel)


def structured_stream() -> None:
    wheels = list(client.chat.completions.create_partial(model=MODEL, messages=MESSAGES, response_model=Wheel))
    assert len(wheels) > 1
    Wheel.model_validate(wheels[-1].model_dump())


run(structured=structured, structured_stream=structured_stream)
