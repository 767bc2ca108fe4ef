"""Batches of the terminal against a real HTTP server, and the sweeps that move them on."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result

from api.app import build
from headrace.cli import main
from headrace.domain.ids import show_id
from headrace.domain.states import JobState
from headrace.store import Store
from headrace.tables import jobs
from plugins.batches.domain import BATCH_PREFIX
from plugins.batches.running.runner import Runner
from plugins.batches.settings import BatchSettings, FileSettings
from plugins.batches.tables import batch_lines, batches, files
from tests.integration.terminals import Terminal
from tests.waiting import until
from tests.web import Web

TEXT = "Because of Rayleigh scattering."
Run = Callable[..., Result]


@pytest.fixture
def web(build_web: Callable[..., Web], tmp_path: Path) -> Web:
    return build_web(batches=BatchSettings(files=FileSettings(store=str(tmp_path / "files"))))


@pytest.fixture
def environment(base_url: str, key: str) -> dict[str, str]:
    return {"HEADRACE_URL": base_url, "HEADRACE_API_KEY": key}


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    def invoke(*arguments: object, **changes: str) -> Result:
        return CliRunner().invoke(main, [str(each) for each in arguments], env={**environment, **changes})

    return invoke


@pytest.fixture
def moved(web: Web) -> Iterator[None]:
    """Moves batches on, as the process `batches` does, without its pauses."""
    deps, stop = build(web.deps.settings), threading.Event()
    runner = Runner(deps)

    def work() -> None:
        while not stop.wait(0.02):
            for sweep in runner.sweeps():
                sweep.run()

    thread = threading.Thread(target=work)
    thread.start()
    yield
    stop.set()
    thread.join()
    runner.close()
    deps.close()


def request(number: int, **changes: Any) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": f"Prompt {number}"}], "max_tokens": 20, **changes}
    return {"custom_id": f"row-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}


@pytest.fixture
def lines(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file of these requests."""

    def write(*requests: dict[str, Any]) -> Path:
        path = tmp_path / "lines.jsonl"
        path.write_text("".join(f"{json.dumps(each)}\n" for each in requests))
        return path

    return write


def batch_ids(store: Store) -> list[str]:
    with store.begin() as db:
        return [show_id(each, BATCH_PREFIX) for each in db.scalars(sa.select(batches.c.id).order_by(batches.c.id))]


@pytest.mark.usefixtures("answering", "moved")
def test_a_file_is_submitted_watched_and_its_results_are_read(run: Run, lines: Callable[..., Path]) -> None:
    path = lines(*(request(number) for number in range(1, 6)))
    made = run("batch", "submit", path, "--window", "12h", "--metadata", "run=7", "--metadata", "empty=")

    assert made.exit_code == 0, made.output
    batch_id = made.stdout.strip()
    assert f"'headrace batch watch {batch_id}' shows how far it is." in made.stderr

    ended = run("batch", "watch", batch_id)
    assert ended.exit_code == 0, ended.output
    assert re.fullmatch(
        rf"{batch_id}  completed  5 of 5 lines have an answer  80 tokens  0\.000006150 USD\n", ended.stdout
    )
    told = json.loads(run("batch", "watch", batch_id, "--json").stdout)
    assert (told["completion_window"], told["metadata"]) == ("12h", {"run": "7", "empty": ""})

    results = [json.loads(line) for line in run("batch", "results", batch_id).stdout.splitlines()]
    assert [each["custom_id"] for each in results] == [f"row-{number}" for number in range(1, 6)]
    assert {each["response"]["body"]["choices"][0]["message"]["content"] for each in results} == {TEXT}


@pytest.mark.usefixtures("answering", "moved")
def test_lines_without_an_answer_are_named_and_run_again(run: Run, lines: Callable[..., Path], tmp_path: Path) -> None:
    path = lines(request(1), request(2, max_tokens=0), request(3), request(4, temperature=9))
    ended = run("batch", "submit", path, "--watch")

    assert ended.exit_code == 1, ended.output
    batch_id = ended.stdout.split()[0]
    assert "2 of 4 lines have an answer" in ended.stdout
    assert re.search(r"\n2 +row-2 +invalid_value +Invalid 'max_tokens'", ended.stderr)
    assert re.search(r"\n4 +row-4 +invalid_value +Invalid 'temperature'", ended.stderr)
    assert f"'headrace batch retry {batch_id}' runs them again." in ended.stderr

    output = tmp_path / "results.jsonl"
    counts = json.loads(run("batch", "results", batch_id, "-o", output, "--json").stdout)
    assert (counts["lines"], counts["ended"], counts["failed"], counts["written"]) == (4, 4, 2, 4)
    assert [json.loads(line)["custom_id"] for line in output.read_text().splitlines()] == [
        f"row-{number}" for number in range(1, 5)
    ]
    failed = run("batch", "results", batch_id, "--errors").stdout.splitlines()
    assert [json.loads(line)["custom_id"] for line in failed] == ["row-2", "row-4"]

    again = run("batch", "retry", batch_id, "--window", "90m", "--watch", "--json")
    assert again.exit_code == 1
    told = json.loads(again.stdout)
    assert (told["job"]["retry_of"], told["completion_window"]) == (batch_id, "90m")
    assert told["request_counts"] == {"total": 2, "completed": 0, "failed": 2}


@pytest.mark.usefixtures("moved")
def test_a_file_that_is_no_batch_is_explained(run: Run, lines: Callable[..., Path]) -> None:
    ended = run("batch", "submit", lines(request(1), request(1), {**request(3), "url": "/v1/responses"}), "--watch")
    assert ended.exit_code == 1
    assert re.search(r"\n2 +duplicate_custom_id +The custom_id 'row-1' is that of an earlier line\.", ended.stderr)
    assert re.search(r"\n3 +url_mismatch +", ended.stderr)
    assert "The file is no batch: correct it, and submit it again." in ended.stderr


def test_a_running_batch_has_results_and_is_cancelled(
    run: Run, lines: Callable[..., Path], moved: None, store: Store, finish: Callable[..., None]
) -> None:
    batch_id = run("batch", "submit", lines(*(request(number) for number in range(3)))).stdout.strip()

    def queued() -> list[Any]:
        with store.begin() as db:
            return list(db.scalars(sa.select(jobs.c.id).where(jobs.c.state == JobState.QUEUED)))

    until(lambda: len(queued()) == 3, "all lines have a job")
    finish(queued()[0])

    def results() -> list[str]:
        return run("batch", "results", batch_id).stdout.splitlines()

    until(lambda: len(results()) == 1, "one line has ended")
    part = run("batch", "results", batch_id)
    assert "in_progress  1 of 3 lines have ended, 0 of them without an answer." in part.stderr

    cancelled = run("batch", "cancel", batch_id)
    assert cancelled.stdout == f"{batch_id}  cancelling\n"
    ended = run("batch", "watch", batch_id)
    assert ended.exit_code == 1
    assert "cancelled  1 of 3 lines have an answer" in ended.stdout
    assert "batch_cancelled" in ended.stderr
    assert "It was cancelled, and 2 lines have no answer: " in ended.stderr
    again = run("batch", "cancel", batch_id)
    assert (again.exit_code, again.stdout) == (0, f"{batch_id}  cancelled\n")


def test_a_batch_says_when_it_begins_and_who_may_answer_it(
    run: Run, lines: Callable[..., Path], moved: None, store: Store
) -> None:
    begins = datetime.now(UTC) + timedelta(days=20)
    options = (
        "--not-before",
        f"{begins:%Y-%m-%dT%H:%M}",
        "--overflow",
        "allow",
        "--webhook",
        "https://shop.example/done",
    )
    made = json.loads(run("batch", "submit", lines(request(1)), *options, "--json").stdout)
    assert made["job"]["not_before"] == f"{begins:%Y-%m-%dT%H:%M}:00Z"
    assert made["job"]["overflow"] == "allow"
    with store.begin() as db:
        assert db.scalar(sa.select(batches.c.webhook_url)) == "https://shop.example/done"

    def is_read() -> bool:
        with store.begin() as db:
            return db.scalar(sa.select(sa.func.count()).select_from(batch_lines)) == 1

    until(is_read, "the file is read")
    with store.begin() as db:
        assert db.scalar(sa.select(batch_lines.c.state)) == "waiting"


def test_batches_are_listed_newest_first(
    run: Run, lines: Callable[..., Path], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("batch", "list").stdout == "There are no batches.\n"
    made = [run("batch", "submit", lines(request(1))).stdout.strip() for _ in range(3)]
    assert made == batch_ids(store)

    listed = run("batch", "list")
    assert [line.split()[:5] for line in listed.stdout.splitlines()[1:]] == [
        [each, "validating", "0/0", "0", "0.00"] for each in made[::-1]
    ]
    monkeypatch.setattr("plugins.batches.commands.batch.PAGE", 1)
    first = run("batch", "list", "--limit", "2")
    assert [line.split()[0] for line in first.stdout.splitlines()[1:]] == made[:0:-1]
    assert "--limit N shows more" in first.stderr
    assert [each["id"] for each in json.loads(run("batch", "list", "--json").stdout)] == made[::-1]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["submit", "missing.jsonl"], 2, "'missing.jsonl' does not exist"),
        (["submit", "FILE", "--window", "1y"], 2, "'1y' is not a time from 1m to 30d, such as 24h, 90m or 1h38min."),
        (["submit", "FILE", "--metadata", "run"], 2, "'run' is not a key and a value, such as run=7."),
        (["submit", "FILE", "--not-before", "soon"], 2, "'soon' is neither a delay"),
        (["submit", "FILE", "--webhook", "ftp://x"], 1, "The webhook must be an http(s) URL"),
        (["watch", "batch_1"], 2, "'batch_1' is not the id of a batch: 'headrace batch list' lists"),
        (["watch", f"batch_{'0' * 32}"], 1, f"No batch with id 'batch_{'0' * 32}'."),
        (["results", f"batch_{'0' * 32}"], 1, f"No batch with id 'batch_{'0' * 32}'."),
        (["cancel", "../jobs"], 2, "'../jobs' is not the id of a batch"),
        (["retry", f"batch_{'0' * 32}"], 1, f"No batch with id 'batch_{'0' * 32}'."),
    ],
)
def test_a_wrong_argument_is_named(
    run: Run, lines: Callable[..., Path], store: Store, arguments: list[str], status: int, message: str
) -> None:
    path = str(lines(request(1)))
    result = run("batch", *(path if each == "FILE" else each for each in arguments))
    assert result.exit_code == status, result.output
    assert message in " ".join(re.sub("[│╭╮╰╯─]", " ", result.stderr).split())
    with store.begin() as db:
        # What was uploaded for a batch that is refused is deleted again.
        assert list(db.scalars(sa.select(files.c.state).where(files.c.state != "deleted"))) == []


def test_a_batch_that_has_not_ended_is_not_retried(run: Run, lines: Callable[..., Path]) -> None:
    batch_id = run("batch", "submit", lines(request(1))).stdout.strip()
    refused = run("batch", "retry", batch_id)
    assert (refused.exit_code, refused.stderr) == (
        1,
        "Error: This batch has not ended: wait for its end, or cancel it.\n",
    )


def test_a_terminal_shows_a_bar_and_ctrl_c_lets_the_batch_go_on(
    environment: dict[str, str],
    run: Run,
    lines: Callable[..., Path],
    moved: None,
    store: Store,
    finish: Callable[..., None],
) -> None:
    batch_id = run("batch", "submit", lines(*(request(number) for number in range(4)))).stdout.strip()

    def queued() -> list[Any]:
        with store.begin() as db:
            return list(db.scalars(sa.select(jobs.c.id).where(jobs.c.state == JobState.QUEUED)))

    until(lambda: len(queued()) == 4, "all lines have a job")
    terminal = Terminal(["batch", "watch", batch_id], environment)
    try:
        terminal.read_until("0/4")
        finish(queued()[0])
        terminal.read_until("1/4")
        terminal.read_until("/s")
        assert terminal.press(b"\x03") == 130
    finally:
        terminal.close()
    told = " ".join(terminal.text.split())
    assert "in_progress" in told
    assert f"Stopped watching. The batch goes on: 'headrace batch watch {batch_id}'." in told
    assert "Traceback" not in told
    assert json.loads(run("batch", "list", "--json").stdout)[0]["status"] == "in_progress"


def test_a_long_file_of_prompts_is_better_as_a_batch(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answering: None
) -> None:
    monkeypatch.setattr("headrace.cli.submit.submit_file.MANY_LINES", 2)
    path = tmp_path / "prompts.jsonl"
    path.write_text('"One"\n"Two"\n')
    hint = "2 lines: as a batch they would go on without this command: see 'headrace batch submit --help'."
    told = run("submit", "--file", path)
    assert told.exit_code == 0, told.output
    assert told.stderr.count(hint) == 1
    assert hint not in run("submit", "--file", path, "--json").stderr


def test_a_batch_s_file_is_not_taken_for_prompts(run: Run, lines: Callable[..., Path]) -> None:
    path = lines(request(1))
    told = run("submit", "--file", path)
    assert told.exit_code == 1
    assert f"{path} is a batch's file: 'headrace batch submit' takes those." in told.stderr
