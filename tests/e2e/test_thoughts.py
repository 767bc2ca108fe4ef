"""Thoughts and log probabilities over the whole stack: what a reader has heard is what Postgres holds."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import openai
import pytest

from headrace.domain.ids import parse_id

THOUGHTS, WORDS, LEASE_S = 20, 12, 3
LOGPROBS: Any = ["message.output_text.logprobs"]


@dataclass(eq=False)
class Heard:
    """What one reader of `/v1/responses` got, begun anew where the stream said so."""

    thought: str = ""
    text: str = ""
    tokens: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    restarts: int = 0
    final: Any = None


@pytest.fixture(scope="module")
def system(start: Callable[..., Any]) -> Any:
    """Two seconds of thought, and one of words."""
    return start(
        simulator__reasoning_tokens=str(THOUGHTS),
        simulator__output_tokens=str(WORDS),
        simulator__decode_tokens_per_s="10",
        lease_s=str(LEASE_S),
        drain_s="1",
    )


@pytest.fixture
def client(system: Any) -> Any:
    report = system.stack.report
    with openai.OpenAI(base_url=f"{report.url}/v1", api_key=report.api_key, max_retries=0) as client:
        yield client


def ask(client: Any, heard: Heard, **asked: Any) -> Heard:
    for event in client.responses.create(input="What is a headrace?", stream=True, background=True, **asked):
        heard.numbers.append(event.sequence_number)
        match event.type:
            case "response.reasoning_text.delta":
                heard.thought += event.delta
            case "response.output_text.delta":
                heard.text += event.delta
                heard.tokens += [token.token for token in event.logprobs]
            case "error":
                assert event.code == "stream_restarted"
                heard.thought = heard.text = ""
                heard.restarts += 1
            case "response.completed":
                heard.final = event.response
    return heard


def test_what_is_heard_is_what_is_stored_and_charged(system: Any, client: Any) -> None:
    heard = ask(client, Heard(), include=LOGPROBS, top_logprobs=3)

    job = system.ended(heard.final.id)
    assert (job["reasoning"], job["text"]) == (heard.thought, heard.text)
    assert len(heard.thought.split()) == THOUGHTS
    assert [token["token"] for token in job["logprobs"]] == heard.tokens
    assert "".join(heard.tokens) == heard.text
    assert {len(token["top_logprobs"]) for token in job["logprobs"]} == {3}
    assert [item.type for item in heard.final.output] == ["reasoning", "message"]
    assert (job["usage"]["reasoning_tokens"], job["usage"]["output_tokens"]) == (THOUGHTS, THOUGHTS + WORDS)
    (entry,) = system.sql("SELECT output_tokens FROM ledger WHERE job_id = %s", parse_id(heard.final.id))
    assert entry["output_tokens"] == THOUGHTS + WORDS


def test_a_chat_tells_the_thoughts_first(system: Any, client: Any) -> None:
    messages: Any = [{"role": "user", "content": "What is a headrace?"}]
    told = client.chat.completions.create(
        model=system.stack.report.model, messages=messages, stream=True, logprobs=True, max_completion_tokens=25
    )
    choices = [chunk.choices[0] for chunk in told]
    thoughts = [choice.delta.reasoning for choice in choices if "reasoning" in choice.delta.model_extra]
    text = "".join(choice.delta.content or "" for choice in choices)
    assert len("".join(thoughts).split()) == THOUGHTS
    assert "".join(token.token for each in choices if each.logprobs for token in each.logprobs.content) == text
    assert choices[-1].finish_reason == "length"


def test_who_asks_for_no_effort_gets_no_thoughts(system: Any, client: Any) -> None:
    done = client.responses.create(input="What is a headrace?", reasoning={"effort": "none"})
    assert ([item.type for item in done.output], done.reasoning.effort) == (["message"], "none")
    assert (done.usage.output_tokens_details.reasoning_tokens, done.usage.output_tokens) == (0, WORDS)

    messages: Any = [{"role": "user", "content": "What is a headrace?"}]
    told = client.chat.completions.create(model=system.stack.report.model, messages=messages, reasoning_effort="none")
    assert (told.choices[0].message.reasoning, told.choices[0].message.content) == (None, done.output_text)


def test_thoughts_that_die_with_their_worker_are_thought_again(
    system: Any, client: Any, wait_until: Callable[..., None]
) -> None:
    heard = Heard()
    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(ask, client, heard)
        wait_until(lambda: len(heard.thought.split()) > 3, "it thinks")
        system.stack.kill("gpu")
        reading.result()

    job = system.ended(heard.final.id)
    assert (job["status"], job["attempts"], heard.restarts) == ("succeeded", 2, 1)
    assert (job["reasoning"], job["text"]) == (heard.thought, heard.text)
    # One by one, but for gaps before and after the event by which the second attempt begins anew.
    assert heard.numbers == sorted(set(heard.numbers))
    assert sum(after - before > 1 for before, after in pairwise(heard.numbers)) == 2
    resumed = client.responses.retrieve(heard.final.id, stream=True, starting_after=heard.numbers[5])
    assert [event.sequence_number for event in resumed] == heard.numbers[6:]
