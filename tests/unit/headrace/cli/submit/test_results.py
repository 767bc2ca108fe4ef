"""The file of results: what a second run reads of the first, also of one that died."""

import json
from pathlib import Path
from typing import Any

import click
import pytest

from headrace.cli.submit.lines import Line
from headrace.cli.submit.results import FileResults, Outcome, Past, results_file

ERROR = {"code": "expired", "message": "Too late."}


def outcome(number: int, error: dict[str, Any] | None = None) -> Outcome:
    status = "expired" if error else "succeeded"
    return Outcome(Line(number, f"digest{number}", {}), {"id": f"job_{number}", "status": status, "text": "é"}, error)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.jsonl"


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_next_run_knows_what_the_last_one_has_done(path: Path) -> None:
    with results_file(path) as results:
        results.add(outcome(2))
        results.add(outcome(1, ERROR))
        results.add(Outcome(Line(3, "digest3", None), None, {"code": "unreadable", "message": "No."}))
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


@pytest.mark.parametrize("torn", [b'{"line": 2, "tri', b'{"line": 2, "text": "\xc3'])
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
