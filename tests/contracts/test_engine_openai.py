"""What the paid API may answer, over real HTTP, and what becomes of it."""

import gzip
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Literal

import pytest

from headrace.config import OverflowSettings, PoolSettings, Settings
from headrace.domain.answers import LEAST_LOGPROB
from headrace.domain.attempts import Usage
from headrace.domain.limits import ProviderRate
from headrace.domain.prompts import Message, Sampling
from headrace.domain.prompts.tools import ToolCall, ToolCallPiece, Tools
from headrace.errors import (
    ConfigError,
    EngineBusy,
    EngineError,
    EngineFault,
    EngineUnavailable,
    ModelUnavailable,
    PromptRejected,
)
from tests.contracts.conftest import StandIn
from workers.engines import load
from workers.engines.base import Delta, GenerationRequest
from workers.engines.openai.engine import OpenAIEngine

MESSAGES = (Message("system", "Be brief."), Message("user", "hello"))
REQUEST = GenerationRequest("r1", MESSAGES, Sampling(max_tokens=16))


@contextmanager
def started(stand_in: Any, timeout_s: float) -> Iterator[OpenAIEngine]:
    stand_in.requests.clear()
    stand_in.script.clear()
    models = {"big": "gpt-5"}
    overflow = OverflowSettings(model="gpt-4o-mini", models=models, effort_models={"gpt-5"}, timeout_s=timeout_s)
    engine = OpenAIEngine(overflow, "sk-secret", stand_in.url)
    engine.start()
    yield engine
    engine.stop()


@pytest.fixture
def engine(stand_in: Any) -> Iterator[OpenAIEngine]:
    with started(stand_in, timeout_s=30.0) as engine:
        yield engine


@pytest.fixture
def impatient(stand_in: Any) -> Iterator[OpenAIEngine]:
    """An engine that gives an answer up after 1 s of silence."""
    with started(stand_in, timeout_s=1.0) as engine:
        yield engine


def test_the_request_says_what_was_asked_and_nothing_else(stand_in: Any, engine: OpenAIEngine) -> None:
    response_format = {"type": "json_object"}
    given = {"temperature": 0.5, "top_p": 0.9, "stop": ("x",), "seed": 3, "top_logprobs": 2, "reasoning_effort": "none"}
    sampling = Sampling(9, response_format=response_format, **given)
    engine.generate(GenerationRequest("r1", MESSAGES, sampling, model="big"))
    headers, body = stand_in.requests[0]
    assert headers["authorization"] == "Bearer sk-secret"
    assert body == {
        "model": "gpt-5",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}],
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["x"],
        "seed": 3,
        "response_format": {"type": "json_object"},
        "logprobs": True,
        "top_logprobs": 2,
        "reasoning_effort": "none",
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_a_model_that_has_no_effort_is_told_of_none(stand_in: Any, engine: OpenAIEngine) -> None:
    engine.generate(replace(REQUEST, sampling=replace(REQUEST.sampling, reasoning_effort="low")))
    assert "reasoning_effort" not in stand_in.requests[0][1]


def test_what_was_not_asked_for_is_left_to_the_provider(stand_in: Any, engine: OpenAIEngine) -> None:
    engine.generate(REQUEST)
    assert set(stand_in.requests[0][1]) == {"model", "messages", "max_tokens", "stream", "stream_options"}


@pytest.mark.parametrize("tier", ["default", "flex"])
def test_a_tier_is_asked_for_by_name_and_the_one_that_answered_is_told(
    stand_in: Any, engine: OpenAIEngine, tier: Literal["default", "flex"]
) -> None:
    generation = engine.generate(replace(REQUEST, tier=tier))
    assert stand_in.requests[0][1]["service_tier"] == tier
    assert generation.tier == "default", "as the provider says"


def test_a_call_of_the_tier_that_has_time_is_waited_for(stand_in: Any, impatient: OpenAIEngine) -> None:
    stand_in.hold()
    request = replace(REQUEST, messages=(Message("user", stand_in.HOLD),), tier="flex")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(impatient.generate, request)
        assert stand_in.held.wait(10)
        with pytest.raises(TimeoutError):
            answer.result(timeout=1.5)  # Others are given up after 1 s of silence.
        stand_in.release.set()
        assert answer.result().finish_reason == "stop"


@pytest.mark.parametrize(("asked", "sent"), [("big", "gpt-5"), ("small", "gpt-4o-mini"), (None, "gpt-4o-mini")])
def test_a_job_s_model_is_mapped(stand_in: Any, engine: OpenAIEngine, asked: str | None, sent: str) -> None:
    engine.generate(GenerationRequest("r1", MESSAGES, Sampling(16), model=asked))
    assert stand_in.requests[0][1]["model"] == sent


def test_usage_and_the_model_that_answered_are_the_provider_s(stand_in: Any, engine: OpenAIEngine) -> None:
    details = {"prompt_tokens_details": {"cached_tokens": 4}}
    stand_in.script = [(200, stand_in.completion("hi", prompt_tokens=11, completion_tokens=2, **details))]
    generation = engine.generate(REQUEST)
    assert generation.text == "hi"
    assert generation.usage == Usage(prompt_tokens=11, output_tokens=2, cached_tokens=4)
    assert generation.model_served == "gpt-4o-mini-2024-07-18"


def test_what_cannot_be_stored_is_replaced(stand_in: Any, engine: OpenAIEngine) -> None:
    stand_in.script = [(200, stand_in.completion("a\0b\ud800c"))]
    assert engine.generate(REQUEST).text == "a\ufffdb\ufffdc"


def test_a_compressed_answer_is_read_as_a_plain_one(stand_in: Any, engine: OpenAIEngine) -> None:
    answer = stand_in.events(stand_in.completion("hi, as ever"))
    stand_in.script = [(200, answer), (200, gzip.compress(answer), {"content-encoding": "gzip"})]
    assert [engine.generate(REQUEST).text for _ in range(2)] == ["hi, as ever"] * 2


def error(code: Any = None) -> dict[str, Any]:
    return {"error": {"message": "no", "type": code, "param": None, "code": code}}


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, "context_length_exceeded", PromptRejected),
        (413, None, PromptRejected),
        (422, None, PromptRejected),
        (401, "invalid_api_key", EngineUnavailable),
        (402, None, EngineUnavailable),
        (403, "unsupported_country_region_territory", EngineUnavailable),
        (403, "model_not_found", ModelUnavailable),
        (403, "permission_denied", ModelUnavailable),
        (403, 403, ModelUnavailable),
        (403, None, ModelUnavailable),
        (404, "model_not_found", ModelUnavailable),
        (404, None, ModelUnavailable),
        (429, "insufficient_quota", EngineUnavailable),
        (429, "rate_limit_exceeded", EngineBusy),
        (429, None, EngineBusy),
        (429, "credit_balance_exhausted", EngineUnavailable),
        (429, {"of": ["what nobody", "expects"]}, EngineBusy),
        (408, None, EngineFault),
        (500, None, EngineFault),
        (503, None, EngineFault),
    ],
)
def test_each_status_has_its_meaning_and_is_asked_once(
    stand_in: Any, engine: OpenAIEngine, status: int, code: Any, expected: type[Exception]
) -> None:
    stand_in.script = [(status, error(code))]
    with pytest.raises(expected) as caught:
        engine.generate(REQUEST)
    assert type(caught.value) is expected
    assert not caught.value.may_be_billed  # type: ignore[attr-defined]
    assert len(stand_in.requests) == 1


@pytest.mark.parametrize(
    ("status", "may_be_billed"), [(502, True), (504, True), (520, True), (521, False), (522, False), (524, True)]
)
def test_what_a_gateway_says_for_an_api_that_it_has_reached_may_be_on_the_bill(
    stand_in: Any, engine: OpenAIEngine, status: int, may_be_billed: bool
) -> None:
    stand_in.script = [(status, b"<html>")]
    with pytest.raises(EngineFault) as caught:
        engine.generate(REQUEST)
    assert caught.value.may_be_billed is may_be_billed


def test_words_about_the_account_stay_here(stand_in: Any, engine: OpenAIEngine) -> None:
    body = error("invalid_api_key")
    body["error"]["message"] = "Incorrect API key provided: sk-secret, of org-42"
    stand_in.script = [(401, body)]
    with pytest.raises(EngineUnavailable) as caught:
        engine.generate(REQUEST)
    assert "sk-" not in str(caught.value)
    assert "org-" not in str(caught.value)


def test_a_code_can_be_stored_whatever_it_is(stand_in: Any, engine: OpenAIEngine) -> None:
    stand_in.script = [(403, error("a\0b" + "c" * 100_000))]
    with pytest.raises(EngineUnavailable, match=r"403 \(a\ufffdbc+\)") as caught:
        engine.generate(REQUEST)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("status", "code", "kind", "cause"),
    [
        (500, "engine_overloaded", "server_error", "500 engine_overloaded"),
        (503, None, "server_error", "503 server_error"),
        (401, "invalid_api_key", "invalid_request_error", "401 invalid_api_key"),
        (400, "sk-Proj-1234", "hello there", "400"),
        (429, None, None, "429"),
    ],
)
def test_the_cause_of_an_error_is_its_status_and_code_and_none_of_its_words(
    stand_in: Any, engine: OpenAIEngine, status: int, code: Any, kind: Any, cause: str
) -> None:
    stand_in.script.append((status, {"error": {"message": "hello there", "type": kind, "param": None, "code": code}}))
    with pytest.raises(EngineError) as failed:
        engine.generate(REQUEST)
    assert failed.value.cause == cause


def test_a_connection_that_is_dropped_is_a_fault(stand_in: Any, engine: OpenAIEngine) -> None:
    stand_in.script = ["reset"]
    with pytest.raises(EngineFault) as caught:
        engine.generate(REQUEST)
    assert len(stand_in.requests) == 1
    assert caught.value.may_be_billed


def test_an_answer_that_does_not_come_in_time_is_a_fault(stand_in: Any, impatient: OpenAIEngine) -> None:
    stand_in.release.clear()
    with pytest.raises(EngineFault):
        impatient.generate(GenerationRequest("r1", (Message("user", stand_in.HOLD),), Sampling(16)))
    stand_in.release.set()


CHUNKS = StandIn.completion("one two three")


def counted(**counts: Any) -> bytes:
    """An answer that is whole, and says that it used so much."""
    return StandIn.events(StandIn.completion("one two three", **counts))


def test_each_piece_is_told_as_it_comes(stand_in: Any, engine: OpenAIEngine) -> None:
    stand_in.script = [(200, CHUNKS)]
    pieces: list[Delta] = []
    generation = engine.generate(REQUEST, pieces.append)
    assert [piece.text for piece in pieces] == ["one", " two", " three"]
    assert generation.text == "one two three"
    assert generation.first_token_s is not None


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_what_a_compatible_server_tells_of_its_thoughts_is_told(stand_in: Any, engine: OpenAIEngine, name: str) -> None:
    details = {"completion_tokens_details": {"reasoning_tokens": 2}}
    chunks = StandIn.completion("so it is", **details)
    for chunk, thought in zip(chunks[:2], ("Hm\0, ", "well: "), strict=True):
        chunk["choices"][0]["delta"] = {"role": "assistant", "content": None, name: thought}
    stand_in.script = [(200, chunks)]
    deltas: list[Delta] = []

    generation = engine.generate(REQUEST, deltas.append)

    assert (generation.reasoning, generation.text) == ("Hm\ufffd, well: ", " it is")
    assert [(delta.reasoning, delta.text) for delta in deltas[:3]] == [("Hm\ufffd, ", ""), ("well: ", ""), ("", " it")]
    assert generation.usage == Usage(7, 3, reasoning_tokens=2)


MEASURED = GenerationRequest("r1", MESSAGES, Sampling(16, top_logprobs=0))


def measured(*tokens: dict[str, Any]) -> list[dict[str, Any]]:
    """An answer whose first piece has these tokens."""
    chunks = StandIn.completion("one two")
    chunks[1]["choices"][0]["logprobs"] = {"content": list(tokens), "refusal": None}
    return chunks


def test_what_the_api_says_of_a_token_is_made_whole(stand_in: Any, engine: OpenAIEngine) -> None:
    # A part of a character has no text of its own, and a compatible server may be sparing with words.
    part = {"token": "\\xe2\\x80", "logprob": -1, "bytes": [226, 128], "top_logprobs": []}
    stand_in.script = [(200, measured(part, {"token": "one", "logprob": float("-inf"), "bytes": None}))]
    assert engine.generate(MEASURED).logprobs == (
        part,
        {"token": "one", "logprob": LEAST_LOGPROB, "bytes": list(b"one"), "top_logprobs": []},
    )


def test_an_api_that_says_nothing_of_its_tokens_is_no_fault(stand_in: Any, engine: OpenAIEngine) -> None:
    stand_in.script = [(200, StandIn.completion("one two"))]
    assert engine.generate(MEASURED).logprobs is None


@pytest.mark.parametrize("token", [{}, {"token": "a"}, {"token": "a", "logprob": None}, {"token": "a", "logprob": "b"}])
def test_a_malformed_token_is_a_fault_that_may_be_on_the_bill(
    stand_in: Any, engine: OpenAIEngine, token: dict[str, Any]
) -> None:
    stand_in.script = [(200, measured(token))]
    with pytest.raises(EngineFault) as caught:
        engine.generate(MEASURED)
    assert caught.value.may_be_billed


@pytest.mark.parametrize(
    "body",
    [
        b"data: not json\n\n",
        b"",
        b"data: [DONE]\n\n",
        b"data: {}\n\n",
        b"data: []\n\n",
        b"data: null\n\n",
        StandIn.events([{"choices": [{}], "usage": None}]),
        StandIn.events([{"error": {"message": "The server had an error", "type": "server_error"}}]),
        StandIn.events(CHUNKS[:-2]),
        StandIn.events(CHUNKS[:-1]),
        StandIn.events(CHUNKS[:2])[:-30],
        StandIn.events(CHUNKS)[:-200],
        b"data: " + b"[" * 100_000 + b"\n\n",
        counted(prompt_tokens=float("inf")),
        counted(prompt_tokens=-7),
        counted(completion_tokens=10**12),
    ],
    ids=[
        *("not JSON", "nothing", "the end alone", "an empty chunk", "a list", "null", "a choice without a delta"),
        *("an error", "without its end", "without usage", "cut in a chunk", "cut in the usage"),
        *("lists without end", "without a bound", "less than nothing", "more than can be"),
    ],
)
def test_a_stream_that_is_no_whole_answer_is_a_fault_that_may_be_on_the_bill(
    stand_in: Any, engine: OpenAIEngine, body: bytes
) -> None:
    stand_in.script = [(200, body)]
    with pytest.raises(EngineFault) as caught:
        engine.generate(REQUEST)
    assert caught.value.may_be_billed


def test_a_body_that_ends_early_is_a_fault_that_may_be_on_the_bill(stand_in: Any, engine: OpenAIEngine) -> None:
    raw = stand_in.events(CHUNKS)
    stand_in.script = [(200, raw[:-20], {"content-length": str(len(raw))})]
    with pytest.raises(EngineFault) as caught:
        engine.generate(REQUEST)
    assert caught.value.may_be_billed


@pytest.mark.parametrize(
    ("body", "headers"),
    [(b"5\r\ndata:\r\nmore\r\n", {"transfer-encoding": "chunked"}), (CHUNKS, {"x-long": "x" * 20_000})],
    ids=["a chunk without a size", "a header too long"],
)
def test_what_is_no_http_is_a_fault_that_may_be_on_the_bill(
    stand_in: Any, impatient: OpenAIEngine, body: Any, headers: dict[str, str]
) -> None:
    stand_in.script = [(200, body, headers)]
    with pytest.raises(EngineFault) as caught:
        impatient.generate(REQUEST)
    assert caught.value.may_be_billed


@pytest.mark.parametrize(("said", "known"), [(["flex"], None), ({"of": "what"}, None), ("a\0b", "a\ufffdb")])
def test_a_tier_and_a_model_are_text_that_can_be_stored_or_nothing(
    stand_in: Any, engine: OpenAIEngine, said: Any, known: str | None
) -> None:
    stand_in.script = [(200, [{**chunk, "service_tier": said, "model": said} for chunk in CHUNKS])]
    generation = engine.generate(REQUEST)
    assert (generation.tier, generation.model_served) == (known, known or "")


def test_no_more_was_cached_than_was_read(stand_in: Any, engine: OpenAIEngine) -> None:
    details = {"prompt_tokens_details": {"cached_tokens": 4000}}
    stand_in.script = [(200, stand_in.completion("hi", prompt_tokens=11, **details))]
    assert engine.generate(REQUEST).usage.cached_tokens == 11


def test_the_end_of_a_stream_needs_no_space(stand_in: Any, engine: OpenAIEngine) -> None:
    stand_in.script = [(200, stand_in.events(CHUNKS).replace(b"data: ", b"data:"))]
    assert engine.generate(REQUEST).text == "one two three"


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_lines_end_as_the_format_has_it(stand_in: Any, engine: OpenAIEngine, end: bytes) -> None:
    stand_in.script = [(200, stand_in.events(CHUNKS).replace(b"\n", end))]
    assert engine.generate(REQUEST).text == "one two three"


def test_what_breaks_a_line_of_text_breaks_no_chunk(stand_in: Any, engine: OpenAIEngine) -> None:
    # Servers that do not escape letters send these as they are.
    said = "one\u2028two\x85 three\u2029"
    lines = [f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n" for chunk in stand_in.completion(said)]
    stand_in.script = [(200, "".join(lines).encode())]
    assert engine.generate(REQUEST).text == said


def test_a_call_that_is_kept_alive_does_not_last_for_ever(
    stand_in: Any, impatient: OpenAIEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.engines.openai.engine._LONGEST", 0.2)
    stand_in.hold()
    with pytest.raises(EngineFault, match=": TimeoutError") as caught:
        impatient.generate(GenerationRequest("r1", (Message("user", stand_in.HOLD),), Sampling(16)))
    assert caught.value.may_be_billed
    stand_in.release.set()


@pytest.fixture
def busy_port() -> Iterator[int]:
    """A port on which connections are neither accepted nor refused."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, ExitStack() as callers:
        # The kernel holds a few beyond the backlog.
        for _ in range(4):
            caller = callers.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(server.getsockname())
        yield server.getsockname()[1]


@pytest.mark.parametrize("how", ["refused", "not accepted"])
def test_an_api_that_cannot_be_reached_bills_nothing(busy_port: int, how: str) -> None:
    port = busy_port if how == "not accepted" else 1
    engine = OpenAIEngine(OverflowSettings(timeout_s=1.0), "sk-secret", f"http://127.0.0.1:{port}/v1")
    engine.start()
    with pytest.raises(EngineFault) as caught:
        engine.generate(REQUEST)
    assert not caught.value.may_be_billed
    engine.stop()


def test_a_proxy_that_lets_nobody_through_bills_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Proxy(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            self.send_error(502)

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{server.server_port}")
        engine = OpenAIEngine(OverflowSettings(timeout_s=30.0), "sk-secret", "https://api.invalid/v1")
        engine.start()
        with pytest.raises(EngineFault) as caught:
            engine.generate(REQUEST)
        engine.stop()
        server.shutdown()
    assert not caught.value.may_be_billed


@pytest.mark.parametrize("finish_reason", ["tool_calls", "something new"])
def test_an_answer_without_a_proper_end_is_a_fault(stand_in: Any, engine: OpenAIEngine, finish_reason: str) -> None:
    stand_in.script = [(200, stand_in.completion("hi", finish_reason=finish_reason))]
    with pytest.raises(EngineFault) as caught:
        engine.generate(REQUEST)
    assert caught.value.may_be_billed


RATES = {
    "x-ratelimit-limit-requests": "500",
    "x-ratelimit-remaining-requests": "499",
    "x-ratelimit-reset-requests": "120ms",
}


def test_what_the_api_says_of_when_to_come_back_is_heard(stand_in: Any, engine: OpenAIEngine) -> None:
    stand_in.script = [(429, error("rate_limit_exceeded"), {"retry-after": "7", **RATES}), (429, error())]
    with pytest.raises(EngineBusy) as told:
        engine.generate(REQUEST)
    with pytest.raises(EngineBusy) as untold:
        engine.generate(REQUEST)
    assert (told.value.retry_after_s, untold.value.retry_after_s) == (7.0, None)
    assert told.value.rates is not None
    assert told.value.rates.requests == ProviderRate(500, 499, 0.12)
    assert untold.value.rates is not None, "that it said no just now is news"
    assert untold.value.rates.requests is None


def test_what_an_answer_says_is_left_is_heard(stand_in: Any, engine: OpenAIEngine) -> None:
    stand_in.script = [(200, CHUNKS, RATES), (200, stand_in.completion("cut")[:1], RATES)]
    before = time.monotonic()
    generation = engine.generate(REQUEST)
    assert generation.rates is not None
    assert generation.rates.requests == ProviderRate(500, 499, 0.12)
    assert before < generation.rates.said_at < time.monotonic()
    with pytest.raises(EngineFault) as caught:
        engine.generate(REQUEST)
    assert caught.value.rates is not None
    assert engine.generate(REQUEST).rates is None


def test_an_answer_that_is_withheld_is_a_rejection(stand_in: Any, engine: OpenAIEngine) -> None:
    stand_in.script = [(200, stand_in.completion(None, finish_reason="content_filter"))]
    with pytest.raises(PromptRejected) as caught:
        engine.generate(REQUEST)
    assert caught.value.may_be_billed


def test_what_came_is_counted(stand_in: Any, engine: OpenAIEngine) -> None:
    engine.generate(REQUEST)
    stats = engine.stats()
    assert (stats.running, stats.first_tokens, stats.output_tokens) == (0, 1, 4)
    assert stats.first_token_s > 0


def test_a_refusal_is_an_answer(stand_in: Any, engine: OpenAIEngine) -> None:
    answer = stand_in.completion("I will not.")
    for chunk in answer[:-2]:
        delta = chunk["choices"][0]["delta"]
        delta["refusal"] = delta.pop("content")
    stand_in.script = [(200, answer)]
    assert engine.generate(REQUEST).text == "I will not."


def test_the_engine_works_on_after_a_fault(stand_in: Any, engine: OpenAIEngine) -> None:
    stand_in.script = [(500, error())]
    with pytest.raises(EngineFault):
        engine.generate(REQUEST)
    engine.check()
    assert "hello" in engine.generate(REQUEST).text


def test_a_call_that_does_not_end_holds_up_no_worker_that_leaves(
    stand_in: Any, engine: OpenAIEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.engines.openai.engine._END_S", 0.1)
    stand_in.hold()
    request = replace(REQUEST, messages=(Message("user", stand_in.HOLD),), tier="flex")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(engine.generate, request)
        assert stand_in.held.wait(10)
        engine.stop()
        stand_in.release.set()
        with pytest.raises(EngineFault) as caught:
            answer.result(10)
    assert caught.value.may_be_billed


def test_without_a_key_it_does_not_start() -> None:
    engine = load("openai", Settings(openai_api_key=None), PoolSettings())
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        engine.start()


@pytest.mark.parametrize("key", ["sk-secret\n", "sk-sécret"])
def test_with_a_key_that_cannot_be_sent_it_does_not_start(key: str) -> None:
    engine = OpenAIEngine(OverflowSettings(), key, None)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY") as caught:
        engine.start()
    assert "cret" not in str(caught.value)


def test_it_is_told_who_speaks_and_the_extra_parameters_that_it_has(stand_in: Any, engine: OpenAIEngine) -> None:
    extra = {"presence_penalty": 0.5, "frequency_penalty": 0.0, "logit_bias": {"7": -1.0}, "top_k": -1, "min_p": 0.5}
    engine.generate(GenerationRequest("r1", (Message("user", "hello", "ann"),), Sampling(9, extra=extra)))
    _, body = stand_in.requests[0]
    assert body["messages"] == [{"role": "user", "content": "hello", "name": "ann"}]
    asked = {name: body[name] for name in extra if name in body}
    assert asked == {"presence_penalty": 0.5, "logit_bias": {"7": -1.0}}


TOOLS = Tools(({"name": "weather", "parameters": {"type": "object"}, "strict": True},), "required", parallel=False)
CALLED = (
    Message("user", "Hi"),
    Message("assistant", "", tool_calls=(ToolCall("call_1", "weather", "{}"),)),
    Message("tool", "rainy", tool_call_id="call_1"),
)


def test_tools_and_calls_are_sent_as_they_were_given(stand_in: Any, engine: OpenAIEngine) -> None:
    stand_in.script.append((200, stand_in.completion("Yes.")))
    engine.generate(GenerationRequest("r1", CALLED, Sampling(9, tools=TOOLS)))
    _, body = stand_in.requests[0]
    function = {"name": "weather", "parameters": {"type": "object"}, "strict": True}
    assert body["tools"] == [{"type": "function", "function": function}]
    assert (body["tool_choice"], body["parallel_tool_calls"]) == ("required", False)
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    assert body["messages"] == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "rainy", "tool_call_id": "call_1"},
    ]


def test_no_word_of_parallel_calls_is_sent_unless_they_are_refused(stand_in: Any, engine: OpenAIEngine) -> None:
    stand_in.script.append((200, stand_in.completion("Yes.")))
    engine.generate(
        replace(REQUEST, sampling=Sampling(9, tools=replace(TOOLS, choice="function", name="weather", parallel=True)))
    )
    _, body = stand_in.requests[0]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert "parallel_tool_calls" not in body


def test_calls_are_an_answer_without_text(stand_in: Any, engine: OpenAIEngine) -> None:
    *head, end, usage = stand_in.completion("")
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    head[-1]["choices"][0]["delta"] = {"tool_calls": [call]}
    end["choices"][0]["finish_reason"] = "tool_calls"
    stand_in.script.append((200, [*head, end, usage]))
    deltas: list[Delta] = []
    generation = engine.generate(replace(REQUEST, sampling=Sampling(9, tools=TOOLS)), deltas.append)
    assert (generation.text, generation.finish_reason) == ("", "tool_calls")
    assert generation.tool_calls == (ToolCall("call_1", "weather", "{}"),)
    assert [delta.tool_calls for delta in deltas] == [(ToolCallPiece(0, "call_1", "weather", "{}"),)]
