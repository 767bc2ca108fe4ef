"""Tools, really: vLLM's parsers and grammars on the default model, with the chat template that Headrace ships."""

import json
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import pytest

from headrace.config import PoolSettings, Settings
from headrace.connections.model_files import tokenizer_for
from headrace.domain.prompts import Message, Sampling
from headrace.domain.prompts.tools import ToolCall, Tools, joined
from headrace.errors import ConfigError, PromptRejected
from headrace.stack.model import PreparedModel
from tests.contracts.test_engine import tiny_pool
from workers.engines import load
from workers.engines.base import Delta, Engine, GenerationRequest

pytestmark = [
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not available on this platform"),
    pytest.mark.filterwarnings("ignore"),  # vLLM's and torch's own.
]


def only(name: str, value: str) -> dict[str, Any]:
    """A schema that leaves the model one value alone, so that a grammar shows."""
    return {
        "type": "object",
        "properties": {name: {"enum": [value]}},
        "required": [name],
        "additionalProperties": False,
    }


WEATHER = {
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": only("city", "Reykjavik"),
    "strict": True,
}
TIME = {"name": "time", "parameters": only("zone", "UTC"), "strict": True}
TOOLS = Tools((WEATHER, TIME))
CITIES = {"Rome": "sunny", "Oslo": "snowy"}


@pytest.fixture(scope="module")
def pool(smollm2: PreparedModel) -> PoolSettings:
    where: dict[str, Any] = {"model": smollm2.model, "model_dir": smollm2.folder}
    return PoolSettings(**where, kv_cache_mib=128, max_model_tokens=2048, tool_parser="hermes", chat_template="smollm2")


@pytest.fixture(scope="module")
def engine(pool: PoolSettings) -> Iterator[Engine]:
    engine = load("vllm", Settings(), pool)
    engine.start()
    yield engine
    engine.stop()


def asked(tools: Tools | None, max_tokens: int = 60, **sampling: Any) -> GenerationRequest:
    messages = (Message("user", "What is the weather in Paris?"),)
    return GenerationRequest("r", messages, Sampling(max_tokens, temperature=0.0, tools=tools, **sampling))


FREE = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}


def shown(*, with_outputs: bool = False) -> tuple[Message, ...]:
    """A conversation whose earlier turns show the model how to call, or what to say of the outputs."""
    turns: list[Message] = []
    for number, (city, weather) in enumerate(CITIES.items()):
        call = ToolCall(f"call_{number}", "weather", json.dumps({"city": city}))
        turns += [Message("user", f"What is the weather in {city}?"), Message("assistant", "", tool_calls=(call,))]
        if with_outputs:
            turns += [Message("tool", weather, tool_call_id=call.id), Message("assistant", f"It is {weather}.")]
    return (*turns, Message("user", "What is the weather in Paris?"))


@pytest.mark.parametrize("is_heard", [True, False])
@pytest.mark.parametrize(
    ("tools", "name", "reason"),
    [
        (replace(TOOLS, functions=(WEATHER,), choice="required", parallel=False), "weather", "tool_calls"),
        (replace(TOOLS, choice="function", name="weather", parallel=False), "weather", "stop"),
        (replace(TOOLS, choice="function", name="time", parallel=False), "time", "stop"),
    ],
    ids=["required", "weather", "time"],
)
def test_a_call_that_is_asked_for_is_made_by_its_schema(
    engine: Engine, tools: Tools, name: str, reason: str, is_heard: bool
) -> None:
    deltas: list[Delta] = []
    generation = engine.generate(asked(tools), deltas.append if is_heard else None)
    [call] = generation.tool_calls
    assert (call.name, generation.finish_reason, generation.text.strip()) == (name, reason, "")
    assert json.loads(call.arguments) == ({"city": "Reykjavik"} if name == "weather" else {"zone": "UTC"})
    assert call.id
    assert generation.usage.output_tokens > 5
    if is_heard:
        assert joined([piece for delta in deltas for piece in delta.tool_calls]) == generation.tool_calls
        assert len(deltas) > 2
        assert "".join(delta.text for delta in deltas) == generation.text


def test_a_model_that_is_shown_how_calls_by_itself(engine: Engine) -> None:
    generation = engine.generate(replace(asked(Tools((FREE,))), messages=shown()))
    [call] = generation.tool_calls
    assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "Paris"})
    assert (generation.text, generation.finish_reason) == ("", "tool_calls")


def test_the_output_of_a_call_is_answered(engine: Engine) -> None:
    call = ToolCall("call_9", "weather", '{"city": "Paris"}')
    turns = (*shown(with_outputs=True), Message("assistant", "", tool_calls=(call,)))
    turns = (*turns, Message("tool", "windy", tool_call_id=call.id))
    generation = engine.generate(replace(asked(Tools((FREE,))), messages=turns))
    assert (generation.text, generation.tool_calls, generation.finish_reason) == ("It is windy.", (), "stop")


def test_a_model_that_may_call_nothing_writes_text(engine: Engine) -> None:
    request = replace(asked(replace(TOOLS, choice="none"), max_tokens=24), messages=shown())
    generation = engine.generate(request)
    assert generation.tool_calls == ()
    assert generation.text
    silent = engine.generate(replace(request, sampling=replace(request.sampling, tools=None)))
    assert silent.tool_calls == ()
    assert silent.usage.prompt_tokens < generation.usage.prompt_tokens


def test_a_response_format_holds_where_the_model_calls_nothing(engine: Engine) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"const": "no"}}}
    generation = engine.generate(asked(Tools((WEATHER,), "none"), response_format=schema))
    assert json.loads(generation.text) == "no"
    forced = Tools((WEATHER,), "required", parallel=False)
    assert engine.generate(asked(forced, response_format=schema)).tool_calls[0].name == "weather"


def test_a_prompt_has_the_tokens_that_were_counted_with_its_tools(pool: PoolSettings, engine: Engine) -> None:
    request = replace(asked(TOOLS, max_tokens=1), messages=shown())
    counted = tokenizer_for(pool).count(request.messages, None, request.sampling.template_variables)  # type: ignore[union-attr]
    assert engine.generate(request).usage.prompt_tokens == counted


def test_a_schema_that_no_grammar_can_have_rejects_the_prompt(engine: Engine) -> None:
    bad = {"name": "weather", "parameters": {"type": "nonsense"}, "strict": True}
    with pytest.raises(PromptRejected):
        engine.generate(asked(Tools((bad,), "required")))
    assert engine.generate(asked(None, max_tokens=2)).usage.output_tokens == 2


def test_a_strict_level_and_grammars_without_white_space_hold_where_the_request_says_nothing(
    pool: PoolSettings,
) -> None:
    """The model left alone writes other cities, and more white space than a limit on its tokens leaves room for."""
    options = {"structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True}}
    strict = pool.model_copy(update={"tool_strict_level": "parameter", "engine_options": options})
    engine = load("vllm", Settings(), strict)
    engine.start()
    try:
        loose = {**WEATHER, "strict": False}
        [call] = engine.generate(asked(Tools((loose,), "required", parallel=False))).tool_calls
        assert json.loads(call.arguments) == {"city": "Reykjavik"}
        schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": only("city", "Reykjavik")}}
        assert engine.generate(asked(None, response_format=schema)).text == '{"city":"Reykjavik"}'
    finally:
        engine.stop()


def test_schemas_that_would_hold_up_all_streams_reject_the_prompt(engine: Engine) -> None:
    """vLLM makes their grammar on the engine's loop, with xgrammar or, for what that lacks, with llguidance."""
    many = {"type": "array", "maxItems": 10**5, "items": {"type": "integer", "multipleOf": 3}}
    pattern = only("city", "Reykjavik") | {"properties": {"city": {"type": "string", "pattern": "^.{1,4000}$"}}}
    for schema, why in ((many, "lists have up to 100000 items"), (pattern, "repetitions in patterns")):
        form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
        for tools in (None, Tools((WEATHER,), "none")):
            with pytest.raises(PromptRejected, match=why) as raised:
                engine.generate(asked(tools, response_format=form))
            assert raised.value.param == "response_format"
    for strict in (True, False):
        bad = {"name": "weather", "parameters": pattern, "strict": strict}
        with pytest.raises(PromptRejected, match="repetitions in patterns") as raised:
            engine.generate(asked(Tools((bad,), "required")))
        assert raised.value.param == "tools"
    assert engine.generate(asked(None, max_tokens=2)).usage.output_tokens == 2


def test_a_parser_that_vllm_lacks_is_refused_with_those_that_it_has(tiny_llama: Any) -> None:
    wrong = tiny_pool(tiny_llama).model_copy(update={"tool_parser": "hermse"})
    refused = load("vllm", Settings(pools={"small": wrong}, pool="small"), wrong)
    with pytest.raises(ConfigError, match=r"no parser 'hermse'. It has: .*hermes.*qwen3") as raised:
        refused.start()
    refused.stop()
    assert raised.value.param == "pools.small.tool_parser"
