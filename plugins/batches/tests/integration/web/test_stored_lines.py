"""What an app makes Headrace hold by its batches: their lines in Postgres, and their results in a web process."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest

from api.app import build
from headrace.config import Settings
from headrace.domain.apps import App
from headrace.domain.ids import show_id
from headrace.stack.child import Child
from plugins.batches.running.runner import Runner
from plugins.batches.settings import BatchSettings, FileSettings
from plugins.batches.store import files
from tests.waiting import until

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
MIB = 1024 * 1024
DEADLINE_S = 60.0
ENDED = ("completed", "failed", "expired", "cancelled")


class Address:
    """The API as a client reaches it."""

    def __init__(self, url: str, key: str) -> None:
        self._http = httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=DEADLINE_S)

    def call(self, method: str, path: str, **options: Any) -> httpx2.Response:
        return self._http.request(method, path, **options)

    def stream(self, path: str) -> AbstractContextManager[httpx2.Response]:
        return self._http.stream("GET", path)

    def upload(self, content: bytes) -> httpx2.Response:
        return self.call("POST", "/v1/files", data={"purpose": "batch"}, files={"file": ("lines.jsonl", content)})

    def batch(self, content: bytes, endpoint: str = CHAT) -> httpx2.Response:
        file_id = self.upload(content).raise_for_status().json()["id"]
        return self.create(file_id, endpoint)

    def create(self, file_id: str, endpoint: str = CHAT) -> httpx2.Response:
        asked = {"input_file_id": file_id, "endpoint": endpoint, "completion_window": "24h"}
        return self.call("POST", "/v1/batches", json=asked)

    def read(self, batch_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", f"/v1/batches/{batch_id}").raise_for_status().json()
        return found

    def close(self) -> None:
        self._http.close()


@pytest.fixture
def serve(
    serve_web: Callable[..., tuple[Child, str]], tmp_path: Path, key: str
) -> Iterator[Callable[..., tuple[Address, int]]]:
    """Starts a web process; returns a client of it, and its id."""
    with ExitStack() as exits:

        def serve(**environment: str) -> tuple[Address, int]:
            child, url = serve_web(HEADRACE_BATCHES__FILES__STORE=str(tmp_path / "files"), **environment)
            made = Address(url, key)
            exits.callback(made.close)
            return made, child.pid

        yield serve


@pytest.fixture
def runner(settings: Settings, tmp_path: Path) -> Iterator[Runner]:
    """A process `batches`, whose sweeps run when a test says so."""
    deps = build(
        settings.model_copy(update={"batches": BatchSettings(files=FileSettings(store=str(tmp_path / "files")))})
    )
    runner = Runner(deps)
    yield runner
    runner.close()
    deps.close()


def line(number: int, content: str = "Why?", custom_id: str = "", **body: Any) -> bytes:
    """A line of a file."""
    asked = {"messages": [{"role": "user", "content": content}], **body}
    given = {"custom_id": custom_id or f"row-{number}", "method": "POST", "url": CHAT, "body": asked}
    return json.dumps(given, ensure_ascii=False).encode() + b"\n"


def lines(count: int, content: str) -> bytes:
    return b"".join(line(number, content) for number in range(count))


def step(runner: Runner) -> None:
    """Run each sweep once."""
    for sweep in (runner.lease, runner.read, runner.lease, runner.feed, runner.settle, runner.lease, runner.end):
        sweep()


def ended(api: Address, runner: Runner, batch_id: str) -> dict[str, Any]:
    """The batch after its end."""
    until(lambda: step(runner) or api.read(batch_id)["status"] in ENDED)
    return api.read(batch_id)


def most_memory(pid: int) -> int:
    """The most bytes that the server's own process, whose only child serves, and its child had at once."""
    [child] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = [text for text in Path(f"/proc/{child}/status").read_text().splitlines() if text.startswith("VmHWM:")]
    return int(found[0].split()[1]) * 1024


def test_results_without_an_answer_load_no_request(serve: Callable[..., tuple[Address, int]], runner: Runner) -> None:
    """Each line takes 12 MiB as a text: one of its characters needs 4 bytes, and so all do."""
    api, pid = serve()
    small = ended(api, runner, api.batch(lines(1, "")).json()["id"])
    api.call("GET", f"/v1/batches/{small['id']}/results").raise_for_status()
    file_id = api.upload(lines(8, "a" * 3 * MIB + "😀")).json()["id"]
    large = ended(api, runner, api.create(file_id).json()["id"])
    before = most_memory(pid)
    for _ in range(3):
        reply = api.call("GET", f"/v1/batches/{large['id']}/results").raise_for_status()
        assert len(reply.text.splitlines()) == 8
        assert len(reply.content) < 8 * 1024
    assert most_memory(pid) - before < 24 * MIB


def test_large_answers_are_read_a_few_at_a_time(
    serve: Callable[..., tuple[Address, int]],
    runner: Runner,
    finish: Callable[..., None],
    query: Callable[..., Any],
) -> None:
    api, pid = serve()
    made = api.batch(lines(24, "Why?")).json()["id"]
    for _ in range(2):
        step(runner)
    ids = [job_id for (job_id,) in query("SELECT id FROM jobs")]
    assert len(ids) == 24
    finish(ids[0], "Short.")
    step(runner)
    path = f"/v1/batches/{made}/results"
    assert len(api.call("GET", path).raise_for_status().text.splitlines()) == 1
    for job_id in ids[1:]:
        finish(job_id, "a" * 2 * MIB)
    step(runner)
    before = most_memory(pid)
    with api.stream(path) as reply:
        sent = sum(map(len, reply.iter_raw()))
    assert sent > 23 * 2 * MIB
    assert most_memory(pid) - before < 60 * MIB


def refused(reply: httpx2.Response) -> tuple[int, str, str]:
    error = reply.json()["error"]
    return reply.status_code, error["code"], error["param"]


def test_lines_count_in_the_quota_until_they_will_never_run(
    serve: Callable[..., tuple[Address, int]], runner: Runner
) -> None:
    api, _ = serve(HEADRACE_BATCHES__FILES__APP_LIMIT_BYTES=str(8 * MIB + 128 * 1024))
    content = lines(4, "Why? " * (MIB // 5))
    file_id = api.upload(content).raise_for_status().json()["id"]
    first = api.create(file_id).raise_for_status().json()["id"]
    full = (400, "storage_quota_exceeded", "input_file_id")
    assert refused(api.create(file_id)) == full, "before its file is read"
    for sweep in (runner.lease, runner.read):
        sweep()
    assert api.read(first)["status"] == "in_progress"
    assert refused(api.create(file_id)) == full
    assert refused(api.upload(line(1, "a" * 144 * 1024))) == (400, "storage_quota_exceeded", "file")
    for _ in range(3):
        api.call("POST", f"/v1/batches/{first}/cancel").raise_for_status()
        assert ended(api, runner, first)["status"] == "cancelled"
        again = api.call("POST", f"/v1/batches/{first}/retry").raise_for_status().json()["id"]
        assert refused(api.create(file_id)) == full
        for sweep in (runner.lease, runner.read):
            sweep()
        first = again
        assert api.read(first)["request_counts"]["total"] == 4
        assert refused(api.create(file_id)) == full


def test_an_app_has_no_more_files_than_it_may(
    serve: Callable[..., tuple[Address, int]], app: App, query: Callable[..., Any]
) -> None:
    api, _ = serve()
    first = api.upload(line(1)).raise_for_status().json()["id"]
    query(
        "INSERT INTO files (id, app_id, state, purpose, filename, bytes)"
        " SELECT gen_random_uuid(), :app, 'ready', 'batch', 'x', 1 FROM generate_series(2, :most)",
        app=app.id,
        most=files.MOST_FILES,
    )
    assert refused(api.upload(line(1))) == (400, "storage_quota_exceeded", "file")
    assert refused(api.create(first)) == (400, "storage_quota_exceeded", "input_file_id")
    api.call("DELETE", f"/v1/files/{first}").raise_for_status()
    api.upload(line(1)).raise_for_status()


def test_files_of_results_do_not_count_as_files(
    serve: Callable[..., tuple[Address, int]], app: App, query: Callable[..., Any]
) -> None:
    api, _ = serve()
    query(
        "INSERT INTO files (id, app_id, state, purpose, filename, bytes)"
        " SELECT gen_random_uuid(), :app, 'ready', 'batch_output', 'x', 1 FROM generate_series(1, :most)",
        app=app.id,
        most=files.MOST_FILES,
    )
    api.batch(line(1)).raise_for_status()


@pytest.mark.parametrize(("content", "status"), [(line(1), "cancelled"), (b"{}", "failed")])
def test_a_batch_counts_in_the_quota_beside_its_lines(
    serve: Callable[..., tuple[Address, int]], runner: Runner, content: bytes, status: str
) -> None:
    api, _ = serve(HEADRACE_BATCHES__FILES__APP_LIMIT_BYTES=str(16 * 16 * 1024))
    file_id = api.upload(content).raise_for_status().json()["id"]
    for _ in range(16):
        made = api.create(file_id).raise_for_status().json()["id"]
        for sweep in (runner.lease, runner.read):
            sweep()
        api.call("POST", f"/v1/batches/{made}/cancel").raise_for_status()
        assert ended(api, runner, made)["status"] == status
    assert refused(api.create(file_id)) == (400, "storage_quota_exceeded", "input_file_id")


def test_a_retry_counts_with_the_requests_that_are_left(
    serve: Callable[..., tuple[Address, int]],
    runner: Runner,
    finish: Callable[..., None],
    query: Callable[..., Any],
) -> None:
    """Most of the file is white space, which no line keeps."""
    api, _ = serve(HEADRACE_BATCHES__FILES__APP_LIMIT_BYTES=str(4 * MIB + 128 * 1024))
    made = api.batch(line(1) + line(2)[:-2] + b" " * 2 * MIB + b"}\n").raise_for_status().json()["id"]
    for _ in range(2):
        step(runner)
    failed, answered = [job_id for (job_id,) in query("SELECT id FROM jobs ORDER BY id")]
    api.call("POST", f"/v1/jobs/{show_id(failed)}/cancel").raise_for_status()
    finish(answered, "Short.")
    assert ended(api, runner, made)["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
    api.upload(line(1, "a" * MIB)).raise_for_status()
    again = api.call("POST", f"/v1/batches/{made}/retry").raise_for_status().json()["id"]
    for sweep in (runner.lease, runner.read):
        sweep()
    assert api.read(again)["request_counts"]["total"] == 1


def test_a_retry_reads_what_was_cancelled_from_the_input_file(
    serve: Callable[..., tuple[Address, int]], runner: Runner, query: Callable[..., Any]
) -> None:
    api, _ = serve()
    file_id = api.upload(b"\n" + lines(300, "Why is the sky blue?") + line(300, "And é?")).json()["id"]
    made = api.create(file_id).json()["id"]
    for sweep in (runner.lease, runner.read):
        sweep()
    asked = query("SELECT number, custom_id, prefix, body FROM batch_lines ORDER BY number")
    api.call("POST", f"/v1/batches/{made}/cancel").raise_for_status()
    assert ended(api, runner, made)["request_counts"] == {"total": 301, "completed": 0, "failed": 301}
    assert query("SELECT DISTINCT prefix, body FROM batch_lines") == [("", "{}")]
    again = api.call("POST", f"/v1/batches/{made}/retry").raise_for_status().json()["id"]
    for sweep in (runner.lease, runner.read):
        sweep()
    its = "SELECT number, custom_id, prefix, body FROM batch_lines WHERE batch_id = :id ORDER BY number"
    assert query(its, id=UUID(hex=again.removeprefix("batch_"))) == asked
    api.call("DELETE", f"/v1/files/{file_id}").raise_for_status()
    reply = api.call("POST", f"/v1/batches/{made}/retry")
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "file_not_found")


def test_a_retry_without_the_input_file_runs_the_lines_whose_jobs_had_no_answer(
    serve: Callable[..., tuple[Address, int]], runner: Runner, end: Callable[..., bool], query: Callable[..., Any]
) -> None:
    api, _ = serve()
    file_id = api.upload(line(1, "Why?") + line(2, "", messages=[])).json()["id"]
    made = api.create(file_id).json()["id"]
    step(runner)
    [(job_id,)] = query("SELECT id FROM jobs")
    api.call("POST", f"/v1/jobs/{show_id(job_id)}/cancel").raise_for_status()
    assert ended(api, runner, made)["request_counts"] == {"total": 2, "completed": 0, "failed": 2}
    api.call("DELETE", f"/v1/files/{file_id}").raise_for_status()
    again = api.call("POST", f"/v1/batches/{made}/retry").raise_for_status().json()["id"]
    step(runner)
    [(other,)] = query("SELECT id FROM jobs WHERE id <> :id", id=job_id)
    assert end(other)
    done = ended(api, runner, again)
    assert done["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
    [failed] = api.call("GET", f"/v1/files/{done['error_file_id']}/content").text.splitlines()
    assert json.loads(failed)["custom_id"] == "row-2"
    assert json.loads(failed)["response"]["body"]["error"]["code"] == "file_not_found"


@pytest.mark.usefixtures("answering")
def test_of_an_answered_request_what_its_answer_repeats_is_left(
    serve: Callable[..., tuple[Address, int]], runner: Runner, query: Callable[..., Any]
) -> None:
    api, _ = serve()
    given = [{"prompt": "Say é: ", "echo": True}, {"prompt": ["Say ü: "], "echo": True}, {"prompt": "x", "echo": False}]
    asked = [
        {"custom_id": str(number), "method": "POST", "url": COMPLETIONS, "body": body}
        for number, body in enumerate(given)
    ]
    content = "".join(f"{json.dumps(each)}\n" for each in asked).encode()
    done = ended(api, runner, api.batch(content, COMPLETIONS).json()["id"])
    texts = [
        json.loads(text)["response"]["body"]["choices"][0]["text"]
        for text in api.call("GET", f"/v1/batches/{done['id']}/results").text.splitlines()
    ]
    assert [text.partition("Because")[0] for text in texts] == ["Say é: ", "Say ü: ", ""]
    left = [json.loads(body) for (body,) in query("SELECT body FROM batch_lines ORDER BY number")]
    assert left == [*({"echo": True, "prompt": body["prompt"]} for body in given[:2]), {}]
