"""Calls of tools that the simulator makes."""

import json
import math
from collections.abc import Sequence
from typing import Any

import jsonschema_rs
import pytest

from headrace.config import PoolSettings, SimulatorSettings
from headrace.domain.prompts import Message, Sampling
from headrace.domain.prompts.embeddings import floats, of_answer
from headrace.domain.prompts.tools import ToolCall, Tools, joined
from headrace.errors import PromptRejected
from headrace.policies.tokens import EstimatingTokenizer
from workers.engines.base import Delta, GenerationRequest
from workers.engines.simulator.answer import DIMENSIONS, functions_to_call, vectors
from workers.engines.simulator.engine import SimulatorEngine

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "minLength": 3}, "days": {"type": "integer", "minimum": 1}},
    "required": ["city", "days"],
}
WEATHER = {"name": "weather", "parameters": PARAMETERS}
TIME = {"name": "time"}
USER = Message("user", "How is it?")
CALLED = Message("assistant", "", tool_calls=(ToolCall("call_1", "weather", "{}"),))
OUTPUT = Message("tool", "Rain.", tool_call_id="call_1")


def ask(*messages: Message, max_tokens: int = 200, **tools: Any) -> GenerationRequest:
    given = Tools(**{"functions": (WEATHER, TIME), **tools})
    return GenerationRequest("r", messages or (USER,), Sampling(max_tokens, tools=given))


@pytest.fixture
def engine() -> SimulatorEngine:
    settings = SimulatorSettings(prefill_tokens_per_s=1e6, decode_tokens_per_s=1e5, reasoning_tokens=3)
    engine = SimulatorEngine(settings, PoolSettings(max_model_tokens=10_000), EstimatingTokenizer())
    engine.start()
    return engine


@pytest.mark.parametrize(
    ("messages", "tools", "called"),
    [
        ([USER], {}, ["weather"]),
        ([USER], {"choice": "required"}, ["weather"]),
        ([USER], {"choice": "none"}, []),
        ([USER], {"choice": "function", "name": "time"}, ["time"]),
        ([Message("user", "What time is it?")], {}, ["time"]),
        ([Message("user", "The time and the weather, please.")], {}, ["weather", "time"]),
        ([Message("user", "The time and the weather, please.")], {"parallel": False}, ["weather"]),
        ([USER, CALLED, OUTPUT], {}, []),
        ([USER, CALLED, OUTPUT], {"choice": "required"}, ["time"]),
        ([USER, CALLED, OUTPUT], {"choice": "required", "functions": (WEATHER,)}, ["weather"]),
        ([USER, CALLED, OUTPUT, Message("assistant", "Rain."), USER], {}, ["weather"]),
        ([Message("system", "Call the weather.")], {}, ["weather"]),
    ],
    ids=str,
)
def test_which_functions_are_called(messages: Sequence[Message], tools: dict[str, Any], called: list[str]) -> None:
    given = Tools(**{"functions": (WEATHER, TIME), **tools})
    assert [each["name"] for each in functions_to_call(given, messages)] == called


def test_each_answer_s_call_has_an_id_of_its_own(engine: SimulatorEngine) -> None:
    generation = engine.generate(GenerationRequest("r", (USER,), Sampling(200, n=3, tools=Tools((WEATHER,)))))
    calls = [generation.tool_calls, *(other.tool_calls for other in generation.others)]
    assert len({call.id for made in calls for call in made}) == 3


def test_a_call_has_arguments_of_its_schema_and_is_streamed(engine: SimulatorEngine) -> None:
    pieces: list[Delta] = []

    generation = engine.generate(ask(), pieces.append)

    (call,) = generation.tool_calls
    jsonschema_rs.validate(PARAMETERS, json.loads(call.arguments))
    assert (generation.text, generation.finish_reason, call.name) == ("", "tool_calls", "weather")
    assert joined(each for piece in pieces for each in piece.tool_calls) == generation.tool_calls
    assert generation.usage.output_tokens == len(pieces) > 8
    assert generation.reasoning == "".join(piece.reasoning for piece in pieces) != ""
    assert engine.generate(ask()).tool_calls == generation.tool_calls


def test_several_calls_have_ids_of_their_own(engine: SimulatorEngine) -> None:
    calls = engine.generate(ask(Message("user", "time, weather"))).tool_calls
    assert [call.name for call in calls] == ["weather", "time"]
    assert calls[1].arguments == "{}"
    assert len({call.id for call in calls}) == 2


def test_a_function_that_is_chosen_by_name_ends_with_stop(engine: SimulatorEngine) -> None:
    assert engine.generate(ask(choice="function", name="time")).finish_reason == "stop"


def test_an_output_is_answered_by_a_text(engine: SimulatorEngine) -> None:
    generation = engine.generate(ask(USER, CALLED, OUTPUT))
    assert generation.text.startswith("[simulated] ")
    assert (generation.finish_reason, generation.tool_calls) == ("stop", ())


@pytest.mark.parametrize("max_tokens", [4, 8])
def test_a_call_that_is_too_long_is_cut(engine: SimulatorEngine, max_tokens: int) -> None:
    generation = engine.generate(ask(max_tokens=max_tokens))
    assert (generation.finish_reason, generation.usage.output_tokens) == ("length", max_tokens)
    (call,) = generation.tool_calls or (ToolCall("", "", ""),)
    with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
        json.loads(call.arguments)


def test_parameters_that_cannot_guide_are_rejected(engine: SimulatorEngine) -> None:
    odd = {"name": "odd", "parameters": {"type": "object", "not": {}}}
    with pytest.raises(PromptRejected, match="The parameters of odd") as refusal:
        engine.generate(ask(functions=(odd,)))
    assert refusal.value.param == "tools"


# The simulator's vectors: their length, and what is shortened.


@pytest.mark.parametrize("dimensions", [1, 64, DIMENSIONS])
def test_a_vector_has_as_many_dimensions_as_are_asked_for_and_a_length_of_1(dimensions: int) -> None:
    made = [floats(each) for each in of_answer(vectors([[1, 2], [3]], dimensions))]
    assert [len(each) for each in made] == [dimensions] * 2
    assert [math.hypot(*each) for each in made] == pytest.approx([1.0, 1.0], abs=1e-6)


def test_a_shortened_vector_points_where_the_whole_one_does() -> None:
    [whole], [short] = (of_answer(vectors([[7]], dimensions)) for dimensions in (None, 16))
    begin = floats(whole)[:16]
    assert floats(short) == pytest.approx([number / math.hypot(*begin) for number in begin], abs=1e-6)


def test_texts_that_share_tokens_are_alike() -> None:
    one, alike, other = (floats(each) for each in of_answer(vectors([[1, 2, 3, 4], [4, 1, 2, 5], [6, 7, 8, 9]], None)))
    assert sum(a * b for a, b in zip(one, alike, strict=True)) > 0.6
    assert abs(sum(a * b for a, b in zip(one, other, strict=True))) < 0.3


def test_more_dimensions_than_there_are_are_refused() -> None:
    with pytest.raises(PromptRejected) as raised:
        vectors([[1]], DIMENSIONS + 1)
    assert raised.value.param == "dimensions"
