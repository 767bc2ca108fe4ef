"""A file of prompts, and its results: what a second run reads of the first, also of one that died."""

import errno
import json
import os
import stat
import sys
from pathlib import Path
from typing import IO, Any, cast

import click
import pytest

from headrace.cli.submit.prompt_files import (
    FileResults,
    Past,
    PrintedResults,
    PromptLine,
    PromptOutcome,
    read_lines,
    results_file,
)


def lines_of(tmp_path: Path, content: bytes) -> list[PromptLine]:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(content)
    return list(read_lines(path))


def test_an_object_is_a_body_and_a_text_is_its_prompt(tmp_path: Path) -> None:
    found = lines_of(tmp_path, b'\xef\xbb\xbf{"prompt": "Hi", "max_tokens": 3}\n\n"Hello"\r\n')
    assert [(line.number, line.body) for line in found] == [
        (1, {"prompt": "Hi", "max_tokens": 3}),
        (3, {"prompt": "Hello"}),
    ]


def test_a_digest_is_of_what_a_line_says(tmp_path: Path) -> None:
    first, again, other = lines_of(tmp_path, b'{"a": 1, "b": "\xc3\xa9"}\n{ "b":"\\u00e9","a":1 }\n{"a": 2, "b": ""}\n')
    assert first.digest == again.digest != other.digest


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"What is it?", 'Give one JSON value a line, such as {"prompt": "Hi"} or "Hi".'),
        (b'{"prompt": "Hi"', "It is not JSON: Expecting ',' delimiter at character 16."),
        (b"[1]", "It is neither a JSON object nor a text"),
        (b'{"temperature": NaN}', "It cannot be sent as JSON"),
        (b'"\\ud800"', "It cannot be sent as JSON"),
        (b'"\xff"', "It is not UTF-8 text: byte 1 is not."),
        (b"[" * 100_000, "It cannot be sent as JSON"),
    ],
)
def test_a_line_that_cannot_be_read_says_why_and_stops_no_other(tmp_path: Path, raw: bytes, problem: str) -> None:
    wrong, right = lines_of(tmp_path, raw + b'\n"Hi"')
    assert wrong.body is None
    assert problem in str(wrong.problem)
    assert right.body == {"prompt": "Hi"}


ERROR = {"code": "expired", "message": "Too late."}


def outcome(number: int, error: dict[str, Any] | None = None) -> PromptOutcome:
    status = "expired" if error else "succeeded"
    return PromptOutcome(
        PromptLine(number, f"digest{number}", {}), {"id": f"job_{number}", "status": status, "text": "é"}, error
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.jsonl"


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(errno.ENOSPC, "No space left"), click.ClickException),
        (BrokenPipeError(errno.EPIPE, ""), BrokenPipeError),
    ],
    ids=["full", "closed"],
)
def test_printed_results_without_room_end_in_one_line_and_without_a_reader_in_none(
    monkeypatch: pytest.MonkeyPatch, error: OSError, raised: type[Exception]
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(click, "echo", fail)
    with pytest.raises(raised):
        PrintedResults().add(outcome(1))


def test_results_are_not_printed_to_a_closed_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(click.ClickException, match="--output"):
        PrintedResults()


def test_the_next_run_knows_what_the_last_one_has_done(path: Path) -> None:
    with results_file(path) as results:
        results.add(outcome(2))
        results.add(outcome(1, ERROR))
        results.add(PromptOutcome(PromptLine(3, "digest3", None), None, {"code": "unreadable", "message": "No."}))
    with results_file(path) as results:
        assert results.past == {
            2: Past("digest2", 1, True),
            1: Past("digest1", 1, False),
            3: Past("digest3", 1, False),
        }
    assert [(row["line"], row["id"], row["status"]) for row in rows(path)] == [
        (2, "job_2", "succeeded"),
        (1, "job_1", "expired"),
        (3, None, "refused"),
    ]


def test_a_line_that_was_tried_again_keeps_its_last_result_alone(path: Path) -> None:
    with results_file(path) as results:
        results.add(outcome(1, ERROR))
        results.add(outcome(2))
    with results_file(path) as results:
        results.add(outcome(1))
    assert [(row["line"], row["tries"], row["status"]) for row in rows(path)] == [
        (2, 1, "succeeded"),
        (1, 2, "succeeded"),
    ]


@pytest.mark.parametrize(
    "torn", [b'{"line": 2, "tri', b'{"line": 2, "text": "\xc3', b'{"line": 2, "cost": {"usd": "0"}']
)
def test_a_result_that_was_not_finished_is_removed(path: Path, torn: bytes) -> None:
    with results_file(path) as results:
        results.add(outcome(1))
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    with results_file(path) as results:
        assert set(results.past) == {1}
        results.add(outcome(2))
    assert path.read_bytes().startswith(whole)
    assert [row["line"] for row in rows(path)] == [1, 2]


def test_a_whole_result_without_its_end_of_line_counts(path: Path) -> None:
    with results_file(path) as results:
        results.add(outcome(1))
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    with results_file(path) as results:
        assert set(results.past) == {1}
        results.add(outcome(2))
    assert [row["line"] for row in rows(path)] == [1, 2]


def test_two_runs_do_not_write_to_one_file(path: Path) -> None:
    with results_file(path), pytest.raises(click.ClickException, match="Another 'headrace submit' writes"):
        enter(path)
    assert isinstance(enter(path), FileResults)


def enter(path: Path) -> FileResults:
    with results_file(path) as results:
        return results


def test_a_file_of_something_else_is_left_alone(path: Path) -> None:
    path.write_text('{"prompt": "Hi"}\n{"prompt": "Ho"}\n')
    with pytest.raises(click.ClickException, match=r"line 1, is no result of .* name another file with --output"):
        enter(path)
    assert path.read_text() == '{"prompt": "Hi"}\n{"prompt": "Ho"}\n'


def test_a_folder_that_does_not_exist_is_named(path: Path) -> None:
    with pytest.raises(click.ClickException, match="cannot be written: No such file or directory"):
        enter(path / "nowhere")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"Dear diary, this has one line and no end of it.", id="a text"),
        pytest.param(b'{"prompt": "Hi"}', id="one object"),
        pytest.param(b'{"line": 4}', id="one object that begins as a result does"),
        pytest.param(b"[1, 2", id="no whole JSON"),
    ],
)
def test_a_file_of_one_line_without_an_end_is_not_taken_for_a_torn_result(path: Path, text: bytes) -> None:
    path.write_bytes(text)
    with pytest.raises(click.ClickException, match="line 1, is no result of"):
        enter(path)
    assert path.read_bytes() == text


def test_zeros_that_a_loss_of_power_left_are_removed(path: Path) -> None:
    with results_file(path) as results:
        results.add(outcome(1))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"line": 2, "tr' + bytes(40))
    with results_file(path) as results:
        assert set(results.past) == {1}
    assert path.read_bytes() == whole


def test_a_run_that_was_killed_leaves_no_outdated_result_for_ever(path: Path) -> None:
    """Its `finally` never came. The next run has nothing to try again."""
    with results_file(path) as results:
        results.add(outcome(1, ERROR))
        path.write_bytes(path.read_bytes() + json.dumps(outcome(1).record(2)).encode() + b"\n")
    assert enter(path).past == {1: Past("digest1", 2, True)}
    assert [(row["line"], row["tries"]) for row in rows(path)] == [(1, 2)]


class NearlyFull:
    """A file on a disk that takes 150 bytes more, and then none."""

    def __init__(self, path: Path, free: int = 150) -> None:
        self._file, self._free = path.open("a+b", buffering=0), free

    def write(self, raw: bytes) -> int:
        if not self._free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self._file.write(raw[: self._free])
        self._free -= written
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def test_a_full_disk_ends_the_run_in_one_line_and_the_next_one_goes_on(path: Path) -> None:
    file = NearlyFull(path)
    results = FileResults(cast(IO[bytes], file), path)
    results.add(outcome(1))
    with pytest.raises(click.ClickException, match="cannot be written: No space left on device"):
        results.add(outcome(2))
    file.close()
    with results_file(path) as results:
        assert set(results.past) == {1}
        results.add(outcome(2))
    assert [row["line"] for row in rows(path)] == [1, 2]


def test_a_result_of_which_the_disk_took_a_part_is_written_to_its_end(path: Path) -> None:
    class InParts(NearlyFull):
        def write(self, raw: bytes) -> int:
            self._free = 7
            return super().write(raw)

    file = InParts(path)
    FileResults(cast(IO[bytes], file), path).add(outcome(1))
    file.close()
    assert [row["line"] for row in rows(path)] == [1]


def test_a_link_and_the_rights_of_its_file_stay(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.jsonl"
    link.symlink_to(path)
    path.touch(mode=0o600)
    for error in (ERROR, None):
        with results_file(link) as results:
            results.add(outcome(1, error))
    assert link.is_symlink()
    assert [(row["line"], row["tries"]) for row in rows(path)] == [(1, 2)]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_is_no_file_is_refused(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(click.ClickException, match="is no file"):
        enter(path)
