import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from headrace.config import PoolSettings, Settings, SimulatorSettings
from headrace.domain.prompts import Message, Sampling
from headrace.errors import ConfigError, EngineCrash, EngineFault, EngineUnavailable, PromptRejected
from headrace.policies.tokens import EstimatingTokenizer
from workers.engines import load
from workers.engines.base import Delta, GenerationRequest
from workers.engines.simulator.answer import LABEL, REFUSAL, fingerprint
from workers.engines.simulator.engine import SimulatorEngine

FAST = {"prefill_tokens_per_s": 1e6, "decode_tokens_per_s": 1e5}


def started(max_running: int = 8, **settings: Any) -> SimulatorEngine:
    pool = PoolSettings(max_model_tokens=10_000, max_running=max_running)
    engine = SimulatorEngine(SimulatorSettings(**{**FAST, **settings}), pool, EstimatingTokenizer())
    engine.start()
    return engine


def ask(request_id: str = "r", text: str = "hello", priority: int = 0, **sampling: Any) -> GenerationRequest:
    return GenerationRequest(
        request_id, (Message("user", text),), Sampling(**{"max_tokens": 100, **sampling}), priority
    )


def test_an_answer_is_labelled_and_the_same_each_time() -> None:
    engine = started()
    request = ask()
    generation = engine.generate(request)
    assert generation.text == engine.generate(request).text
    assert generation.text.startswith(f"{LABEL}{fingerprint(request.messages)} water falls")
    assert "simulator" in generation.model_served


@pytest.mark.parametrize("max_tokens", [1, 5, 24, 100])
def test_the_label_and_the_fingerprint_fit_every_limit(max_tokens: int) -> None:
    request = ask(max_tokens=max_tokens)
    generation = started(output_tokens=24).generate(request)
    assert generation.text.startswith(LABEL + fingerprint(request.messages))
    assert generation.usage.output_tokens == min(max_tokens, 24)
    assert generation.finish_reason == ("length" if max_tokens < 24 else "stop")


def test_a_stop_string_never_cuts_the_label() -> None:
    generation = started().generate(ask(stop=("[simulated] ", *"0123456789abcdef")))
    assert generation.text == LABEL
    assert generation.finish_reason == "stop"


@pytest.mark.parametrize("sampling", [{}, {"max_tokens": 5}, {"stop": ("wheel",)}])
def test_an_answer_is_continued_at_the_very_character(sampling: dict[str, Any]) -> None:
    engine = started()
    request = ask(**sampling)
    whole = engine.generate(request)
    for at in range(len(whole.text) + 1):
        pieces: list[Delta] = []
        heard = engine.generate(replace(request, prefix=whole.text[:at]), pieces.append)
        assert "".join(piece.text for piece in pieces) == whole.text[at:]
        assert heard == engine.generate(replace(request, prefix=whole.text[:at])) == whole


def test_what_is_given_is_read_and_not_decoded_again() -> None:
    engine = started(decode_tokens_per_s=4, output_tokens=40)
    request = ask()
    whole = started(output_tokens=40).generate(request).text
    began = time.monotonic()
    engine.generate(replace(request, prefix=whole[: whole.rfind(" ")]))
    assert time.monotonic() - began < 5, "the whole of it takes ten seconds"


def test_an_answer_takes_the_time_of_its_tokens() -> None:
    engine = started(prefill_tokens_per_s=50, decode_tokens_per_s=100, output_tokens=20)
    request = ask()
    expected = EstimatingTokenizer().count(request.messages) / 50 + 20 / 100
    for on_delta in (None, [].append):
        began = time.monotonic()
        engine.generate(request, on_delta)
        assert time.monotonic() - began >= expected


def test_a_batch_has_no_more_requests_than_it_may() -> None:
    engine = started(max_running=2, decode_tokens_per_s=100, output_tokens=10)
    began = time.monotonic()
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(engine.generate, [ask(str(i)) for i in range(6)]))
    assert time.monotonic() - began >= 3 * 10 / 100


def test_requests_wait_for_blocks_and_get_them_back() -> None:
    # 3 prompt tokens and 13 of output are one block; the pool has two.
    engine = started(kv_tokens=39, kv_block_tokens=16, decode_tokens_per_s=100, output_tokens=13)
    assert EstimatingTokenizer().count(ask().messages) == 3
    assert engine.start().kv_tokens == 32
    began = time.monotonic()
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(engine.generate, [ask(str(i)) for i in range(6)]))
    assert time.monotonic() - began >= 3 * 13 / 100


def test_an_adapter_answers_under_its_name_and_an_unknown_one_is_rejected() -> None:
    pool = PoolSettings(adapters={"sql": "folder"})
    engine = SimulatorEngine(SimulatorSettings(), pool, EstimatingTokenizer())
    engine.start()
    assert engine.generate(replace(ask(), adapter="sql")).model_served == "simulator of sql"
    with pytest.raises(PromptRejected, match="'gone'"):
        engine.generate(replace(ask(), adapter="gone"))


def test_what_can_never_fit_is_rejected() -> None:
    # Three blocks of 16 would be needed, and two and a half are there.
    with pytest.raises(PromptRejected):
        started(kv_tokens=40, output_tokens=1).generate(ask(text="x" * 140))
    with pytest.raises(PromptRejected):
        started(kv_tokens=64).generate(ask(text="x" * 1000))
    with pytest.raises(PromptRejected):
        started().generate(ask(text="x" * 100_000))


def test_the_best_priority_waits_least() -> None:
    engine = started(max_running=1, decode_tokens_per_s=10, output_tokens=1000)
    order: list[str] = []
    with ThreadPoolExecutor(3) as threads:
        blocker_runs = threading.Event()
        blocker = threads.submit(engine.generate, ask("blocker", max_tokens=900), lambda _: blocker_runs.set())
        assert blocker_runs.wait(30)
        for name, priority in (("low", 2), ("high", 0)):
            threads.submit(
                engine.generate, ask(name, priority=priority, max_tokens=1), lambda _, n=name: order.append(n)
            )
            wait_until(lambda n=name: n in engine._calls)
        engine.abort("blocker")
        assert blocker.result(30).finish_reason == "abort"
    assert order == ["high", "low"]


def test_an_abort_also_reaches_a_request_that_waits() -> None:
    engine = started(max_running=1, decode_tokens_per_s=10, output_tokens=100)
    with ThreadPoolExecutor(2) as threads:
        first_runs = threading.Event()
        first = threads.submit(engine.generate, ask("first"), lambda _: first_runs.set())
        assert first_runs.wait(30)
        second = threads.submit(engine.generate, ask("second"))
        wait_until(lambda: "second" in engine._calls)
        engine.abort("second")
        generation = second.result(30)
        assert (generation.finish_reason, generation.text, generation.usage.output_tokens) == ("abort", "", 0)
        engine.abort("first")
        assert first.result(30).finish_reason == "abort"
    assert engine.generate(ask("third", max_tokens=1)).finish_reason == "length"


@pytest.mark.parametrize(("fault", "expected"), [("fault", EngineFault), ("reject", PromptRejected)])
def test_every_nth_request_meets_the_fault(fault: Any, expected: type[Exception]) -> None:
    engine = started(fault=fault, fault_every=3)
    for i in range(1, 10):
        if i % 3 == 0:
            with pytest.raises(expected):
                engine.generate(ask())
        else:
            engine.generate(ask())
    engine.check()


def test_a_poison_prompt_kills_the_engine_each_time_and_says_how_far_the_others_were() -> None:
    engine = started(poison="hemlock", decode_tokens_per_s=50, output_tokens=10_000)
    with ThreadPoolExecutor(1) as threads:
        neighbour = threads.submit(engine.generate, ask("harmless", max_tokens=200))
        wait_until(lambda: any(each.tokens > 1 for each in engine.progress().values()))
        with pytest.raises(EngineCrash) as crash:
            engine.generate(ask(text="a cup of hemlock"))
        assert crash.value.made_tokens == 0
        with pytest.raises(EngineCrash) as crash:
            neighbour.result(30)
        assert crash.value.made_tokens > 1
    engine.start()
    with pytest.raises(EngineCrash):
        engine.generate(ask(text="a cup of hemlock"))
    engine.start()
    assert engine.generate(ask("harmless", max_tokens=1)).text


def test_a_death_fails_all_that_run_until_the_next_start() -> None:
    engine = started(max_running=2, fault="die", fault_every=4, decode_tokens_per_s=1)
    with ThreadPoolExecutor(3) as threads:
        running = [threads.submit(engine.generate, ask(str(i))) for i in range(3)]
        wait_until(lambda: len(engine._calls) == 3)
        with pytest.raises(EngineUnavailable):
            engine.generate(ask("fatal"))
        for call in running:
            with pytest.raises(EngineUnavailable):
                call.result(30)
    with pytest.raises(EngineUnavailable):
        engine.check()
    with pytest.raises(EngineUnavailable):
        engine.generate(ask())
    engine.start()
    engine.check()
    assert engine.generate(ask(max_tokens=1)).text


def test_stop_lets_running_requests_end() -> None:
    engine = started(decode_tokens_per_s=100, output_tokens=20)
    with ThreadPoolExecutor(1) as threads:
        runs = threading.Event()
        call = threads.submit(engine.generate, ask(), lambda _: runs.set())
        assert runs.wait(30)
        engine.stop()
        assert call.done() or call.result(1).finish_reason == "stop"
    assert call.result().usage.output_tokens == 20


def test_loading_takes_its_time_and_can_be_stopped() -> None:
    engine = SimulatorEngine(SimulatorSettings(load_s=0.2), PoolSettings(), EstimatingTokenizer())
    began = time.monotonic()
    engine.start()
    assert time.monotonic() - began >= 0.2
    slow = SimulatorEngine(SimulatorSettings(load_s=60), PoolSettings(), EstimatingTokenizer())
    with ThreadPoolExecutor(1) as threads:
        starting = threads.submit(slow.start)
        wait_until(starting.running)
        with pytest.raises(EngineUnavailable):
            slow.check()
        while not starting.done():
            slow.stop()
        with pytest.raises(EngineUnavailable):
            starting.result(30)


def test_stats_say_what_runs_waits_and_is_held_and_what_was_made() -> None:
    # 3 prompt tokens and 93 of output are six of the eight blocks.
    engine = started(kv_tokens=128, kv_block_tokens=16, decode_tokens_per_s=50, output_tokens=1000)
    with ThreadPoolExecutor(2) as threads:
        runs = threading.Event()
        first = threads.submit(engine.generate, ask("first", max_tokens=93), lambda _: runs.set())
        assert runs.wait(30)
        second = threads.submit(engine.generate, ask("second", max_tokens=93))
        wait_until(lambda: engine.stats().waiting == 1)
        wait_until(lambda: engine.stats().steps > 2)
        busy = engine.stats()
        for name in ("second", "first"):
            engine.abort(name)
        made = [call.result(30).usage.output_tokens for call in (first, second)]
    assert (busy.running, busy.kv_use, busy.prompt_tokens, busy.preemptions) == (1, 0.75, 3, 0)
    assert busy.running_sum == busy.steps
    assert busy.kv_use_sum == pytest.approx(0.75 * busy.steps)
    assert 0 < busy.output_tokens <= 1 + sum(made)
    assert busy.first_tokens == 1
    assert 1 / 50 <= busy.first_token_s < 5
    after = engine.stats()
    assert (after.running, after.waiting, after.kv_use) == (0, 0, 0.0)
    assert after.output_tokens >= busy.output_tokens


def test_a_token_is_counted_once_and_one_that_was_given_not_at_all() -> None:
    engine = started()
    request = ask()
    whole = engine.generate(request)
    assert engine.stats().output_tokens == whole.usage.output_tokens
    before = engine.stats()
    engine.generate(replace(request, prefix=whole.text[: whole.text.rfind(" ") + 1]), lambda _: None)
    after = engine.stats()
    assert after.output_tokens - before.output_tokens == 1
    assert after.prompt_tokens - before.prompt_tokens == whole.usage.prompt_tokens + whole.usage.output_tokens - 1
    assert (before.first_tokens, after.first_tokens) == (1, 2)
    engine.generate(replace(request, prefix=whole.text))
    assert engine.stats().output_tokens == after.output_tokens
    assert engine.stats().first_tokens == 2


def test_totals_outlive_a_death() -> None:
    engine = started(fault="die", fault_every=2)
    made = engine.generate(ask()).usage.output_tokens
    with pytest.raises(EngineUnavailable):
        engine.generate(ask())
    assert (engine.stats().running, engine.stats().output_tokens) == (0, made)
    engine.start()
    engine.generate(ask())
    assert engine.stats().output_tokens == 2 * made


def test_engines_are_made_by_name() -> None:
    assert load("simulator", Settings(), PoolSettings(engine="simulator")).name == "simulator"
    with pytest.raises(ConfigError, match="abacus"):
        load("abacus", Settings(), PoolSettings())


def wait_until(condition: Any, deadline_s: float = 5.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end
        threading.Event().wait(0.002)


def test_what_is_thought_comes_before_the_answer_and_counts_as_output() -> None:
    engine = started(reasoning_tokens=5, output_tokens=6)
    deltas: list[Delta] = []
    generation = engine.generate(ask(top_logprobs=1), deltas.append)
    plain = started(output_tokens=6).generate(ask(top_logprobs=1))

    assert (generation.text, generation.logprobs) == (plain.text, plain.logprobs)
    assert generation.reasoning == "".join(delta.reasoning for delta in deltas) == "wheel a turns and headrace "
    assert [bool(delta.reasoning) for delta in deltas] == [True] * 5 + [False] * 6
    assert (generation.usage.reasoning_tokens, generation.usage.output_tokens) == (5, 11)


@pytest.mark.parametrize(("max_tokens", "thought", "answered"), [(3, 3, 0), (5, 5, 0), (7, 5, 2)])
def test_what_is_thought_is_bounded_like_the_answer(max_tokens: int, thought: int, answered: int) -> None:
    generation = started(reasoning_tokens=5, output_tokens=6).generate(ask(max_tokens=max_tokens))
    assert generation.finish_reason == "length"
    assert (generation.usage.reasoning_tokens, generation.usage.output_tokens) == (thought, thought + answered)
    assert bool(generation.text) is bool(answered)


@pytest.mark.parametrize(("effort", "thought"), [("none", 0), ("minimal", 5), (None, 5)])
def test_nothing_is_thought_where_no_effort_is_asked_for(effort: str | None, thought: int) -> None:
    generation = started(reasoning_tokens=5, output_tokens=6).generate(ask(reasoning_effort=effort))
    assert (generation.usage.reasoning_tokens, generation.usage.output_tokens) == (thought, thought + 6)
    assert generation.text == started(output_tokens=6).generate(ask()).text


def test_behind_a_prefix_nothing_is_thought_again() -> None:
    whole = started(output_tokens=6).generate(ask())
    engine = started(reasoning_tokens=5, output_tokens=6)
    assert engine.generate(replace(ask(), prefix=whole.text[:20])) == whole


@pytest.mark.parametrize(
    ("extra", "tokens", "reason"),
    [
        ({"min_tokens": 10}, 24, "stop"),
        ({"min_tokens": 40}, 40, "stop"),
        ({"ignore_eos": True}, 100, "length"),
        ({"top_k": 3}, 24, "stop"),
    ],
)
def test_an_answer_is_as_long_as_vllm_would_make_it(extra: dict[str, Any], tokens: int, reason: str) -> None:
    generation = started(output_tokens=24).generate(ask(extra=extra))
    assert (generation.usage.output_tokens, generation.finish_reason) == (tokens, reason)


def test_nothing_is_thought_where_the_template_is_told_so() -> None:
    engine = started(reasoning_tokens=3)
    assert engine.generate(ask()).reasoning
    assert not engine.generate(ask(extra={"chat_template_kwargs": {"enable_thinking": False}})).reasoning


def test_a_prompt_with_the_given_text_is_declined() -> None:
    engine = started(declines="hemlock")
    generation = engine.generate(ask(text="How much hemlock?"))
    assert generation.text == f"{LABEL}{REFUSAL}"
    assert (generation.finish_reason, generation.usage.output_tokens) == ("stop", len(REFUSAL.split()))
    assert REFUSAL not in engine.generate(ask(text="How much water?")).text
    cut = engine.generate(ask(text="hemlock", max_tokens=2))
    assert (cut.text, cut.finish_reason) == (f"{LABEL}I'm sorry,", "length")


def test_an_answer_of_which_the_model_is_unsure_has_low_log_probabilities() -> None:
    engine = started(unsure="maybe")
    for text, best in (("maybe", -4.0), ("surely", -1.0)):
        logprobs = engine.generate(ask(text=text, top_logprobs=2)).logprobs
        assert logprobs is not None
        assert {each["logprob"] for each in logprobs} == {best}
        assert [each["logprob"] for each in logprobs[0]["top_logprobs"]] == [best, 2 * best]


SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "degrees": {"type": "integer"}}}
OF_SCHEMA = {"type": "json_schema", "json_schema": {"name": "weather", "schema": SCHEMA}}


def test_an_answer_in_a_schema_is_whole_streamed_and_the_same_for_a_seed() -> None:
    engine, request = started(output_tokens=2), ask(response_format=OF_SCHEMA)
    pieces: list[Delta] = []

    generation = engine.generate(request, pieces.append)

    assert set(json.loads(generation.text)) == {"city", "degrees"}
    assert "".join(piece.text for piece in pieces) == generation.text
    assert len(pieces) == generation.usage.output_tokens > 5
    assert (generation.finish_reason, engine.generate(request).text) == ("stop", generation.text)
    texts = {engine.generate(ask(response_format=OF_SCHEMA, seed=seed)).text for seed in range(9)}
    assert len(texts) > 1


@pytest.mark.parametrize("max_tokens", [1, 4])
def test_an_answer_in_a_schema_that_is_too_long_is_cut(max_tokens: int) -> None:
    generation = started().generate(ask(response_format=OF_SCHEMA, max_tokens=max_tokens))
    assert (generation.finish_reason, generation.usage.output_tokens) == ("length", max_tokens)
    assert generation.text.startswith('{"')


def test_any_object_says_that_it_is_simulated() -> None:
    request = ask(response_format={"type": "json_object"})
    made = json.loads(started().generate(request).text)
    assert (made["simulated"], made["fingerprint"]) == (True, fingerprint(request.messages))


@pytest.mark.parametrize(("stop", "text"), [("}", '{"a": 1'), ("{", "")])
def test_a_stop_string_ends_json_too(stop: str, text: str) -> None:
    schema = {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}
    response_format = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    generation = started().generate(ask(response_format=response_format, stop=(stop,)))
    assert (generation.text, generation.finish_reason) == (text, "stop")


def test_a_refusal_is_no_json() -> None:
    generation = started(declines="hello").generate(ask(response_format=OF_SCHEMA))
    assert generation.text == f"{LABEL}{REFUSAL}"


def test_a_schema_that_cannot_guide_rejects_the_prompt() -> None:
    response_format = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"not": {}}}}
    with pytest.raises(PromptRejected, match="not"):
        started().generate(ask(response_format=response_format))
