"""How far a batch is, as the terminal shows it, beside an API that answers as the test says."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import click
import pytest

from headrace.cli import client
from headrace.cli.client import Api, ApiRefused, NoAnswer, TryLater
from headrace.cli.submit.submit_file import Interrupted
from plugins.batches.commands import watching
from plugins.batches.commands.watching import BatchPace, LinesUnanswered, moment, report, watch
from tests.waiting import Clock

BATCH = f"batch_{'0' * 32}"
NOW = datetime.now(UTC)


def batch(status: str = "in_progress", completed: int = 0, failed: int = 0, **changes: Any) -> dict[str, Any]:
    """A batch of 100 lines."""
    job = {"usd": "0.5", "not_before": changes.pop("not_before", None)}
    return {
        "id": BATCH,
        "status": status,
        "request_counts": {"total": 100, "completed": completed, "failed": failed},
        "usage": {"total_tokens": 1234},
        "expires_at": (NOW + timedelta(days=1)).timestamp(),
        "errors": None,
        "error_file_id": None,
        "job": job,
        **changes,
    }


class ScriptedApi:
    """Answers one after the other. Attributes: failed: the lines of the error file."""

    def __init__(self, *answers: dict[str, Any] | BaseException, failed: list[dict[str, Any] | NoAnswer] = []) -> None:  # noqa: B006
        self._answers, self._failed = list(answers), failed
        self.asked: list[str] = []

    def call(self, method: str, path: str, **_: Any) -> dict[str, Any]:
        self.asked.append(f"{method} {path}")
        answer = self._answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def lines(self, path: str) -> Iterator[bytes]:
        self.asked.append(f"GET {path}")
        for each in self._failed:
            if isinstance(each, NoAnswer):
                raise each
            yield json.dumps(each).encode() + b"\n"


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (watching, client):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def sleeps(clock: Clock) -> list[float]:
    return clock.sleeps


def result(number: int, code: str, custom_id: str = "row") -> dict[str, Any]:
    body = {"error": {"code": code, "message": f"It is {code}."}}
    response = {"status_code": 400, "request_id": "req_1", "body": body}
    return {"id": f"batch_req_{'0' * 32}_{number}", "custom_id": custom_id, "response": response, "error": None}


def test_the_rate_is_that_of_the_last_minute() -> None:
    pace = BatchPace()
    assert (pace.lines_a_second, pace.left_s(10)) == (0.0, None)
    pace.note(0.0, 0)
    assert pace.lines_a_second == 0.0
    for second in range(1, 121):
        pace.note(float(second), 10 * second if second <= 60 else 600 + 2 * (second - 60))
    assert pace.lines_a_second == pytest.approx(2.0)
    assert pace.left_s(50) == pytest.approx(25.0)
    # Long polls are further apart than a minute.
    pace.note(1000.0, 720 + 880)
    assert pace.lines_a_second == pytest.approx(1.0)


def test_it_polls_until_the_end_and_tells_each_state_once(
    capsys: pytest.CaptureFixture[str], sleeps: list[float]
) -> None:
    total = {"request_counts": {"total": 0, "completed": 0, "failed": 0}}
    states = [batch("validating", **total), batch(), batch(completed=50, failed=1), batch("finalizing", 98, 2)]
    ended = watch(cast(Api, ScriptedApi(*states, last := batch("completed", 98, 2))), BATCH)

    told = capsys.readouterr()
    assert ended == last
    assert told.out == ""
    assert [line.split("  ", 1)[1] for line in told.err.splitlines()] == [
        "validating",
        "in_progress  0 of 100 lines",
        "finalizing  100 of 100 lines  2 failed",
    ]
    assert sleeps == [watching.FIRST_POLL_S] * 4


def test_the_line_has_the_rate_and_the_expected_end(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watching, "PRINT_EVERY_S", 0.0)
    moments = iter(range(0, 10_000, 10))
    clock.monotonic = lambda: float(next(moments))
    soon = {"expires_at": (datetime.now(UTC) + timedelta(seconds=1)).timestamp()}
    later = (NOW + timedelta(hours=30)).isoformat()
    answers = [batch(), batch(completed=30, failed=3), batch(completed=40, **soon), batch(not_before=later)]
    watch(cast(Api, ScriptedApi(*answers, batch("completed", 100))), BATCH)

    lines = capsys.readouterr().err.splitlines()
    assert "in_progress  33 of 100 lines  3 failed  1.1/s  ends about " in lines[1]
    assert "its window ends first, " in lines[2]
    assert lines[3].endswith(f"begins {moment(NOW + timedelta(hours=30))}")
    assert moment(NOW + timedelta(hours=30)) == f"{NOW + timedelta(hours=30):%m-%d %H:%M} UTC"


def test_an_api_that_is_away_is_waited_for_with_a_note(capsys: pytest.CaptureFixture[str], sleeps: list[float]) -> None:
    away = [TryLater("Too many calls.", 3.0), ApiRefused("Postgres is away.", 503), NoAnswer("No answer.")]
    watch(cast(Api, ScriptedApi(*away, batch("completed", 100))), BATCH)
    told = capsys.readouterr().err
    assert "Too many calls. Trying again in 3 s.\nPostgres is away. Trying again in 2 s.\n" in told
    assert sleeps == [3.0, 2.0, 2.0]


def test_ctrl_c_says_that_the_batch_goes_on() -> None:
    with pytest.raises(Interrupted) as stopped:
        watch(cast(Api, ScriptedApi(batch(), KeyboardInterrupt())), BATCH)
    assert stopped.value.exit_code == 130
    assert stopped.value.message == f"Stopped watching. The batch goes on: 'headrace batch watch {BATCH}'."


def test_a_watch_of_hours_polls_less_often(clock: Clock) -> None:
    moments = iter([0.0, 1.0, 1.0, 1.0, 600.0, 600.0, 600.0, 86_400.0, 86_400.0, 86_400.0, 86_401.0])
    clock.monotonic = lambda: next(moments)
    watch(cast(Api, ScriptedApi(batch(), batch(), batch(), batch("completed", 100))), BATCH)
    assert clock.sleeps == [1.0, 10.0, watching.LONGEST_POLL_S]


def test_a_whole_batch_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    report(cast(Api, ScriptedApi()), batch("completed", 100), as_json=False)
    told = capsys.readouterr()
    assert told.out == f"{BATCH}  completed  100 of 100 lines have an answer  1,234 tokens  0.5 USD\n"
    assert told.err == ""


def test_the_first_lines_without_an_answer_are_shown_with_their_codes(capsys: pytest.CaptureFixture[str]) -> None:
    never = {"id": f"batch_req_{'0' * 32}_9", "custom_id": "z" * 40, "response": None}
    never["error"] = {"code": "batch_expired", "message": "[red]Too late."}
    failed = [*(result(number, "context_length_exceeded") for number in range(1, 9)), never, result(10, "last")]
    api = ScriptedApi(failed=[*failed, result(11, "hidden")])
    with pytest.raises(LinesUnanswered) as raised:
        report(cast(Api, api), batch("completed", 80, 20, error_file_id="file-2"), as_json=False)

    told = capsys.readouterr().err
    rows = [line.split() for line in told.splitlines()]
    assert rows[1][:5] == ["1", "row", "context_length_exceeded", "It", "is"]
    assert f"9    {'z' * 23}…" in told
    assert "[red]Too late." in told
    assert "hidden" not in told
    assert f"10 more are not shown here: 'headrace batch results {BATCH} --errors' has all.\n" in told
    assert raised.value.exit_code == 1
    assert "20 lines have no answer: " in raised.value.message
    assert f"'headrace batch retry {BATCH}' runs them again" in raised.value.message


def test_an_error_file_that_cannot_be_read_is_noted(capsys: pytest.CaptureFixture[str]) -> None:
    api = ScriptedApi(failed=[result(1, "first"), NoAnswer("Cut.")])
    with pytest.raises(LinesUnanswered):
        report(cast(Api, api), batch("completed", 98, 2, error_file_id="file-2"), as_json=False)
    told = capsys.readouterr().err
    assert "The lines without an answer cannot be read: Cut." in told
    assert "first" in told


def test_a_file_that_is_no_batch_is_explained_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    errors = [
        {"code": "duplicate_custom_id", "line": 1234, "message": "The custom_id 'a' is that of an earlier line."},
        {"code": "too_many_tasks", "line": None, "message": "A batch may have 50000 lines here."},
    ]
    no_lines = {"request_counts": {"total": 0, "completed": 0, "failed": 0}}
    with pytest.raises(LinesUnanswered, match="The file is no batch: correct it"):
        report(cast(Api, ScriptedApi()), batch("failed", errors={"data": errors}, **no_lines), as_json=False)
    printed = capsys.readouterr()
    assert printed.out == f"{BATCH}  failed\n"
    told = printed.err
    assert "1,234 duplicate_custom_id The custom_id 'a' is that of an earlier line." in told
    assert "-     too_many_tasks" in told


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        ("expired", "Its window ended before 2 lines had an answer: "),
        ("cancelled", "It was cancelled, and 2 lines have no answer: "),
        ("completed", "2 lines have no answer: "),
    ],
)
def test_each_end_without_all_answers_says_what_to_do(status: str, remedy: str) -> None:
    with pytest.raises(LinesUnanswered) as raised:
        report(cast(Api, ScriptedApi()), batch(status, 98, 2), as_json=True)
    assert raised.value.message.startswith(remedy)
    assert f"headrace batch retry {BATCH}" in raised.value.message


def test_a_cancelled_batch_ends_badly_also_without_failed_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(click.ClickException):
        report(cast(Api, ScriptedApi()), batch("cancelled"), as_json=True)
    assert json.loads(capsys.readouterr().out)["status"] == "cancelled"
