"""Files of prompts, streams and screens of the terminal against a real HTTP server."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result

from headrace.cli import main
from headrace.domain.states import JobState
from headrace.store import Store
from headrace.tables import jobs
from tests.integration.terminals import Terminal
from tests.waiting import until

TEXT = "Because of Rayleigh scattering."
COMMAND = [sys.executable, "-c", "from headrace.cli import main; main()"]


@pytest.fixture
def environment(base_url: str, key: str) -> dict[str, str]:
    return {"HEADRACE_URL": base_url, "HEADRACE_API_KEY": key}


@pytest.fixture
def run(environment: dict[str, str]) -> Callable[..., Result]:
    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(each) for each in arguments], env=environment)

    return invoke


class Files:
    """A file of prompts, and one for its results."""

    def __init__(self, folder: Path) -> None:
        self.prompts, self.results = folder / "prompts.jsonl", folder / "results.jsonl"
        self.options = ("submit", "--file", str(self.prompts), "--output", str(self.results))

    def write(self, *lines: str) -> None:
        self.prompts.write_text("".join(f"{line}\n" for line in lines))

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.results.read_text().splitlines()]

    @property
    def num_results(self) -> int:
        return self.results.read_bytes().count(b"\n") if self.results.exists() else 0


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def queued(store: Store) -> Callable[[], list[Any]]:
    """The ids of the jobs that wait."""

    def look() -> list[Any]:
        with store.begin() as db:
            return list(db.scalars(sa.select(jobs.c.id).where(jobs.c.state == JobState.QUEUED).order_by(jobs.c.id)))

    return look


def num_jobs(store: Store) -> int:
    with store.begin() as db:
        return db.scalar(sa.select(sa.func.count()).select_from(jobs)) or 0


@pytest.mark.usefixtures("answering")
def test_results_come_with_their_lines_and_a_second_run_does_nothing_twice(
    run: Callable[..., Result], files: Files, store: Store
) -> None:
    files.write(
        '{"prompt": "One", "metadata": {"row": "17"}}', "", '"Two"', '{"messages": [{"role":"user","content":"3"}]}'
    )
    first = run(*files.options, "--lane", "batch", "--json")

    assert first.exit_code == 0, first.output
    assert {row["line"]: row["text"] for row in files.rows} == {1: TEXT, 3: TEXT, 4: TEXT}
    assert next(row for row in files.rows if row["line"] == 1)["metadata"] == {"row": "17"}
    assert {row["lane"] for row in files.rows} == {"batch"}
    told = json.loads(first.stdout)
    assert (told["lines"], told["answered"], told["without_answer"], told["left"]) == (3, 3, 0, 0)
    assert (told["tokens"], told["usd"]) == (48, "0.000003690")

    files.prompts.write_text(files.prompts.read_text() + '"Four"\n')
    again = run(*files.options, "--lane", "batch")
    assert again.exit_code == 0
    assert "4 of 4 lines have an answer, 3 from earlier runs." in again.stderr
    assert sorted(row["line"] for row in files.rows) == [1, 3, 4, 5]
    assert num_jobs(store) == 4


@pytest.mark.usefixtures("answering")
def test_without_an_output_results_go_to_standard_output(
    run: Callable[..., Result], files: Files, store: Store
) -> None:
    files.write('"One"', '"Two"')
    first, again = (run("submit", "--file", files.prompts) for _ in range(2))
    for printed in (first, again):
        rows = [json.loads(line) for line in printed.stdout.splitlines()]
        assert sorted((row["line"], row["text"]) for row in rows) == [(1, TEXT), (2, TEXT)]
    # The second run got the answers of the first one's jobs.
    assert num_jobs(store) == 2


def test_a_run_that_is_killed_loses_nothing_and_makes_no_job_twice(
    environment: dict[str, str],
    files: Files,
    store: Store,
    queued: Callable[[], list[Any]],
    finish: Callable[..., None],
    request: pytest.FixtureRequest,
) -> None:
    files.write(*(json.dumps(f"Prompt {number}") for number in range(30)))
    command = [*COMMAND, *files.options, "--at-once", "6"]
    with subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.PIPE) as process:  # noqa: TID251
        for job_id in _each_of(queued, 9):
            finish(job_id)
        until(lambda: files.num_results == 9 and len(queued()) == 6, "nine results, and six jobs under way")
        process.kill()
        process.communicate()
    # The kill met a result that was being written.
    whole = files.results.read_bytes()
    files.results.write_bytes(whole + whole.splitlines()[0][:40])
    assert num_jobs(store) == 15

    request.getfixturevalue("answering")
    again = CliRunner().invoke(main, [*files.options, "--at-once", "6"], env=environment)

    assert again.exit_code == 0, again.output
    assert "30 of 30 lines have an answer, 9 from earlier runs." in again.stderr
    assert sorted(row["line"] for row in files.rows) == list(range(1, 31))
    assert files.results.read_bytes().startswith(whole)
    assert num_jobs(store) == len({row["id"] for row in files.rows}) == 30


def _each_of(queued: Callable[[], list[Any]], number: int) -> Iterator[Any]:
    for _ in range(number):
        until(queued, "a job waits")
        yield queued()[0]


def test_ctrl_c_says_how_to_go_on_and_keeps_what_is_there(
    environment: dict[str, str],
    files: Files,
    store: Store,
    queued: Callable[[], list[Any]],
    finish: Callable[..., None],
    request: pytest.FixtureRequest,
) -> None:
    files.write(*(json.dumps(f"Prompt {number}") for number in range(5)))
    terminal = Terminal([*files.options, "--at-once", "2"], environment)
    try:
        for job_id in _each_of(queued, 3):
            finish(job_id)
        terminal.read_until("3/5")
        assert terminal.press(b"\x03") == 130
    finally:
        terminal.close()
    told = " ".join(terminal.text.split())
    assert "3 of 5 lines have an answer" in told
    assert "Stopped with 2 lines left. Jobs under way go on; the same command finds them." in told
    assert "Traceback" not in told
    assert files.num_results == 3

    request.getfixturevalue("answering")
    assert CliRunner().invoke(main, files.options, env=environment).exit_code == 0
    assert sorted(row["line"] for row in files.rows) == [1, 2, 3, 4, 5]
    assert num_jobs(store) == 5


@pytest.mark.usefixtures("answering")
def test_a_line_that_is_wrong_is_named_and_tried_again_once_it_is_right(
    run: Callable[..., Result], files: Files, store: Store
) -> None:
    files.write('"One"', "{bad", '{"prompt": "Three", "max_tokens": 0}', '{"prompt": ""}')
    first = run(*files.options)

    assert first.exit_code == 1
    assert "Line 2: unreadable: It is not JSON: Expecting property name" in first.stderr
    assert "Line 3: invalid_value: Invalid 'max_tokens'" in first.stderr
    assert "Line 4: invalid_value: Invalid 'prompt': it must not be empty." in first.stderr
    assert first.stderr.endswith("3 lines have no answer. Correct them; the same command tries them again.\n")
    assert {row["line"]: row["status"] for row in files.rows} == {
        1: "succeeded",
        **dict.fromkeys((2, 3, 4), "refused"),
    }

    files.write('"One"', '"Two"', '"Three"', '"Four"')
    assert run(*files.options).exit_code == 0
    assert sorted((row["line"], row["tries"], row["text"]) for row in files.rows) == [
        (1, 1, TEXT),
        (2, 2, TEXT),
        (3, 2, TEXT),
        (4, 2, TEXT),
    ]
    assert num_jobs(store) == 4


@pytest.mark.usefixtures("answering")
def test_a_line_that_changes_after_its_answer_is_not_taken_for_answered(
    run: Callable[..., Result], files: Files, store: Store
) -> None:
    files.write('"One"')
    assert run(*files.options).exit_code == 0
    files.write('"Another"')
    changed = run(*files.options)
    assert changed.exit_code == 1
    assert "has changed since" in changed.stderr
    assert "name another file with --output" in changed.stderr
    assert num_jobs(store) == 1


def test_a_job_that_failed_is_tried_again_as_another_job(
    run: Callable[..., Result], files: Files, store: Store, request: pytest.FixtureRequest
) -> None:
    files.write('{"prompt": "One", "max_wait": 0.1}')
    first = run(*files.options)
    assert first.exit_code == 1
    assert re.search(r"Line 1: expired: .* Give it longer with --max-wait, or use --lane batch\.", first.stderr)

    request.getfixturevalue("answering")
    files.write('{"prompt": "One"}')
    assert run(*files.options).exit_code == 0
    assert [(row["tries"], row["status"]) for row in files.rows] == [(2, "succeeded")]
    assert num_jobs(store) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Give a PROMPT, or --file FILE."),
        (("Hi", "--output", "x"), "--output and --at-once need --file."),
        (("Hi", "--wait", "--stream"), "Give --wait or --stream, not both."),
        (("Hi", "--file", __file__), "--file takes the place of PROMPT, --wait and --stream"),
        (("--file", __file__, "--output", __file__), "--output names the file of the prompts"),
        (("--file", os.devnull), "has no prompts: give one JSON object a line."),
    ],
)
def test_options_that_do_not_fit_are_explained(
    run: Callable[..., Result], arguments: tuple[str, ...], message: str
) -> None:
    result = run("submit", *arguments)
    assert result.exit_code != 0
    assert message in result.stderr


@pytest.mark.usefixtures("answering")
def test_a_stream_prints_the_answer_alone_to_standard_output(run: Callable[..., Result]) -> None:
    result = run("submit", "Hi", "--stream", "--lane", "high", "--max-tokens", "5")
    assert (result.exit_code, result.stdout) == (0, f"{TEXT}\n"), result.output
    assert "chat.high" in result.stderr
    events = [json.loads(line) for line in run("submit", "Hi", "--stream", "--json").stdout.splitlines()]
    assert [event["type"] for event in events][-1] == "response.completed"
    assert "".join(event.get("delta", "") for event in events) == TEXT


@pytest.mark.usefixtures("answering")
def test_a_stream_breaks_at_line_feeds_alone(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = ("One\u2028two", "\u2029three\x85", "four\x1efive")
    monkeypatch.setattr("tests.integration.api.conftest.PIECES", pieces)
    result = run("submit", "Hi", "--stream", "--json")
    assert result.exit_code == 0, result.output
    events = [json.loads(line) for line in result.stdout.rstrip("\n").split("\n")]
    assert "".join(event.get("delta", "") for event in events) == "".join(pieces)


def test_a_stream_that_is_refused_says_why(run: Callable[..., Result]) -> None:
    result = run("submit", "Hi", "--stream", "--model", "nope")
    assert result.exit_code == 1
    assert "nope" in result.stderr
    assert result.stderr.count("\n") == 1


def test_queues_that_are_watched_change_in_place(environment: dict[str, str], run: Callable[..., Result]) -> None:
    terminal = Terminal(["queues", "--watch"], environment)
    try:
        terminal.read_until("chat.normal")
        assert run("submit", "Hi").exit_code == 0
        until(lambda: (terminal.read(), re.search(r"chat\.normal +1 +500", terminal.text))[1], "the depth is 1")
        assert terminal.send(signal.SIGINT) == 0
    finally:
        terminal.close()
    # The screen that it drew on is gone, and the last one stays.
    assert re.search(r"chat\.normal +1 +500", terminal.text[terminal.text.rindex("\x1b[?1049l") :])
    assert terminal.text.rindex("\x1b[?25h") > terminal.text.rindex("\x1b[?25l")


def test_a_watch_needs_a_terminal(run: Callable[..., Result]) -> None:
    assert "--watch needs a terminal" in run("queues", "--watch").stderr
    assert "--watch and --json exclude each other." in run("queues", "--watch", "--json").stderr
