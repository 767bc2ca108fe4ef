"""What an engine must do that measures surprise, shown on each; and that the default model's measures are real."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import pytest

from headrace.config import OverflowSettings, PoolSettings, Settings, SimulatorSettings
from headrace.domain.prompts import Message, Sampling
from headrace.domain.prompts.compression import TokenSurprise
from headrace.errors import EngineUnavailable, PromptRejected
from headrace.policies.tokens import EstimatingTokenizer, InputTokenizer
from headrace.stack.model import PreparedModel
from workers.engines import load
from workers.engines.base import GenerationRequest, SurpriseMeter
from workers.engines.openai.engine import OpenAIEngine
from workers.engines.simulator.engine import SimulatorEngine

pytestmark = pytest.mark.filterwarnings("ignore")  # vLLM's and torch's own.
VLLM = pytest.param(
    "vllm",
    marks=pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not available on this platform"),
)
#: For an engine that does not make its measures up.
real = pytest.mark.parametrize("engine", [VLLM], indirect=True, scope="module")
#: The most tokens of the engines under test.
MOST_TOKENS = 512
TEXT = "Über den Fluss 🌊 geht die Mühle.\n\nThe wheel turns,  and  turns. "


@pytest.fixture(scope="module", params=["simulator", VLLM])
def engine(request: pytest.FixtureRequest) -> Iterator[Any]:
    made: Any
    if request.param == "simulator":
        settings = SimulatorSettings(prefill_tokens_per_s=1e6)
        made = SimulatorEngine(settings, PoolSettings(max_model_tokens=MOST_TOKENS), EstimatingTokenizer())
    else:
        smollm2: PreparedModel = request.getfixturevalue("smollm2")
        where = {"model": smollm2.model, "model_dir": smollm2.folder}
        made = load("vllm", Settings(), PoolSettings(**where, kv_cache_mib=128, max_model_tokens=MOST_TOKENS))
    made.start()
    yield made
    made.stop()


def check(text: str, measured: list[TokenSurprise]) -> None:
    """The tokens cover the text, in order, and each is measured but the first."""
    ends = [token.end for token in measured]
    assert all(before <= after for before, after in pairwise(ends))
    assert not text or ends[-1] == len(text)
    assert all(token.nats is None or token.nats >= 0 for token in measured)
    assert all(token.nats is not None for token in measured[1:])


@pytest.mark.parametrize("text", [TEXT, TEXT * 60, "", "a", "\n", "漢字" * 300], ids=len)
def test_each_token_of_a_text_is_measured_however_long_it_is(engine: Any, text: str) -> None:
    assert isinstance(engine, SurpriseMeter)
    [measured] = engine.surprise("r", [text])
    check(text, measured)


def test_texts_are_measured_each_by_itself_and_always_the_same(engine: Any) -> None:
    texts = ["One wheel turns.", TEXT * 20, "", "Two wheels turn."]

    together = engine.surprise("r", texts)

    for text, measured in zip(texts, together, strict=True):
        check(text, measured)
        [alone] = engine.surprise("r", [text])
        # Sums in another order, in a batch of another size.
        assert [token.nats for token in alone] == pytest.approx([token.nats for token in measured], abs=0.2)


def test_it_measures_while_it_answers(engine: Any) -> None:
    request = GenerationRequest("answer", (Message("user", "Hello"),), Sampling(40, temperature=0.0))
    alone = engine.generate(request)
    with ThreadPoolExecutor(9) as threads:
        measured = [threads.submit(engine.surprise, f"r{no}", [TEXT * 5]) for no in range(8)]
        answer = threads.submit(engine.generate, request).result()

    assert answer.usage == alone.usage
    for each in measured:
        check(TEXT * 5, each.result()[0])


@real
def test_what_is_said_again_surprises_less(engine: Any) -> None:
    said = "The quick brown fox jumps over the lazy dog near the riverbank at dawn."
    [measured] = engine.surprise("r", [f"{said} {said}"])

    first, second = measured[1 : len(measured) // 2], measured[len(measured) // 2 + 1 :]

    assert sum(token.nats or 0 for token in second) < 0.3 * sum(token.nats or 0 for token in first)


@real
def test_words_in_disorder_surprise_more(engine: Any) -> None:
    ordered, disordered = engine.surprise(
        "r", ["Paris is the capital of France and lies on the Seine.", "the on of France capital Paris Seine is lies."]
    )

    def mean(measured: list[TokenSurprise]) -> float:
        return sum(token.nats or 0 for token in measured) / len(measured)

    assert mean(disordered) > mean(ordered) + 1


def test_an_engine_of_embeddings_measures_nothing() -> None:
    engine = SimulatorEngine(SimulatorSettings(), PoolSettings(serves="embeddings"), InputTokenizer())
    engine.start()
    with pytest.raises(PromptRejected):
        engine.surprise("r", [TEXT])
    engine.stop()


def test_the_paid_api_measures_nothing() -> None:
    assert not isinstance(OpenAIEngine(OverflowSettings(), "sk-test", None), SurpriseMeter)


def test_an_engine_that_has_stopped_is_unavailable(engine: Any) -> None:
    engine.stop()
    with pytest.raises(EngineUnavailable):
        engine.surprise("r", [TEXT])
