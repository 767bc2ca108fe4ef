"""A run over the lines of a file, beside an API that answers as the test says."""

import threading
import time
from collections.abc import Iterable
from typing import Any, cast

import click
import pytest

from headrace.cli.client import Api, ApiRefused, NoAnswer, TryLater
from headrace.cli.submit import submit_file as running
from headrace.cli.submit.prompt_files import PromptLine, PromptOutcome
from headrace.cli.submit.submit_file import Pause, Stopped, SubmitRun, SubmitTerms


class ScriptedApi:
    """Answers each prompt with itself in capitals.

    Attributes:
        refusals: by prompt, what its submits meet first, one after the other.
        ends: by prompt, the error with which its job ends.
        at_once: the most jobs that were under way at once.
        held: jobs end once it is set.
    """

    def __init__(self) -> None:
        self.refusals: dict[str, list[ApiRefused | NoAnswer]] = {}
        self.ends: dict[str, dict[str, str]] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.submits: list[tuple[str, float]] = []
        self.bodies: dict[str, dict[str, Any]] = {}
        self.at_once, self._open = 0, 0
        self.held = threading.Event()
        self.held.set()
        self._turn = threading.Lock()

    def call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        if method == "POST":
            return self._submitted(arguments["json"], arguments["headers"]["Idempotency-Key"])
        job = self.jobs[path.removeprefix("/v1/jobs/")]
        if not self.held.wait(0.05):
            return {**job, "status": "running"}
        with self._turn:
            self._open -= 1
        return job

    def _submitted(self, body: dict[str, Any], key: str) -> dict[str, Any]:
        prompt = body["prompt"]
        with self._turn:
            self.submits.append((prompt, time.monotonic()))
            if waiting := self.refusals.get(prompt):
                raise waiting.pop(0)
            self._open += 1
            self.at_once = max(self.at_once, self._open)
            self.bodies[key] = body
            error = self.ends.get(prompt)
            status = "succeeded"
            if error:
                status = error["code"] if error["code"] in ("expired", "cancelled") else "failed"
            text = None if error else prompt.upper()
            shown = None if error and error["code"] == "cancelled" else error
            usage, cost = {"total_tokens": 7}, {"usd": "0.000001"}
            job = {"id": key, "status": status, "text": text, "error": shown, "usage": usage, "cost": cost}
            if key in self.jobs:
                return self.jobs[key]
            self.jobs[key] = job
            return {**job, "status": "queued"}


def full(after_s: float) -> TryLater:
    return TryLater(f"Queue chat.normal is full. Retry after {after_s} s.", after_s, code="queue_full")


@pytest.fixture
def api() -> ScriptedApi:
    return ScriptedApi()


def line(number: int, prompt: str) -> PromptLine:
    return PromptLine(number, prompt, {"prompt": prompt})


def terms(at_once: int = 2, tries: int = 0, origin: str = "a", **fields: object) -> SubmitTerms:
    return SubmitTerms(fields, origin, lambda number: tries, at_once)


def run(api: ScriptedApi, lines: Iterable[PromptLine], given: SubmitTerms | None = None) -> list[PromptOutcome | Pause]:
    return list(SubmitRun(cast(Api, api), iter(lines), given or terms()).news())


def outcomes(news: Iterable[PromptOutcome | Pause]) -> dict[int, tuple[str | None, str | None]]:
    """By line, the text and the error's code."""
    ended = [each for each in news if isinstance(each, PromptOutcome)]
    return {each.line.number: ((each.job or {}).get("text"), (each.error or {}).get("code")) for each in ended}


def test_every_line_gets_its_own_answer_and_so_many_are_under_way_at_once(api: ScriptedApi) -> None:
    lines = [line(number, f"p{number}") for number in range(1, 41)]
    found = outcomes(run(api, lines, terms(at_once=4)))
    assert found == {number: (f"P{number}", None) for number in range(1, 41)}
    assert 1 <= api.at_once <= 4


def test_a_line_says_what_it_wants_and_options_hold_for_the_rest(api: ScriptedApi) -> None:
    run(api, [PromptLine(1, "x", {"prompt": "a", "lane": "high"}), line(2, "b")], terms(lane="batch", max_tokens=5))
    assert sorted((body["prompt"], body["lane"], body["max_tokens"]) for body in api.bodies.values()) == [
        ("a", "high", 5),
        ("b", "batch", 5),
    ]


def test_a_key_is_the_same_for_the_same_line_try_and_files_alone() -> None:
    given = terms().key(line(1, "a"))
    assert given == terms().key(line(1, "a"))
    others = (
        terms().key(line(2, "a")),
        terms().key(line(1, "b")),
        terms(tries=1).key(line(1, "a")),
        terms(origin="b").key(line(1, "a")),
        terms(lane="low").key(line(1, "a")),
    )
    assert len({given, *others}) == 6


def test_nothing_is_submitted_before_the_api_says_so(api: ScriptedApi) -> None:
    api.refusals["a"] = [full(0.3), full(0.2)]
    news = run(api, [line(1, "a"), line(2, "b"), line(3, "c"), line(4, "d")], terms(at_once=1))

    assert outcomes(news) == {1: ("A", None), 2: ("B", None), 3: ("C", None), 4: ("D", None)}
    assert [each.seconds for each in news if isinstance(each, Pause)] == [0.3, 0.2]
    at = [at for prompt, at in api.submits if prompt == "a"]
    assert (at[1] - at[0] >= 0.3, at[2] - at[1] >= 0.2) == (True, True)


def test_a_pause_holds_for_all_threads(api: ScriptedApi) -> None:
    api.refusals["a"] = [full(0.5)]
    lines = [line(1, "a"), *(line(number, f"p{number}") for number in range(2, 60))]
    run(api, lines, terms(at_once=3))
    refused_at = next(at for prompt, at in api.submits if prompt == "a")
    # Two other threads may have been on their way when the refusal came.
    early = [prompt for prompt, at in api.submits if refused_at < at < refused_at + 0.45]
    assert len(early) <= 4, early


def test_a_queue_without_a_time_is_asked_again_and_then_given_up(
    api: ScriptedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "LONG_PAUSE_S", 0.01)
    never = [ApiRefused("Full. Do not retry soon.", 429, "queue_full") for _ in range(50)]
    api.refusals = {"a": never[:2], "b": never[2:]}
    assert outcomes(run(api, [line(1, "a"), line(2, "b")])) == {1: ("A", None), 2: (None, "queue_full")}
    assert len([prompt for prompt, _ in api.submits if prompt == "b"]) == 1 + running.LONG_PAUSES


def test_a_server_that_is_away_for_a_while_is_waited_for(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "AWAY_S", 0.01)
    api.refusals["a"] = [
        NoAnswer("No answer."),
        ApiRefused("It answered 502.", 502),
        TryLater("Postgres does not answer.", 0.01, 503, "store_unavailable"),
        TryLater("The first request is under way.", 0.01, 409, "idempotency_in_progress"),
    ]
    news = run(api, [line(1, "a")])
    assert outcomes(news) == {1: ("A", None)}
    assert [each.why for each in news if isinstance(each, Pause)] == [
        *("No answer.", "It answered 502.", "Postgres does not answer.", "The first request is under way.")
    ]


def test_a_server_that_stays_away_ends_the_run(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "AWAY_S", 0.01)
    monkeypatch.setattr(running, "PATIENCE_S", 0.05)
    api.refusals["a"] = [NoAnswer("No answer.") for _ in range(1000)]
    with pytest.raises(NoAnswer):
        run(api, [line(1, "a"), line(2, "b")])


@pytest.mark.parametrize(("status", "code"), [(400, "invalid_value"), (422, "idempotency_key_reused"), (500, None)])
def test_a_refused_line_stops_no_other(api: ScriptedApi, status: int, code: str | None) -> None:
    api.refusals["a"] = [ApiRefused("No.", status, code)]
    unreadable = PromptLine(3, "x", None, "It is not JSON.")
    assert outcomes(run(api, [line(1, "a"), line(2, "b"), unreadable])) == {
        1: (None, code or "500"),
        2: ("B", None),
        3: (None, "unreadable"),
    }


@pytest.mark.parametrize("code", ["invalid_api_key", "scope_not_allowed", "budget_exceeded"])
def test_what_meets_every_line_ends_the_run(api: ScriptedApi, code: str) -> None:
    api.refusals["a"] = [ApiRefused("No.", 429 if code == "budget_exceeded" else 401, code)]
    with pytest.raises(click.ClickException, match="No"):
        run(api, [line(1, "a"), *(line(number, "b") for number in range(2, 1000))])
    assert len(api.submits) < 1000


def test_a_job_that_ends_without_an_answer_says_what_to_do(api: ScriptedApi) -> None:
    api.ends = {"a": {"code": "expired", "message": "Too late."}, "b": {"code": "cancelled", "message": ""}}
    api.ends["c"] = {"code": "engine_fault", "message": "The engine failed."}
    news = run(api, [line(1, "a"), line(2, "b"), line(3, "c")])
    errors = {each.line.number: (each.error or {})["message"] for each in news if isinstance(each, PromptOutcome)}
    assert errors == {
        1: "Too late. Give it longer with --max-wait, or use --lane batch.",
        2: "It has no answer. The same command submits it again.",
        3: "The engine failed.",
    }


def test_a_stopped_run_submits_nothing_more_and_keeps_what_has_come(api: ScriptedApi) -> None:
    given = SubmitRun(cast(Api, api), (line(number, f"p{number}") for number in range(1, 10_000)), terms())
    kept = []

    def follow() -> None:
        for each in given.news():
            kept.append(each)
            if len(kept) == 3:
                given.stop()

    with pytest.raises(Stopped):
        follow()
    assert 3 <= len(kept) <= len(api.submits) < 9_999


def test_a_line_whose_earlier_job_has_no_answer_is_tried_again_where_no_results_are_kept(api: ScriptedApi) -> None:
    """Results that are printed are not remembered: each run begins with the first try."""
    api.ends["a"] = {"code": "engine_fault", "message": "The engine failed."}
    for _ in range(2):
        assert outcomes(run(api, [line(1, "a")])) == {1: (None, "engine_fault")}
    del api.ends["a"]
    assert outcomes(run(api, [line(1, "a")])) == {1: ("A", None)}
    assert outcomes(run(api, [line(1, "a")])) == {1: ("A", None)}
    assert len(api.jobs) == 3
