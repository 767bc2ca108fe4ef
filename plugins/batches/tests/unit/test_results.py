"""A download of results, beside an API that answers as the test says."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from headrace.cli import client
from headrace.cli.client import Api, ApiRefused, NoAnswer, TryLater
from plugins.batches.commands.results import write_results

BATCH = f"batch_{'0' * 32}"


def line(number: int, status: int = 200, error: dict[str, str] | None = None) -> bytes:
    body = {"error": {"code": "bad"}} if status >= 400 else {"text": "line\u2028separator"}
    response = None if error else {"status_code": status, "body": body}
    result = {"id": f"batch_req_{'0' * 32}_{number}", "custom_id": f"c{number}", "response": response, "error": error}
    return json.dumps(result, ensure_ascii=False).encode() + b"\n"


LINES = [line(1), line(2, 400), line(3), line(4, error={"code": "batch_expired", "message": "Late."}), line(5)]


class BrokenApi:
    """Has five results, and breaks a download off as often as it is told. Attributes: asked: after which lines."""

    def __init__(self, *errors: tuple[int, ApiRefused | NoAnswer]) -> None:
        """Args: errors: of each download, after how many lines, and how."""
        self._errors = list(errors)
        self.asked: list[int] = []

    def call(self, method: str, path: str) -> dict[str, Any]:
        counts = {"total": 8, "completed": 3, "failed": 2}
        return {"id": BATCH, "status": "in_progress", "request_counts": counts}

    def lines(self, path: str, params: dict[str, int]) -> Iterator[bytes]:
        self.asked.append(params["after"])
        left = LINES[params["after"] :]
        if self._errors:
            lines, error = self._errors.pop(0)
            yield from left[:lines]
            raise error
        yield from left


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "AWAY_S", 0.0)


def write(api: BrokenApi, path: Path | None, *, only_failed: bool = False, as_json: bool = False) -> None:
    write_results(cast(Api, api), BATCH, path, only_failed=only_failed, as_json=as_json)


def test_a_download_that_breaks_off_goes_on_after_the_last_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text("old")
    api = BrokenApi((2, NoAnswer("Cut.")), (0, TryLater("Too many files.", 0.0)), (1, ApiRefused("Away.", 503)))
    write(api, path)
    assert path.read_bytes() == b"".join(LINES)
    assert api.asked == [0, 2, 2, 3]
    told = capsys.readouterr()
    assert told.out == ""
    assert "Cut. Trying again in 0 s." in told.err
    ended = "5 of 8 lines have ended, 2 of them without an answer."
    assert f"{BATCH}  in_progress  {ended} Written to {path}: 5.\n" in told.err


def test_only_the_lines_without_an_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "failed.jsonl"
    write(BrokenApi((3, NoAnswer("Cut."))), path, only_failed=True, as_json=True)
    assert path.read_bytes() == LINES[1] + LINES[3]
    told = json.loads(capsys.readouterr().out)
    assert told["output"] == str(path)
    assert (told["lines"], told["ended"], told["failed"], told["written"]) == (8, 5, 2, 2)


def test_without_a_file_they_are_printed_as_they_came(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    write(BrokenApi(), None)
    assert capfdbinary.readouterr().out == b"".join(LINES)


def test_a_download_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text("old")
    with pytest.raises(ApiRefused):
        write(BrokenApi((2, ApiRefused("No.", 404))), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "results.jsonl"
    with pytest.raises(Exception, match="cannot be written: No such file or directory"):
        write(BrokenApi(), path)


def test_a_pipe_with_a_name_is_written_to_and_stays(tmp_path: Path) -> None:
    full = Path("/dev/full")
    with pytest.raises(Exception, match="/dev/full cannot be written: No space left on device"):
        write(BrokenApi(), full)
    assert full.is_char_device()
    assert list(tmp_path.iterdir()) == []
