"""A batch from a file, beside an API that answers as the test says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import click
import pytest

from headrace.cli import client
from headrace.cli.client import Api, ApiRefused, NoAnswer, TryLater
from plugins.batches.commands.batch_file import endpoint_of, submit

LINE = '{"custom_id": "1", "method": "POST", "url": "/v1/embeddings", "body": {"input": "Hi"}}\n'


class ScriptedApi:
    """Raises what stands for a request, and answers it afterwards. Attributes: batches: by the key of their request."""

    def __init__(self) -> None:
        self.errors: dict[str, list[click.ClickException]] = {}
        #: Made before their error is raised, as where the answer is lost.
        self.loses_answers = False
        self.asked: list[str] = []
        self.uploads: list[bytes] = []
        self.batches: dict[str, dict[str, Any]] = {}

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        what = f"{method} {path}"
        self.asked.append(what)
        if what == "POST /v1/files":
            name, file = arguments["files"]["file"]
            file.seek(0)
            self.uploads.append(file.read())
            assert name == "lines.jsonl"
        if what == "POST /v1/batches" and (self.loses_answers or not self.errors.get(what)):
            key = arguments["headers"]["Idempotency-Key"]
            self.batches.setdefault(key, {"id": f"batch_{len(self.batches)}", **arguments["json"]})
        if waiting := self.errors.get(what):
            raise waiting.pop(0)
        match what:
            case "POST /v1/files":
                return {"id": "file-1"}
            case "POST /v1/batches":
                return self.batches[arguments["headers"]["Idempotency-Key"]]
        return {}


@pytest.fixture
def api() -> ScriptedApi:
    return ScriptedApi()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "AWAY_S", 0.0)


@pytest.fixture
def send(api: ScriptedApi, tmp_path: Path) -> Callable[[], dict[str, Any]]:
    path = tmp_path / "lines.jsonl"
    path.write_text(LINE)
    return lambda: submit(cast(Api, api), path, {"completion_window": "24h", "job": {}})


def test_the_file_is_uploaded_and_the_batch_has_its_endpoint(
    api: ScriptedApi, send: Callable[[], dict[str, Any]]
) -> None:
    made = send()
    assert api.uploads == [LINE.encode()]
    about = {"input_file_id": "file-1", "endpoint": "/v1/embeddings", "completion_window": "24h", "job": {}}
    assert made == {"id": "batch_0", **about}


def test_an_upload_that_breaks_off_is_sent_again_from_its_beginning_and_says_so(
    api: ScriptedApi, send: Callable[[], dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    api.errors["POST /v1/files"] = [NoAnswer("Cut."), ApiRefused("Away.", 503), TryLater("Too many files.", 0.0)]
    send()
    assert api.uploads == [LINE.encode()] * 4
    told = capsys.readouterr().err
    assert "Cut. Trying again in 0 s.\nAway. Trying again in 0 s.\nToo many files. Trying again in 0 s.\n" in told


@pytest.mark.parametrize("loses_answers", [True, False])
@pytest.mark.parametrize("error", [NoAnswer("Cut."), ApiRefused("Away.", 503)])
def test_a_batch_is_made_once_where_its_answer_is_lost(
    api: ScriptedApi, send: Callable[[], dict[str, Any]], loses_answers: bool, error: click.ClickException
) -> None:
    api.loses_answers, api.errors["POST /v1/batches"] = loses_answers, [error]
    assert send()["id"] == "batch_0"
    assert len(api.batches) == 1


def test_the_file_of_a_refused_batch_is_deleted(api: ScriptedApi, send: Callable[[], dict[str, Any]]) -> None:
    api.errors["POST /v1/batches"] = [ApiRefused("This app has 3 batches under way.", 400, "too_many_batches")]
    with pytest.raises(ApiRefused, match="3 batches under way"):
        send()
    assert api.asked == ["POST /v1/files", "POST /v1/batches", "DELETE /v1/files/file-1"]


@pytest.mark.parametrize("before", ["", "\n", "  \n\n"])
def test_the_endpoint_is_that_of_the_first_line_that_is_not_blank(tmp_path: Path, before: str) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text(before + LINE)
    assert endpoint_of(path) == "/v1/embeddings"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no lines. Give one request a line, such as {"),
        (b"\n \n", "has no lines. Give one request a line"),
        (b"\n{bad\n", "line 2, is not JSON: Expecting property name"),
        (b"\xff\xfe\n", "line 1, is not JSON: "),
        (b'"Hi"\n', "line 1, is a prompt: 'headrace submit --file' takes those. Give one request a line"),
        (b'{"prompt": "Hi"}', "line 1, is a prompt: 'headrace submit --file' takes those."),
        (b"[1]", "line 1, is no request with a 'url'. Give one request a line"),
        (b'{"custom_id": "1", "body": {}}', "line 1, is no request with a 'url'."),
        (b'{"url": 1}', "line 1, is no request with a 'url'."),
        (b'{"url": "/v1/images"}', "line 1, has the url '/v1/images': /v1/responses, /v1/chat/completions, "),
    ],
)
def test_a_file_that_is_no_batch_is_not_uploaded(
    api: ScriptedApi, tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(content)
    with pytest.raises(click.ClickException) as raised:
        submit(cast(Api, api), path, {})
    assert f"{path}" in raised.value.message
    assert message in raised.value.message
    assert api.asked == []


def test_a_name_that_cannot_be_sent_is_replaced(api: ScriptedApi, tmp_path: Path) -> None:
    path = tmp_path / "a\nb"
    path.write_text(LINE)
    submit(cast(Api, api), path, {})
    assert api.uploads == [LINE.encode()]
