"""Open streams over faults: what a reader has heard at the end is what Postgres holds, whatever died meanwhile."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import openai
import pytest

STREAMS = 20
LEASE_S = 3


@dataclass(eq=False)
class Heard:
    """What one reader of `/v1/responses` got.

    Attributes:
        text: all deltas, begun anew where the stream said so.
        final: the response in the last event.
    """

    response_id: str = ""
    text: str = ""
    numbers: list[int] = field(default_factory=list)
    restarts: int = 0
    final: Any = None


@pytest.fixture(scope="module")
def system(start: Callable[..., Any]) -> Any:
    """Twenty answers at once, of 64 tokens in 8 s: time enough to see all run, and kill them."""
    return start(
        simulator__output_tokens="64",
        simulator__decode_tokens_per_s="8",
        pools__chat__max_running=str(STREAMS),
        lease_s=str(LEASE_S),
        drain_s="1",
    )


@pytest.fixture
def client(system: Any) -> Any:
    report = system.stack.report
    # A retry would hide a stream that broke.
    with openai.OpenAI(base_url=f"{report.url}/v1", api_key=report.api_key, max_retries=0) as client:
        yield client


def listen(events: Any, heard: Heard) -> Heard:
    """Read events to their end."""
    for event in events:
        heard.numbers.append(event.sequence_number)
        match event.type:
            case "response.created":
                heard.response_id = event.response.id
            case "response.output_text.delta":
                heard.text += event.delta
            case "error":
                assert event.code == "stream_restarted"
                heard.text, heard.restarts = "", heard.restarts + 1
            case "response.completed" | "response.failed" | "response.incomplete":
                heard.final = event.response
    return heard


def gaps(numbers: list[int]) -> int:
    """How often a number is not the next one. Each is larger than the one before."""
    assert numbers == sorted(set(numbers))
    return sum(after - before > 1 for before, after in pairwise(numbers))


def stored(system: Any, heard: Heard) -> dict[str, Any]:
    job: dict[str, Any] = system.http.get(f"/v1/jobs/{heard.response_id}").json()
    return job


def test_twenty_streams_outlive_the_death_of_their_engine(
    system: Any, client: Any, wait_until: Callable[..., None]
) -> None:
    heard = [Heard() for _ in range(STREAMS)]

    def ask(reader: Heard) -> Heard:
        number = heard.index(reader)
        events = client.responses.create(
            model=system.stack.report.model,
            input=f"Number {number}?",
            stream=True,
            extra_body={"job": {"max_wait": 60}},
        )
        return listen(events, reader)

    with ThreadPoolExecutor(STREAMS) as threads:
        reading = [threads.submit(ask, reader) for reader in heard]
        wait_until(lambda: all(len(reader.text) > 100 for reader in heard), "all have heard something")
        assert system.count("running") == STREAMS, "the kill would come too late"
        system.stack.kill("gpu")
        for each in reading:
            each.result()

    jobs = [stored(system, reader) for reader in heard]
    assert {(job["status"], job["attempts"]) for job in jobs} == {("succeeded", 2)}
    assert [reader.text for reader in heard] == [job["text"] for job in jobs]
    assert [reader.final.output_text for reader in heard] == [job["text"] for job in jobs]
    # One by one within an attempt; the second one's come after a gap.
    assert {(reader.numbers[0], gaps(reader.numbers)) for reader in heard} == {(0, 1)}
    # The second attempt went on from what was heard, and no reader was told to forget anything.
    assert {reader.restarts for reader in heard} == {0}
    assert {job["usage"]["output_tokens"] for job in jobs} == {64}


def test_a_stream_can_be_resumed_at_every_number(system: Any, client: Any) -> None:
    events = client.responses.create(
        model=system.stack.report.model, input="What is a headrace?", stream=True, background=True
    )
    whole = listen(events, Heard())
    assert whole.numbers[0] == 0
    assert whole.text == whole.final.output_text == stored(system, whole)["text"]

    for after in (0, 4, whole.numbers[len(whole.numbers) // 2], whole.numbers[-1]):
        resumed = client.responses.retrieve(whole.response_id, stream=True, starting_after=after)
        assert [event.sequence_number for event in resumed] == [number for number in whole.numbers if number > after]


def test_a_stream_goes_on_when_valkey_forgets_it(system: Any, client: Any, wait_until: Callable[..., None]) -> None:
    heard = Heard()

    def ask() -> Heard:
        return listen(client.responses.create(model=system.stack.report.model, input="Hm?", stream=True), heard)

    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(ask)
        wait_until(lambda: len(heard.text) > 100, "something was heard")
        system.redis.flushall()
        reading.result()

    assert heard.text == stored(system, heard)["text"]
    assert heard.numbers == sorted(set(heard.numbers))


def test_a_stream_whose_reader_is_gone_cancels_its_job(
    system: Any, client: Any, wait_until: Callable[..., None]
) -> None:
    with client.responses.create(model=system.stack.report.model, input="Hm?", stream=True) as events:
        response_id = next(iter(events)).response.id
        wait_until(lambda: system.count("running") == 1, "it runs")

    wait_until(lambda: stored(system, Heard(response_id))["status"] == "cancelled", "it is cancelled")


def test_a_background_job_outlives_the_reader_of_its_stream(system: Any, client: Any) -> None:
    with client.responses.create(model=system.stack.report.model, input="Hm?", stream=True, background=True) as events:
        response_id = next(iter(events)).response.id

    assert system.ended(response_id)["status"] == "succeeded"
