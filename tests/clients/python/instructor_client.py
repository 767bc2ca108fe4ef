"""instructor: its default mode calls a tool, and another one keeps to a JSON schema."""

import os

from cells import KEY, MODEL, QUESTION, URL, check_several, ended, run

# configure
import instructor
from openai import OpenAI

by_tools = instructor.from_openai(OpenAI(base_url=URL, api_key=KEY))
by_schema = instructor.from_openai(OpenAI(base_url=URL, api_key=KEY), mode=instructor.Mode.JSON_SCHEMA)
# end
from instructor.batch import BatchProcessor
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


def batches() -> None:
    # It makes an OpenAI client of its own, from the environment.
    os.environ |= {"OPENAI_BASE_URL": URL, "OPENAI_API_KEY": KEY}  # noqa: TID251 - no setting of Headrace.
    processor = BatchProcessor(f"openai/{MODEL}", Wheel)
    lines = processor.create_batch_from_messages([MESSAGES, MESSAGES], max_tokens=128)
    batch_id = processor.submit_batch(lines)
    assert ended(lambda: processor.get_batch_status(batch_id)["status"]) == "completed"
    results = processor.retrieve_results(batch_id)
    assert sorted(each.custom_id for each in results) == ["request-0", "request-1"]
    assert all(isinstance(each.result, Wheel) for each in results), results


def example_structured() -> None:
    # example: structured
    from pydantic import BaseModel

    class City(BaseModel):
        name: str
        people: int

    question = [{"role": "user", "content": "Describe Paris."}]
    city = by_schema.chat.completions.create(model=MODEL, messages=question, response_model=City)
    print(city.name, city.people)
    # end
    assert isinstance(city, City)


run(
    structured=structured,
    structured_stream=structured_stream,
    tools=tools,
    tools_stream=tools_stream,
    batches=batches,
    example_structured=example_structured,
)
