"""Batches on real servers: files go in over HTTP, and a runner takes its steps one by one."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from headrace.broker.admission import Admission
from headrace.domain.ids import show_id
from headrace.store import Store
from headrace.tables import jobs
from plugins.batches.domain import BATCH_PREFIX, NAME
from plugins.batches.running.runner import Runner
from plugins.batches.settings import BatchSettings, FileSettings
from plugins.batches.tables import batch_lines
from tests.web import ApiClient, Web

CHAT = "/v1/chat/completions"
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
BOUNDARY = "b0undary"


def line(custom_id: str, content: str = "Why is the sky blue?", url: str = CHAT, **body: Any) -> dict[str, Any]:
    """A line of an input file; `body` replaces or adds fields of its request."""
    request = {"model": MODEL, "messages": [{"role": "user", "content": content}], "max_tokens": 16, **body}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": request}


def lines(number: int, prefix: str = "") -> list[dict[str, Any]]:
    return [line(f"{prefix}{each}", f"Question {each}") for each in range(number)]


@dataclass(frozen=True)
class Desk:
    """What an app does with its batches, and what Postgres has of them."""

    client: ApiClient
    store: Store

    def upload(self, content: bytes) -> str:
        """Returns: the file's id."""
        parts = ('name="purpose"', b"batch"), ('name="file"; filename="lines.jsonl"', content)
        form = [b"Content-Disposition: form-data; %s\r\n\r\n%s" % (name.encode(), part) for name, part in parts]
        mark = BOUNDARY.encode()
        body = b"".join(b"--%s\r\n%s\r\n" % (mark, part) for part in form) + b"--%s--\r\n" % mark
        made = self.client.post("/v1/files", data=body, content_type=f"multipart/form-data; boundary={BOUNDARY}")
        assert made.status_code == 200, made.text
        return str(made.get_json()["id"])

    def submit(self, asked: Sequence[dict[str, Any]], window: str = "24h", url: str = CHAT, **more: Any) -> UUID:
        """Returns: the batch of a file of these lines."""
        file_id = self.upload("".join(f"{json.dumps(each)}\n" for each in asked).encode())
        given = {"input_file_id": file_id, "endpoint": url, "completion_window": window, **more}
        made = self.client.post("/v1/batches", json=given)
        assert made.status_code == 200, made.text
        return UUID(hex=made.get_json()["id"].removeprefix("batch_"))

    def read(self, batch_id: UUID) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"/v1/batches/batch_{batch_id.hex}").get_json()
        return found

    def post(self, batch_id: UUID, step: str, **body: Any) -> dict[str, Any]:
        """Cancels or retries a batch."""
        done = self.client.post(f"/v1/batches/batch_{batch_id.hex}/{step}", json=body)
        assert done.status_code == 200, done.text
        told: dict[str, Any] = done.get_json()
        return told

    def results(self, file_id: str | None) -> dict[str, dict[str, Any]]:
        """The lines of a file of results, by custom_id; none without a file."""
        if file_id is None:
            return {}
        text = self.client.get(f"/v1/files/{file_id}/content").text
        read = [json.loads(each) for each in text.splitlines()]
        found = {each["custom_id"]: each for each in read}
        assert len(found) == len(read), "each line once"
        return found

    def lines(self, batch_id: UUID) -> Sequence[sa.Row[Any]]:
        """The rows of its lines, as in the file."""
        with self.store.begin() as db:
            asked = sa.select(batch_lines).where(batch_lines.c.batch_id == batch_id)
            return db.execute(asked.order_by(batch_lines.c.number)).all()

    def jobs(self, *batch_ids: UUID) -> Sequence[sa.Row[Any]]:
        """The rows of these batches' jobs, in their order, each with `batch_id` and `custom_id` of its line."""
        noted = [show_id(batch_id, BATCH_PREFIX) for batch_id in batch_ids]
        asked = sa.select(jobs, batch_lines.c.batch_id, batch_lines.c.custom_id)
        asked = asked.outerjoin(batch_lines, batch_lines.c.job_id == jobs.c.id)
        with self.store.begin() as db:
            return db.execute(asked.where(jobs.c.notes[NAME].astext.in_(noted)).order_by(jobs.c.id)).all()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def web(build_web: Callable[..., Web], folder: Path) -> Web:
    return build_web(batches=BatchSettings(files=FileSettings(store=str(folder))))


@pytest.fixture
def desk(client: ApiClient, store: Store) -> Desk:
    return Desk(client, store)


@pytest.fixture
def make_runner(web: Web) -> Iterator[Callable[..., Runner]]:
    """Makes a runner, of this API or of another one."""
    made: list[Runner] = []

    def make(of: Web = web) -> Runner:
        made.append(Runner(of.deps))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def runner(make_runner: Callable[..., Runner]) -> Runner:
    return make_runner()


@pytest.fixture
def begun(desk: Desk, runner: Runner) -> Callable[..., UUID]:
    """A batch whose file is read."""

    def begin(*arguments: Any, **options: Any) -> UUID:
        batch_id = desk.submit(*arguments, **options)
        look(runner, runner.read)
        assert desk.read(batch_id)["status"] == "in_progress", desk.read(batch_id)["errors"]
        runner.lease()
        return batch_id

    return begin


def look(runner: Runner, *steps: Callable[[], int]) -> int:
    """Lets the runner look at its batches, and take these steps. Returns: what the last one dealt with."""
    runner.lease()
    done = 0
    for step in steps:
        done = step()
    return done


@pytest.fixture
def answer(desk: Desk, finish: Callable[..., None], admission: Admission) -> Callable[..., list[UUID]]:
    """Answers jobs of a batch as a worker would: those that are queued, or those of these lines."""

    def end(batch_id: UUID, *custom_ids: str) -> list[UUID]:
        chosen = [
            job.id
            for job in desk.jobs(batch_id)
            if job.state == "queued" and (not custom_ids or job.custom_id in custom_ids)
        ]
        for job_id in chosen:
            finish(job_id)
        admission.leave((job_id, 1) for job_id in chosen)
        return chosen

    return end


@pytest.fixture
def run_out(runner: Runner, desk: Desk, answer: Callable[..., list[UUID]]) -> Callable[[UUID], dict[str, Any]]:
    """Answers all that a batch has left, and ends it."""

    def run(batch_id: UUID) -> dict[str, Any]:
        while look(runner, runner.feed) or answer(batch_id) or look(runner, runner.settle):
            pass
        look(runner, runner.end)
        return desk.read(batch_id)

    return run
