"""What every engine of embeddings must do, shown on each of them: the simulator, and vLLM with the real model."""

import math
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pytest

from headrace.config import PoolSettings, Settings, SimulatorSettings
from headrace.connections.model_files import tokenizer_for
from headrace.domain.prompts import Message, Sampling
from headrace.domain.prompts.embeddings import MOST_TOKENS, floats, of_answer, text_input, token_input
from headrace.domain.states import JobState
from headrace.errors import EngineCrash, EngineUnavailable, PromptRejected
from headrace.policies.reuse.bound import MIN_TRIES
from headrace.policies.tokens import InputTokenizer
from headrace.stack.model import PreparedModel
from tests.contracts.meaning import meaning
from tests.contracts.test_engine import SOON_S, VLLM, core_pid
from tests.waiting import until
from workers.engines import load
from workers.engines.base import Engine, Generation, GenerationRequest

LIMIT = 256
TEXTS = ("The river turns the wheel.", "A wheel is turned by the river.", "Stock prices fell on Monday.")
#: A question, the same in other words, and its opposite.
ON = "How do I turn on dark mode?"
SAME_AS_ON = ("What are the steps to turn on the dark mode?", "Tell me how to switch the dark theme on.")
OPPOSITES = ("How do I turn off dark mode?", "How can I turn off dark mode?")
QUEUED_FOR_A_TRY = (JobState.QUEUED, "try")
with_a_core = pytest.mark.parametrize("bench", [VLLM], indirect=True, scope="module")


@dataclass(slots=True)
class Bench:
    """An engine under test, started, and the tokenizer of its model."""

    engine: Any
    tokenizer: InputTokenizer


@pytest.fixture(scope="module", params=["simulator", VLLM])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    pool = PoolSettings(engine=request.param, serves="embeddings", model="a/b", max_model_tokens=LIMIT, max_running=32)
    if request.param == "vllm":
        model: PreparedModel = request.getfixturevalue("minilm")
        pool = pool.model_copy(update={"model": model.model, "model_dir": model.folder})
    tokenizer = tokenizer_for(pool)
    assert isinstance(tokenizer, InputTokenizer)
    engine = load(request.param, Settings(simulator=SimulatorSettings(prefill_tokens_per_s=20_000)), pool)
    engine.start()
    yield Bench(engine, tokenizer)
    engine.stop()


@pytest.fixture
def engine(bench: Bench) -> Engine:
    return bench.engine


def ask(*inputs: str | Message, request_id: str = "one", dimensions: int | None = None) -> GenerationRequest:
    messages = [text_input(each) if isinstance(each, str) else each for each in inputs]
    return GenerationRequest(request_id, tuple(messages), Sampling(0, dimensions=dimensions))


def vectors(generation: Generation) -> list[list[float]]:
    assert generation.finish_reason == "stop"
    return [floats(each) for each in of_answer(generation.text)]


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def is_idle(engine: Engine) -> bool:
    now = engine.stats()
    return (now.running, now.waiting) == (0, 0)


def test_start_says_what_the_engine_can_hold(engine: Engine) -> None:
    limits = engine.start()
    assert (limits.max_model_tokens, limits.max_running) == (LIMIT, 32)
    assert (limits.kv_tokens, limits.kv_block_tokens) == (MOST_TOKENS, 1)


def test_each_input_gets_its_own_vector_in_order(engine: Engine) -> None:
    together = vectors(engine.generate(ask(*TEXTS)))
    alone = [vectors(engine.generate(ask(text)))[0] for text in TEXTS]
    assert {len(each) for each in together} == {384}
    assert [math.hypot(*each) for each in together] == pytest.approx([1.0] * 3, abs=1e-3)
    for both in zip(together, alone, strict=True):
        assert cosine(*both) > 0.999
    assert cosine(together[0], together[2]) < 0.9


def test_an_input_counts_its_tokens_and_makes_none(bench: Bench) -> None:
    request = ask(*TEXTS)
    before, usage = bench.engine.stats(), bench.engine.generate(request).usage
    assert usage.prompt_tokens == sum(bench.tokenizer.count_each(request.messages))
    assert (usage.output_tokens, usage.cached_tokens) == (0, 0)
    until(lambda: bench.engine.stats().prompt_tokens == before.prompt_tokens + usage.prompt_tokens)
    assert bench.engine.stats().output_tokens == before.output_tokens


def test_token_ids_get_the_vector_of_their_text(bench: Bench) -> None:
    [ids] = bench.tokenizer.encode_each([text_input(TEXTS[0])])
    generation = bench.engine.generate(ask(TEXTS[0], token_input(ids)))
    assert cosine(*vectors(generation)) > 0.999
    assert generation.usage.prompt_tokens == 2 * len(ids)


def test_many_requests_at_once_get_their_own_vectors(engine: Engine) -> None:
    requests = [ask(*(f"number {i}, {k}" for k in range(5)), request_id=f"many-{i}") for i in range(20)]
    alone = [vectors(engine.generate(request)) for request in requests]
    with ThreadPoolExecutor(20) as threads:
        together = [vectors(each) for each in threads.map(engine.generate, requests)]
    for mine, theirs in zip(together, alone, strict=True):
        assert all(cosine(*both) > 0.999 for both in zip(mine, theirs, strict=True))


@with_a_core
def test_inputs_of_one_request_and_of_many_share_the_steps(engine: Engine) -> None:
    until(lambda: is_idle(engine))
    before = engine.stats().steps
    engine.generate(ask(*(f"number {i}" for i in range(200)), request_id="wide"))
    of_one = engine.stats().steps - before
    requests = [ask(f"number {i}", request_id=f"narrow-{i}") for i in range(200)]
    with ThreadPoolExecutor(32) as threads:
        list(threads.map(engine.generate, requests))
    of_many = engine.stats().steps - before - of_one
    print(f"steps for 200 inputs: {of_one} in one request, {of_many} in 200 requests of 32 threads")
    assert of_one <= 40
    assert of_many <= 100


def test_an_input_that_never_fits_rejects_its_request_and_nothing_is_left_of_it(engine: Engine) -> None:
    with pytest.raises(PromptRejected):
        engine.generate(ask(*["fits"] * 50, "word " * 2000))
    until(lambda: is_idle(engine))
    assert engine.progress() == {}
    engine.check()


def test_a_prompt_is_rejected(engine: Engine) -> None:
    with pytest.raises(PromptRejected) as raised:
        engine.generate(GenerationRequest("chat", (Message("user", "Hi"),), Sampling(8)))
    assert raised.value.param == "messages"


def test_dimensions_are_those_asked_for_or_refused(bench: Bench) -> None:
    request = ask(TEXTS[0], dimensions=64)
    if bench.tokenizer.is_matryoshka:
        assert len(vectors(bench.engine.generate(request))[0]) == 64
    else:
        with pytest.raises(PromptRejected, match="dimensions"):
            bench.engine.generate(request)


def test_abort_ends_all_inputs_and_the_engine_goes_on(engine: Engine) -> None:
    request = ask(*(f"{i} " + "word " * 150 for i in range(1500)), request_id="aborted")
    before = engine.stats().prompt_tokens
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(engine.generate, request)
        until(lambda: "aborted" in engine.progress() and engine.stats().prompt_tokens > before)
        engine.abort("aborted")
        generation = running.result(SOON_S)
    assert (generation.finish_reason, generation.text) == ("abort", "")
    assert generation.usage.output_tokens == 0
    until(lambda: is_idle(engine))
    assert engine.progress() == {}
    assert len(vectors(engine.generate(ask(*TEXTS)))) == 3


@with_a_core
@pytest.mark.usefixtures("bench")
def test_the_vectors_are_those_of_the_model_s_authors(engine: Engine, minilm: PreparedModel) -> None:
    """all-MiniLM-L6-v2 is the mean of the last layer, scaled to the length 1, as its own card says."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    words = AutoTokenizer.from_pretrained(minilm.folder)(list(TEXTS), padding=True, return_tensors="pt")
    with torch.no_grad():
        states = AutoModel.from_pretrained(minilm.folder)(**words).last_hidden_state
    mask = words["attention_mask"].unsqueeze(-1)
    theirs = ((states * mask).sum(1) / mask.sum(1)).tolist()
    ours = vectors(engine.generate(ask(*TEXTS)))
    for both in zip(ours, theirs, strict=True):
        assert cosine(*both) > 0.999
    assert cosine(ours[0], ours[1]) > 0.7 > 0.3 > cosine(ours[0], ours[2])


@with_a_core
def test_a_semantic_cache_serves_a_paraphrase_that_has_earned_trust_and_never_the_opposite(
    engine: Engine, database_url: str, redis_url: str
) -> None:
    """The whole way with real embeddings: no threshold of the cosine would do."""
    with meaning(engine, database_url, redis_url) as cache:
        cache.answer(cache.ask(ON), "In the settings.")
        tries = 0
        while (found := cache.found(ticket := cache.ask(SAME_AS_ON[tries % len(SAME_AS_ON)]))) == QUEUED_FOR_A_TRY:
            cache.answer(ticket, "In the settings.")
            tries += 1
            assert tries < 60
        opposites = [cache.found(cache.ask(text)) for text in OPPOSITES]

    on, same, off = vectors(engine.generate(ask(ON, SAME_AS_ON[tries % len(SAME_AS_ON)], OPPOSITES[0])))
    print(f"served after {tries} tries; the cosines: {cosine(on, same):.3f}, of the opposite {cosine(on, off):.3f}")
    assert found == (JobState.SUCCEEDED, "served")
    assert tries >= MIN_TRIES
    assert opposites == [(JobState.QUEUED, None)] * len(OPPOSITES)
    assert cosine(on, off) > cosine(on, same)


@with_a_core
def test_a_core_that_is_killed_fails_its_requests(bench: Bench, engine: Engine) -> None:
    """The last that needs a core: it is not replaced, which the suite of engines shows already."""
    request = ask(*(f"{i} " + "word " * 150 for i in range(1500)), request_id="lost")
    before = engine.stats().prompt_tokens
    with ThreadPoolExecutor(2) as threads:
        running = [threads.submit(engine.generate, replace(request, request_id=f"lost-{i}")) for i in range(2)]
        until(lambda: set(engine.progress()) == {"lost-0", "lost-1"} and engine.stats().prompt_tokens > before)
        os.kill(core_pid(bench.engine), signal.SIGKILL)
        for call in running:
            with pytest.raises(EngineCrash) as crash:
                call.result(SOON_S)
            assert crash.value.made_tokens == 0


def test_after_stop_nothing_is_answered(engine: Engine) -> None:
    engine.stop()
    engine.stop()
    with pytest.raises(EngineUnavailable):
        engine.generate(ask(TEXTS[0]))
