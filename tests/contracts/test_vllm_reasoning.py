"""What a model thinks before it answers, told apart by vLLM's own parsers: on the default model, which is shown how."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest

from headrace.config import PoolSettings, Settings
from headrace.domain.prompts import Message, ReasoningEffort, Sampling
from headrace.errors import ConfigError
from headrace.policies.tokens.chat_template import template_arguments
from headrace.stack.model import PreparedModel
from tests.contracts.test_engine import tiny_pool
from workers.engines import load
from workers.engines.base import Delta, Engine, GenerationRequest

pytestmark = [
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not available on this platform"),
    pytest.mark.filterwarnings("ignore"),  # vLLM's and torch's own.
]

NO_THOUGHT = "{% if enable_thinking is defined and not enable_thinking %}</think>{% endif %}"
CAPITALS = {"Spain": "Madrid", "Greece": "Athens", "Italy": "Rome"}


@pytest.fixture(scope="module", params=["qwen3", "deepseek_r1"])
def parser(request: pytest.FixtureRequest) -> str:
    """A parser that reads the text, and one that goes by the tokens."""
    return str(request.param)


@pytest.fixture(scope="module")
def engine(smollm2: PreparedModel, tmp_path_factory: pytest.TempPathFactory, parser: str) -> Iterator[Engine]:
    folder = smollm2.folder
    if parser == "deepseek_r1":
        folder = with_tokens_for_thoughts(folder, tmp_path_factory.mktemp("thoughtful") / "model")
    pool = PoolSettings(model="tests/smollm2", model_dir=folder, kv_cache_mib=128, max_model_tokens=512)
    engine = load("vllm", Settings(), pool.model_copy(update={"reasoning_parser": parser}))
    engine.start()
    yield engine
    engine.stop()


def with_tokens_for_thoughts(model: Path, folder: Path) -> Path:
    """The same model, of whose unused tokens two are for thoughts, and whose prompts end with the first of them.

    Or with both, where nothing is to be thought.
    """
    shutil.copytree(model, folder, copy_function=lambda file, link: Path(link).symlink_to(file))
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    for unused, name in {"<file_sep>": "<think>", "<filename>": "</think>"}.items():
        (token,) = [each for each in tokenizer["added_tokens"] if each["content"] == unused]
        token |= {"content": name, "special": False}
        tokenizer["model"]["vocab"][name] = tokenizer["model"]["vocab"].pop(unused)
    template = (model / "chat_template.jinja").read_text()
    written = {"tokenizer.json": json.dumps(tokenizer), "chat_template.jinja": template}
    written["chat_template.jinja"] = template.replace("assistant\n' }}", f"assistant\n<think>' }}}}{NO_THOUGHT}")
    for name, text in written.items():
        (folder / name).unlink()
        (folder / name).write_text(text)
    return folder


def thoughtful(max_tokens: int = 40, **sampling: object) -> GenerationRequest:
    """A question whose examples are thought about first, so that the model thinks, too."""
    turns = []
    for country, capital in CAPITALS.items():
        turns += [Message("user", f"What is the capital of {country}?")]
        turns += [Message("assistant", f"<think>They ask for the capital of {country}.</think>{capital}")]
    turns += [Message("user", "What is the capital of France?")]
    return GenerationRequest("thoughtful", tuple(turns), Sampling(max_tokens, temperature=0.0, **sampling))


@pytest.mark.parametrize("is_heard", [True, False])
def test_what_is_thought_is_told_apart_from_the_answer(engine: Engine, is_heard: bool) -> None:
    deltas: list[Delta] = []

    generation = engine.generate(thoughtful(), deltas.append if is_heard else None)

    assert (generation.reasoning, generation.text) == ("They ask for the capital of France.", "Paris")
    assert generation.finish_reason == "stop"
    assert 8 <= generation.usage.reasoning_tokens < generation.usage.output_tokens
    if is_heard:
        assert len(deltas) > 2
        assert "".join(delta.reasoning for delta in deltas) == generation.reasoning
        assert "".join(delta.text for delta in deltas) == generation.text


def test_log_probabilities_are_those_of_the_answer(engine: Engine) -> None:
    deltas: list[Delta] = []
    generation = engine.generate(thoughtful(top_logprobs=1), deltas.append)
    assert generation.logprobs is not None
    assert "".join(token["token"] for token in generation.logprobs) == "Paris<|im_end|>"
    told = [token for delta in deltas for token in delta.logprobs]
    assert told == list(generation.logprobs[: len(told)]) != []


def test_an_answer_that_is_cut_in_its_reasoning_has_no_text(engine: Engine) -> None:
    generation = engine.generate(thoughtful(max_tokens=6, top_logprobs=1))
    assert generation.reasoning
    assert "They ask for the capital of".startswith(generation.reasoning)
    assert (generation.text, generation.finish_reason, generation.logprobs) == ("", "length", ())
    assert generation.usage.reasoning_tokens == generation.usage.output_tokens == 6


#: vLLM's core waits for the token that ends the thoughts, and must not wait for one that is spelled out.
@pytest.mark.parametrize("parser", ["deepseek_r1"], indirect=True, scope="module")
@pytest.mark.parametrize(("effort", "thought"), [(None, "They ask for the capital of France."), ("none", "")])
def test_the_shape_that_is_asked_for_is_that_of_the_answer(engine: Engine, effort: str | None, thought: str) -> None:
    city = {"type": "object", "properties": {"city": {"const": "Paris"}}, "required": ["city"]}
    shape = {"type": "json_schema", "json_schema": {"name": "answer", "schema": city}}
    generation = engine.generate(thoughtful(max_tokens=60, response_format=shape, reasoning_effort=effort))
    assert generation.reasoning == thought
    assert json.loads(generation.text) == {"city": "Paris"}


def test_an_answer_with_no_effort_has_no_thought(engine: Engine, parser: str) -> None:
    # This template has a word for it; without one the parser alone goes by what was asked.
    no_thought, written = {"deepseek_r1": ("<think></think>", 1), "qwen3": ("", 0)}[parser]
    turns = [Message("user", "What is the capital of France?")]
    for country, capital in CAPITALS.items():
        turns[:0] = [Message("user", f"What is the capital of {country}?"), Message("assistant", no_thought + capital)]
    asked = [replace(thoughtful(reasoning_effort=effort), messages=tuple(turns)) for effort in ("none", None)]

    quick, slow = map(engine.generate, asked)

    assert (quick.reasoning, quick.text, quick.usage.reasoning_tokens) == ("", "Paris", 0)
    assert quick.usage.prompt_tokens - slow.usage.prompt_tokens == written


@pytest.mark.parametrize("effort", [None, *get_args(ReasoningEffort)])
def test_a_template_is_told_of_the_effort_what_vllm_s_own_server_tells_it(effort: ReasoningEffort | None) -> None:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.responses.protocol import ResponsesRequest

    chat = ChatCompletionRequest(messages=[], reasoning_effort=effort)
    response = ResponsesRequest(input="Hi", reasoning={"effort": effort} if effort else None)
    for request in (chat, response):
        told = request.build_chat_params(None, "auto").chat_template_kwargs
        assert told == {"add_generation_prompt": True, "continue_final_message": False, **template_arguments(effort)}


def test_a_prefix_is_of_the_answer(engine: Engine) -> None:
    generation = engine.generate(replace(thoughtful(), prefix="Par"))
    assert (generation.reasoning, generation.text) == ("", "Paris")
    assert generation.usage.reasoning_tokens == 0


@pytest.mark.parametrize(
    ("parser", "told"),
    [
        ("deepthought", "vLLM has no parser 'deepthought'. It has: cohere_command3, "),
        ("deepseek_r1", "does not suit the model's tokenizer: RuntimeError("),
        ("olmo3", "does not suit the model's tokenizer: KeyError("),
    ],
)
def test_a_parser_that_cannot_be_is_named_before_anything_is_loaded(tiny_llama: Path, parser: str, told: str) -> None:
    pool = tiny_pool(tiny_llama).model_copy(update={"reasoning_parser": parser})
    refused = load("vllm", Settings(pools={"small": pool}, pool="small"), pool)
    with pytest.raises(ConfigError) as raised:
        refused.start()
    refused.stop()
    assert raised.value.param == "pools.small.reasoning_parser"
    assert told in str(raised.value)
