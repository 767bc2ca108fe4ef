"""What every engine must do, shown on each of them."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY, generate_latest

from headrace.config import OverflowSettings, PoolSettings, SimulatorSettings
from headrace.connections import model_files
from headrace.domain.answers import LEAST_LOGPROB, Choice
from headrace.domain.prompts import Message, Sampling, plain_text, plain_tokens
from headrace.errors import EngineCrash, EngineUnavailable, PromptRejected
from headrace.policies.tokens import EstimatingTokenizer
from tests.waiting import until
from workers.engines.base import Delta, Engine, EngineStats, Generation, GenerationRequest, OnDelta, Progress
from workers.engines.simulator.engine import SimulatorEngine

SOON_S = 10.0
#: Of vLLM's KV cache on a CPU.
BLOCK_TOKENS = 128


@dataclass(slots=True)
class Bench:
    """An engine under test.

    Attributes:
        long: a prompt that keeps the engine busy, with this many tokens.
        underway: blocks until the engine works on it; told when its first piece has come.
        let_go: lets it end after an abort, where the engine cannot cut it short.
        prepare: makes it ready for the next test.
    """

    engine: Any
    long: tuple[str, int]
    underway: Callable[[threading.Event], bool]
    let_go: Callable[[], None]
    prepare: Callable[[], None] = lambda: None


VLLM = pytest.param(
    "vllm",
    marks=[
        pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not available on this platform"),
        pytest.mark.filterwarnings("ignore"),  # vLLM's and torch's own.
    ],
)
#: For engines that go on behind a prefix, and for what only one with a process of its own can show.
continuing = pytest.mark.parametrize("bench", ["simulator", VLLM], indirect=True, scope="module")
with_a_core = pytest.mark.parametrize("bench", [VLLM], indirect=True, scope="module")


@pytest.fixture(scope="module", params=["simulator", "openai", VLLM])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    made: Bench = {"simulator": simulator, "openai": paid, "vllm": vllm}[request.param](request.getfixturevalue)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXX", "/nowhere/c++")  # An engine that compiles finds no compiler.
        yield made
        made.engine.stop()


def simulator(_: Callable[[str], Any]) -> Bench:
    settings = SimulatorSettings(decode_tokens_per_s=100, output_tokens=4000, kv_tokens=100_000)
    engine = SimulatorEngine(settings, PoolSettings(max_model_tokens=5000, max_running=64), EstimatingTokenizer())
    return Bench(
        engine,
        long=("a long story", 4000),
        underway=lambda first_piece: first_piece.wait(SOON_S),
        let_go=lambda: None,
    )


def paid(fixture: Callable[[str], Any]) -> Bench:
    from workers.engines.openai.engine import OpenAIEngine

    server = fixture("stand_in")
    return Bench(
        OpenAIEngine(OverflowSettings(), "sk-test", server.url),
        long=(server.HOLD, 50),
        underway=lambda first_piece: server.held.wait(SOON_S),
        let_go=server.release.set,
        prepare=server.hold,
    )


def vllm(fixture: Callable[[str], Any]) -> Bench:
    from workers.engines.vllm.engine import VllmEngine

    pool = tiny_pool(fixture("tiny_llama"))
    return Bench(
        VllmEngine(pool, model_files.tokenizer(pool.model, pool.model_dir), probe_s=3.0),
        long=("a long story", 900),
        underway=lambda first_piece: first_piece.wait(SOON_S),
        let_go=lambda: None,
    )


def tiny_pool(folder: Path) -> PoolSettings:
    return PoolSettings(model="tests/tiny-llama", model_dir=folder, kv_cache_mib=64, max_model_tokens=1024)


@pytest.fixture
def engine(bench: Bench) -> Engine:
    """The engine, started: after a test that left it dead or stopped, again."""
    bench.prepare()
    bench.engine.start()
    return bench.engine


def answer_of(i: int) -> str:
    return f"the answer to question {i} ends here"


def own(i: int, max_tokens: int = 80, **sampling: Any) -> GenerationRequest:
    """A request whose answer is known, since its schema allows no other: random weights obey it too."""
    schema = {"name": "answer", "schema": {"const": answer_of(i)}}
    response_format = {"type": "json_schema", "json_schema": schema}
    return GenerationRequest(
        request_id=f"own-{i}",
        messages=(Message("user", f"question {i}"),),
        sampling=Sampling(max_tokens, temperature=0.0, response_format=response_format, **sampling),
    )


def free(prefix: str = "", max_tokens: int = 60, request_id: str = "free") -> GenerationRequest:
    """A request that continues a given text."""
    sampling = Sampling(max_tokens, temperature=0.0)
    return GenerationRequest(request_id, (Message("user", "tell me more"),), sampling, prefix=prefix)


def long(bench: Bench, request_id: str) -> GenerationRequest:
    text, tokens = bench.long
    # A text that a random model would have to end for reasons of its own only.
    schema = {"name": "text", "schema": {"type": "string", "minLength": 4000}}
    sampling = Sampling(tokens, temperature=0.0, response_format={"type": "json_schema", "json_schema": schema})
    return GenerationRequest(request_id, (Message("user", text),), sampling)


def begin(
    bench: Bench, pool: ThreadPoolExecutor, request_id: str, pieces: list[str] | None = None
) -> "Future[Generation]":
    """Start a long request, and return once the engine works on it."""
    first_piece = threading.Event()

    def on_delta(piece: Delta) -> None:
        if pieces is not None:
            pieces.append(piece.text)
        first_piece.set()

    running = pool.submit(bench.engine.generate, long(bench, request_id), on_delta)
    assert bench.underway(first_piece)
    return running


def into(pieces: list[str]) -> OnDelta:
    """A listener that keeps the text of each piece."""
    return lambda piece: pieces.append(piece.text)


def test_start_says_what_the_engine_can_hold(engine: Engine) -> None:
    limits = engine.start()
    assert limits.max_running > 1
    if limits.kv_tokens is not None and limits.kv_block_tokens is not None:
        assert limits.kv_tokens >= limits.max_running * limits.kv_block_tokens
        assert limits.kv_tokens % limits.kv_block_tokens == 0
    engine.check()


def test_an_answer_comes_with_its_usage_and_its_model(bench: Bench, engine: Engine) -> None:
    request = own(1)
    generation = engine.generate(request)
    assert answer_of(1) in generation.text
    assert generation.usage.prompt_tokens > 0
    assert 0 < generation.usage.output_tokens <= request.sampling.max_tokens
    assert 0 <= generation.usage.cached_tokens <= generation.usage.prompt_tokens
    assert generation.model_served


def test_overlapping_calls_get_their_own_answers(bench: Bench, engine: Engine) -> None:
    requests = [own(i) for i in range(20)]
    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(engine.generate, requests))
    for i, answer in enumerate(answers):
        assert answer_of(i) in answer.text


def test_max_tokens_cuts_the_answer_and_says_so(engine: Engine) -> None:
    generation = engine.generate(own(2, max_tokens=3))
    assert generation.finish_reason == "length"
    assert generation.usage.output_tokens == 3


def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(engine: Engine) -> None:
    whole = engine.generate(own(3)).text
    stop = whole.split()[-1]
    generation = engine.generate(own(3, stop=(stop,)))
    assert generation.text == whole.partition(stop)[0]
    assert generation.finish_reason == "stop"


def test_pieces_add_up_to_the_text(engine: Engine) -> None:
    pieces: list[str] = []
    generation = engine.generate(own(4), into(pieces))
    assert "".join(pieces) == generation.text != ""


@pytest.mark.parametrize("is_heard", [True, False])
def test_each_token_comes_with_its_log_probability_and_the_likeliest_at_its_place(
    engine: Engine, is_heard: bool
) -> None:
    deltas: list[Delta] = []
    generation = engine.generate(own(8, top_logprobs=2), deltas.append if is_heard else None)

    assert generation.logprobs is not None
    assert len(generation.logprobs) == generation.usage.output_tokens
    for token in generation.logprobs:
        assert bytes(token["bytes"]).decode() == token["token"]
        likeliest = [each["logprob"] for each in token["top_logprobs"]]
        assert 0 >= likeliest[0] >= likeliest[1] >= LEAST_LOGPROB
        assert likeliest[0] >= token["logprob"] >= LEAST_LOGPROB
    # vLLM also reports the token that ends the answer.
    text = "".join(token["token"] for token in generation.logprobs)
    assert text.removesuffix("<|im_end|>") == generation.text
    if is_heard:
        told = [token for delta in deltas for token in delta.logprobs]
        assert told == list(generation.logprobs[: len(told)])
        assert all("".join(token["token"] for token in delta.logprobs) == delta.text for delta in deltas)


def test_each_piece_has_the_tokens_so_far(engine: Engine) -> None:
    deltas: list[Delta] = []
    generation = engine.generate(own(8), deltas.append)

    counts = [delta.tokens for delta in deltas]
    if engine.name == "openai":
        assert set(counts) == {0}, "a paid API counts at the end alone"
        return
    assert counts == sorted(set(counts))
    assert counts[0] >= 1
    # vLLM also counts the token that ends the answer.
    assert counts[-1] in (generation.usage.output_tokens, generation.usage.output_tokens - 1)


def test_of_the_tokens_alone_no_others_are_told(engine: Engine) -> None:
    generation = engine.generate(own(8, top_logprobs=0))
    assert generation.logprobs
    assert all(token["top_logprobs"] == [] for token in generation.logprobs)


def test_no_log_probabilities_come_unless_they_are_asked_for(engine: Engine) -> None:
    deltas: list[Delta] = []
    assert engine.generate(own(8), deltas.append).logprobs is None
    assert {delta.logprobs for delta in deltas} == {()}


def several(request: GenerationRequest, n: int) -> GenerationRequest:
    """The same request for `n` answers, which must be sampled."""
    return replace(request, sampling=replace(request.sampling, n=n, temperature=1.0, seed=7))


@pytest.mark.parametrize("is_heard", [True, False])
def test_several_answers_come_with_the_tokens_of_all(engine: Engine, is_heard: bool) -> None:
    deltas: list[Delta] = []
    asked = several(free(max_tokens=12), 3)
    asked = replace(asked, sampling=replace(asked.sampling, top_logprobs=1))
    generation = engine.generate(asked, deltas.append if is_heard else None)

    answers = [Choice(generation.text, generation.finish_reason, generation.logprobs), *generation.others]
    assert len(answers) == 3
    assert {each.finish_reason for each in answers} <= {"stop", "length"}
    assert sum(len(each.logprobs or ()) for each in answers) == generation.usage.output_tokens
    assert generation.usage.output_tokens > len(generation.logprobs or ())
    assert engine.name == "openai" or len({each.text for each in answers}) == 3
    for number, each in enumerate(answers) if is_heard else ():
        told = [delta for delta in deltas if delta.choice == number]
        assert "".join(delta.text for delta in told) == each.text != ""
        logprobs = [token for delta in told for token in delta.logprobs]
        assert logprobs == list(each.logprobs or ())[: len(logprobs)]


def test_abort_ends_all_answers(bench: Bench, engine: Engine) -> None:
    first_piece = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        asked = several(long(bench, "aborted"), 3)
        running = threads.submit(engine.generate, asked, lambda _: first_piece.set())
        assert bench.underway(first_piece)
        engine.abort("aborted")
        bench.let_go()
        generation = running.result(SOON_S)
    assert generation.finish_reason == "abort"
    assert len(generation.others) == 2
    assert generation.usage.output_tokens < 3 * bench.long[1]
    assert engine.progress() == {}
    assert answer_of(5) in engine.generate(own(5)).text


@continuing
@pytest.mark.parametrize("is_heard", [True, False])
def test_progress_counts_the_tokens_of_all_answers(engine: Engine, is_heard: bool) -> None:
    with ThreadPoolExecutor(1) as threads:
        on_delta = list[Delta]().append if is_heard else None
        running = threads.submit(engine.generate, several(free(max_tokens=300, request_id="counted"), 4), on_delta)
        until(lambda: engine.progress().get("counted", Progress(0)).tokens > 40)
        before = engine.progress()["counted"]
        engine.abort("counted")
        generation = running.result(SOON_S)
    assert before.tokens <= generation.usage.output_tokens <= 1200


@continuing
@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.9])
def test_a_prefix_is_continued_and_counted(engine: Engine, share: float) -> None:
    assert engine.continues
    whole = engine.generate(free())
    assert (whole.finish_reason, whole.usage.output_tokens) == ("length", 60)
    prefix, pieces = whole.text[: 1 + int(share * len(whole.text))], list[str]()

    heard = engine.generate(free(prefix), into(pieces))
    unheard = engine.generate(free(prefix))

    assert heard.text == prefix + "".join(pieces) != prefix
    for generation in (heard, unheard):
        assert generation.text.startswith(prefix)
        assert generation.usage.prompt_tokens == whole.usage.prompt_tokens >= generation.usage.cached_tokens
        assert (generation.finish_reason, generation.usage.output_tokens) == ("length", 60)


@continuing
def test_a_prefix_that_takes_all_tokens_is_the_whole_answer(engine: Engine) -> None:
    prefix, pieces = engine.generate(free()).text, list[str]()

    generation = engine.generate(free(prefix, max_tokens=5), into(pieces))

    assert (generation.text, pieces) == (prefix, [])
    assert (generation.finish_reason, generation.usage.output_tokens) == ("length", 5)


@continuing
def test_abort_of_a_continued_call_keeps_the_prefix(engine: Engine) -> None:
    prefix, pieces, first_piece = engine.generate(free()).text, list[str](), threading.Event()

    def on_delta(piece: Delta) -> None:
        pieces.append(piece.text)
        first_piece.set()

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(engine.generate, free(prefix, 900, "continued"), on_delta)
        assert first_piece.wait(SOON_S)
        engine.abort("continued")
        generation = running.result(SOON_S)

    assert generation.finish_reason == "abort"
    assert generation.text == prefix + "".join(pieces)
    assert 60 < generation.usage.output_tokens < 900


def test_a_prompt_that_never_fits_is_rejected(engine: Engine) -> None:
    request = GenerationRequest("long", (Message("user", "word " * 6000),), Sampling(8))
    with pytest.raises(PromptRejected):
        engine.generate(request)
    engine.check()


def test_abort_ends_a_running_call_and_the_engine_goes_on(bench: Bench, engine: Engine) -> None:
    pieces: list[str] = []
    with ThreadPoolExecutor(1) as threads:
        running = begin(bench, threads, "aborted", pieces)
        engine.abort("aborted")
        bench.let_go()
        generation = running.result(SOON_S)
    assert generation.finish_reason == "abort"
    assert generation.usage.prompt_tokens > 0
    assert generation.usage.output_tokens < bench.long[1]
    assert generation.text.startswith("".join(pieces))
    assert answer_of(5) in engine.generate(own(5)).text


def test_abort_reaches_a_call_that_is_not_listened_to(bench: Bench, engine: Engine) -> None:
    with ThreadPoolExecutor(2) as threads:
        running = threads.submit(engine.generate, long(bench, "silent"))
        until(lambda: "silent" in engine.progress())
        other = begin(bench, threads, "listened to")
        for request_id in ("silent", "listened to"):
            engine.abort(request_id)
        bench.let_go()
        assert running.result(SOON_S).finish_reason == "abort"
        assert other.result(SOON_S).finish_reason == "abort"


def test_progress_names_what_runs_and_nothing_else(bench: Bench, engine: Engine) -> None:
    assert engine.progress() == {}
    with ThreadPoolExecutor(2) as threads:
        running = [begin(bench, threads, f"named-{i}") for i in range(2)]
        until(lambda: set(engine.progress()) == {"named-0", "named-1"})
        engine.abort("named-0")
        engine.abort("named-1")
        bench.let_go()
        for each in running:
            each.result(SOON_S)
    assert engine.progress() == {}


@continuing
@pytest.mark.parametrize("is_heard", [True, False])
def test_progress_counts_the_tokens_of_an_answer_with_its_prefix(engine: Engine, is_heard: bool) -> None:
    prefix = engine.generate(free()).text
    with ThreadPoolExecutor(1) as threads:
        on_delta = list[Delta]().append if is_heard else None
        running = threads.submit(engine.generate, free(prefix, 900, "counted"), on_delta)
        until(lambda: engine.progress().get("counted", Progress(0)).tokens > 63)
        before = engine.progress()["counted"]
        engine.abort("counted")
        generation = running.result(SOON_S)
    assert 63 < before.tokens <= generation.usage.output_tokens < 900
    assert before.preemptions == generation.preemptions == 0


def test_stats_say_what_runs_and_that_nothing_does(bench: Bench, engine: Engine) -> None:
    until(lambda: engine.stats().running == 0)
    before = engine.stats()
    with ThreadPoolExecutor(2) as threads:
        running = [begin(bench, threads, f"seen-{i}") for i in range(2)]
        until(lambda: engine.stats().running == 2)
        during = engine.stats()
        for i in range(2):
            engine.abort(f"seen-{i}")
        bench.let_go()
        for each in running:
            each.result(SOON_S)
    until(lambda: engine.stats().running == 0)
    after = engine.stats()
    assert (before.waiting, during.waiting, after.waiting) == (0, 0, 0)
    for then, now in ((before, during), (during, after)):
        assert all(earlier <= later for earlier, later in zip(totals(then), totals(now), strict=True))
    if engine.start().kv_tokens is None:
        assert before.kv_use is during.kv_use is after.kv_use is None
    else:
        assert before.kv_use == after.kv_use == 0.0 < (during.kv_use or 0.0) <= 1.0


@continuing
def test_stats_count_tokens_steps_and_first_tokens(engine: Engine) -> None:
    before = engine.stats()
    requests = [free(request_id=f"counted-{i}") for i in range(3)]
    with ThreadPoolExecutor(3) as threads:
        usages = [each.usage for each in threads.map(engine.generate, requests)]
    until(lambda: engine.stats().output_tokens == before.output_tokens + sum(each.output_tokens for each in usages))
    after = engine.stats()
    assert after.prompt_tokens - before.prompt_tokens == sum(each.prompt_tokens for each in usages)
    assert after.first_tokens - before.first_tokens == 3
    assert 0 < after.first_token_s - before.first_token_s < 3 * SOON_S
    assert after.preemptions == before.preemptions
    steps = after.steps - before.steps
    assert steps >= 60
    assert 0 < after.running_sum - before.running_sum <= 3 * steps
    assert 0 < after.kv_use_sum - before.kv_use_sum <= steps


def test_abort_of_an_unknown_request_is_ignored(engine: Engine) -> None:
    engine.abort("nobody")
    engine.check()


@with_a_core
def test_log_probabilities_need_no_compiler(engine: Engine) -> None:
    measured = replace(free(), sampling=replace(free().sampling, top_logprobs=1))
    assert len(engine.generate(measured).logprobs or ()) == 60


@with_a_core
def test_a_core_that_is_killed_fails_its_calls_and_start_replaces_it(bench: Bench, engine: Engine) -> None:
    core = core_pid(engine)
    with ThreadPoolExecutor(4) as threads:
        running = [begin(bench, threads, f"lost-{i}") for i in range(4)]
        os.kill(core, signal.SIGKILL)
        for call in running:
            with pytest.raises(EngineCrash) as crash:
                call.result(SOON_S)
            assert crash.value.made_tokens > 0
    before = engine.stats()
    with pytest.raises(EngineUnavailable):
        engine.check()
    assert (engine.stats().running, engine.stats().kv_use) == (0, 0.0)
    engine.start()
    assert core_pid(engine) != core
    after = engine.generate(own(6))
    assert answer_of(6) in after.text
    until(lambda: engine.stats().output_tokens - before.output_tokens >= after.usage.output_tokens)
    assert all(now >= then for now, then in zip(totals(engine.stats()), totals(before), strict=True))
    # vLLM's own metrics are there, once, and those of the new core.
    names = {"model_name": "tests/tiny-llama", "engine": "0"}
    made = after.usage.output_tokens
    until(lambda: REGISTRY.get_sample_value("vllm:generation_tokens_total", names) == made)
    assert generate_latest().count(b"# TYPE vllm:num_requests_running gauge") == 1


@with_a_core
def test_check_finds_a_core_that_hangs_and_fails_its_calls(bench: Bench, engine: Engine) -> None:
    import psutil  # Comes with vLLM.

    core = psutil.Process(core_pid(engine))
    with ThreadPoolExecutor(1) as threads:
        running = begin(bench, threads, "hung")
        core.suspend()
        with pytest.raises(EngineUnavailable):
            engine.check()
        with pytest.raises(EngineCrash) as crash:
            running.result(SOON_S)
        assert crash.value.made_tokens > 0
    _, alive = psutil.wait_procs([core], timeout=SOON_S)
    assert not alive


def test_after_stop_nothing_is_answered(engine: Engine) -> None:
    engine.stop()
    engine.stop()
    with pytest.raises(EngineUnavailable):
        engine.generate(own(7))
    with pytest.raises(EngineUnavailable):
        engine.check()
    engine.abort("own-7")


def totals(stats: EngineStats) -> tuple[float, ...]:
    """All that must never go back."""
    return (
        stats.steps,
        stats.running_sum,
        stats.kv_use_sum,
        stats.prompt_tokens,
        stats.output_tokens,
        stats.preemptions,
        stats.first_tokens,
        stats.first_token_s,
    )


def core_pid(engine: Any) -> int:
    return int(engine._core._llm.engine_core.resources.engine_manager.processes[0].pid)


def sampled(extra: dict[str, Any], max_tokens: int = 20) -> GenerationRequest:
    return replace(free(request_id="extra"), sampling=Sampling(max_tokens, temperature=0.0, extra=extra))


@with_a_core
def test_extra_sampling_parameters_reach_vllm(engine: Engine) -> None:
    always = {"logit_bias": {"42": 100.0}}
    made = engine.generate(sampled({**always, "ignore_eos": True}))
    assert (made.usage.output_tokens, made.finish_reason) == (20, "length")
    ended = engine.generate(sampled({**always, "stop_token_ids": [42]}))
    assert (ended.usage.output_tokens, ended.finish_reason) == (1, "stop")
    later = engine.generate(sampled({**always, "stop_token_ids": [42], "min_tokens": 5, "ignore_eos": True}))
    assert later.usage.output_tokens == 6
    every = {"top_k": 3, "min_p": 0.1, "repetition_penalty": 1.2, "presence_penalty": 0.5, "frequency_penalty": 0.5}
    told = engine.generate(sampled({**every, "skip_special_tokens": False, "chat_template_kwargs": {"a": 1}}))
    assert told.usage.output_tokens >= 1


@with_a_core
@pytest.mark.parametrize("extra", [{"logit_bias": {"99999999": 1.0}}, {"stop_token_ids": [99_999_999]}])
def test_a_token_that_the_model_does_not_have_harms_no_other_request(engine: Engine, extra: dict[str, Any]) -> None:
    with pytest.raises(PromptRejected, match="out-of-vocab"):
        engine.generate(sampled(extra))
    assert engine.generate(sampled({"ignore_eos": True})).usage.output_tokens == 20


@with_a_core
def test_the_tokens_of_a_prefix_count_towards_those_that_an_answer_must_have(engine: Engine) -> None:
    whole = engine.generate(sampled({"ignore_eos": True}))
    rest = sampled({"ignore_eos": True, "min_tokens": 20})
    assert engine.generate(replace(rest, prefix=whole.text[:20])).usage.output_tokens == 20


@continuing
def test_a_plain_prompt_is_continued_as_it_is(engine: Engine) -> None:
    prompts = [plain_text("The quick brown fox"), plain_tokens([5, 6, 7])]
    text, ids = (engine.generate(replace(sampled({"ignore_eos": True}), messages=(each,))) for each in prompts)
    chat = engine.generate(replace(sampled({"ignore_eos": True}), messages=(Message("user", "The quick brown fox"),)))
    assert (ids.usage.prompt_tokens, ids.usage.output_tokens) == (3, 20)
    assert 0 < text.usage.prompt_tokens < chat.usage.prompt_tokens


@with_a_core
def test_token_ids_that_the_model_does_not_have_harm_no_other_request(engine: Engine) -> None:
    with pytest.raises(PromptRejected, match="out of vocabulary"):
        engine.generate(replace(sampled({}), messages=(plain_tokens([5, 99_999_999]),)))
    assert engine.generate(sampled({"ignore_eos": True})).usage.output_tokens == 20


@with_a_core
def test_the_prefix_cache_tells_no_app_what_another_asked(engine: Engine) -> None:
    secret = Message("user", "The password of the wheel is " + "water " * 60)

    def cached(salt: str | None, message: Message = secret, **changes: Any) -> int:
        asked = GenerationRequest("asked", (message,), Sampling(4, temperature=0.0), cache_salt=salt, **changes)
        usage = engine.generate(asked).usage
        assert usage.prompt_tokens > BLOCK_TOKENS
        return usage.cached_tokens

    assert cached("app-a") == 0
    assert cached("app-a") >= BLOCK_TOKENS, "its own repeat is served from the cache"
    assert cached("app-a", prefix="An") >= BLOCK_TOKENS, "and so is an attempt that goes on"
    assert cached("app-b") == 0, "the same words of another app"
    assert cached(None) == 0, "Headrace's own requests, and apps that share"
    assert cached(None) >= BLOCK_TOKENS, "apps that share find each other's"
    assert cached("app-b", Message("user", secret.content + "?")) >= BLOCK_TOKENS, "each app has a cache of its own"
