"""A stream in the terminal, beside an API that breaks it off."""

from collections.abc import Iterator
from typing import Any, cast

import click
import pytest
from click.testing import CliRunner

from headrace.cli.client import Api, NoAnswer
from headrace.cli.submit import submit as streaming
from headrace.cli.submit.submit import WatchedStream, request, stream, submit

BEGIN = {"type": "response.created", "sequence_number": 0, "response": {"id": "resp_1"}}
END = {"type": "response.completed", "sequence_number": 9, "response": {"id": "resp_1"}}
LOST = {"type": "error", "code": "stream_interrupted", "message": "", "param": None, "sequence_number": 5}
RESTARTED = {"type": "error", "code": "stream_restarted", "message": "", "param": None, "sequence_number": 6}
JOB = {
    "id": "job_1",
    "status": "succeeded",
    "text": "Hi there",
    "error": None,
    "queue": "chat.normal",
    "engine": "simulator",
    "wait_s": 0.5,
    "run_s": 1.0,
    "usage": {"prompt_tokens": 3, "output_tokens": 2},
    "cost": {"usd": "0.1"},
}


def delta(number: int, text: str, kind: str = "output_text") -> dict[str, Any]:
    return {"type": f"response.{kind}.delta", "sequence_number": number, "delta": text}


class BrokenStreams:
    """Gives one list of events for each request; an exception in it breaks the connection."""

    def __init__(self, *parts: list[dict[str, Any] | Exception], job: dict[str, Any] = JOB) -> None:
        self._parts, self._job = list(parts), job
        self.asked: list[tuple[str, Any]] = []

    def events(self, method: str, path: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        self.asked.append((f"{method} {path}", arguments.get("params")))
        for each in self._parts.pop(0) if self._parts else []:
            if isinstance(each, Exception):
                raise each
            yield each

    def call(self, method: str, path: str) -> dict[str, Any]:
        return self._job


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "PAUSE_S", 0.0)


def shown(api: BrokenStreams, *, as_json: bool = False) -> None:
    stream(cast(Api, api), "Hi", {}, as_json)


def test_the_text_comes_alone_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    thought = [delta(4, "Well.", "reasoning_text"), {"type": "response.reasoning_text.done", "sequence_number": 5}]
    shown(BrokenStreams([BEGIN, *thought, delta(6, "Hi "), delta(7, "[b]there"), END]))
    printed = capsys.readouterr()
    assert printed.out == "Hi [b]there\n"
    assert "Well." in printed.err
    assert "3 + 2 tokens  0.1 USD" in printed.err


@pytest.mark.parametrize("break_off", [[NoAnswer("Cut.")], [LOST], []])
def test_a_stream_that_breaks_off_is_taken_up_after_the_last_event(
    break_off: list[dict[str, Any] | Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    api = BrokenStreams([BEGIN, delta(5, "Hi "), *break_off], [delta(6, "there"), END])
    shown(api)
    assert capsys.readouterr().out == "Hi there\n"
    after = {"stream": "true", "starting_after": 5}
    assert api.asked == [("POST /v1/responses", None), ("GET /v1/responses/resp_1", after)]


def test_an_answer_that_begins_anew_is_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    shown(BrokenStreams([BEGIN, delta(5, "Ho"), RESTARTED, delta(7, "Hi"), END]))
    printed = capsys.readouterr()
    assert printed.out == "Ho\nHi\n"
    assert "The answer begins anew" in printed.err


def test_a_stream_that_always_breaks_off_ends_with_the_id() -> None:
    with pytest.raises(click.ClickException, match="'headrace get resp_1' shows it"):
        shown(BrokenStreams([BEGIN]))


def test_a_server_that_is_away_from_the_beginning_is_told_of_at_once() -> None:
    api = BrokenStreams([NoAnswer("No answer from there.")])
    with pytest.raises(NoAnswer):
        shown(api)
    assert len(api.asked) == 1


def test_a_job_without_an_answer_says_why() -> None:
    error = {"code": "expired", "message": "It could not start."}
    api = BrokenStreams([BEGIN, END], job={**JOB, "text": None, "status": "expired", "error": error})
    with pytest.raises(click.ClickException, match="job_1 expired: It could not start"):
        shown(api)


def test_events_for_a_program_are_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    shown(BrokenStreams([BEGIN, delta(5, "é"), END]), as_json=True)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert '"delta": "é"' in lines[1]


def test_the_options_of_a_job_have_their_places_in_a_response() -> None:
    options = {"lane": "high", "max_wait": 5.0, "max_tokens": 9, "reasoning_effort": "low", "temperature": 0.5}
    assert request("Hi", options) == {
        "input": "Hi",
        "stream": True,
        "background": True,
        "job": {"lane": "high", "max_wait": 5.0},
        "max_output_tokens": 9,
        "reasoning": {"effort": "low"},
        "temperature": 0.5,
    }


def test_a_delayed_start_is_passed_on_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    start = "2030-01-01T00:00:00Z"
    asked: list[Any] = []

    class Accepting:
        def call(self, *_: str, json: Any) -> dict[str, Any]:
            asked.append(json)
            delayed = {"status": "waiting", "position": None, "depth": None, "expected_wait_s": None}
            return {"id": "job_1", "queue": "chat.normal", "start_by": start, **delayed}

    monkeypatch.setattr(streaming, "open_api", Accepting)
    shown = CliRunner().invoke(submit, ["Hi", "--not-before", start])
    assert (shown.exit_code, shown.output.strip()) == (0, f"job_1  chat.normal  waiting, to start by {start}")
    assert asked == [{"prompt": "Hi", "not_before": start}]


def test_every_event_comes_once() -> None:
    watched = WatchedStream(cast(Api, BrokenStreams([BEGIN, delta(5, "a")], [delta(6, "b"), END])), {})
    assert [event["sequence_number"] for event in watched.events()] == [0, 5, 6, 9]
