"""The served OpenAPI document holds, whatever is sent: Schemathesis makes the calls from it and checks the answers."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
import schemathesis
import sqlalchemy as sa
from schemathesis.engine import events, from_schema
from schemathesis.engine.recorder import ScenarioRecorder

from api.routes.documentation.openapi import path_of
from api.routes.operations import described
from headrace.config import PoolSettings, Settings
from headrace.domain.apps import App
from headrace.domain.ids import show_id
from headrace.domain.queues import Overflow
from plugins.batches import store as batches
from plugins.batches.domain import BATCH_PREFIX, FILE_PREFIX, Batch, BatchState, LineState, storage_key
from plugins.batches.part import storage_of
from plugins.batches.settings import BatchSettings, FileSettings
from plugins.batches.store import files
from plugins.batches.tables import batch_lines
from tests.web import ApiClient, Web

#: What it runs with, in the words of its own settings file.
SETTINGS: dict[str, Any] = {
    "seed": 1,
    # Seconds: calls that follow from others come last, and are made until then.
    "max-time": 60,
    "generation": {"deterministic": True},
    "phases": {
        "fuzzing": {"generation": {"max-examples": 15}},
        "stateful": {"generation": {"max-examples": 10}},
    },
    "checks": {
        # A schema does not say all that a request must heed, such as prompt or messages, and not both.
        "positive_data_acceptance": {"enabled": False},
        # What OpenAI has beside these calls is answered 404, with what to do instead, and is not in the document.
        "unsupported_method": {"enabled": False},
        "allow_header_conformance": {"enabled": False},
        "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "503", "504"]},
    },
    # It takes a form with both of its fields for one without them, once it has made them of another type.
    "operations": [{"include-name": "POST /v1/files", "checks": {"negative_data_rejection": {"enabled": False}}}],
}
#: Ends of a job that its caller asked for himself, by a max_wait or a deadline that is over at once.
HONEST_ENDS = {"expired", "deadline_exceeded"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run found: statuses by operation, codes of the 5xx, and every check that failed."""

    statuses: dict[str, Counter[int]] = field(default_factory=dict)
    server_errors: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def add(self, recorder: ScenarioRecorder) -> None:
        """Count one scenario."""
        for case_id, interaction in recorder.interactions.items():
            operation, response = recorder.cases[case_id].value.operation, interaction.response
            assert response is not None, operation.label
            self.statuses.setdefault(operation.label, Counter())[response.status_code] += 1
            if response.status_code >= 500:
                self.server_errors[json.loads(response.content)["error"]["code"]] += 1
        self.failures.extend(_failures(recorder))


def _failures(recorder: ScenarioRecorder) -> Iterator[str]:
    for checks in recorder.checks.values():
        for check in checks:
            if found := check.failure_info:
                yield f"{recorder.label} {check.name}: {found.failure}\n{found.code_sample}"


def run(base_url: str, key: str, batch: Batch) -> Outcome:
    """Every phase of Schemathesis against a server: examples, bounds, chance, and calls that follow from others.

    Args: batch: is there, and so is its file. The document's examples name both.
    """
    headers = {"Authorization": f"Bearer {key}"}
    config = schemathesis.Config.from_dict({**SETTINGS, "base-url": base_url, "headers": headers})
    served = httpx2.get(f"{base_url}/openapi.json").json()
    document = json.loads(with_ids(json.dumps(served, ensure_ascii=False), batch))
    for path, methods in document["paths"].items():
        for made in methods.values():
            if path.startswith("/v1/batches/"):
                made["parameters"][0]["example"] = show_id(batch.id, BATCH_PREFIX)
            elif path.startswith("/v1/responses/{"):
                made["parameters"][0]["example"] = answered(base_url, headers)
    schema = schemathesis.openapi.from_dict(document, config=config)
    outcome = Outcome()
    for event in from_schema(schema).execute():
        assert not isinstance(event, events.NonFatalError | events.FatalError), event
        if isinstance(event, events.ScenarioFinished):
            outcome.add(event.recorder)
    return outcome


def answered(base_url: str, headers: dict[str, str]) -> str:
    """The id of a response that has ended: a busy machine may get to no call that follows from another."""
    made = httpx2.post(f"{base_url}/v1/responses", json={"input": "Why?"}, headers=headers, timeout=60)
    return str(made.raise_for_status().json()["id"])


@pytest.fixture
def web(build_web: Callable[..., Web], settings: Settings, tmp_path: Path) -> Web:
    """A server that holds nothing open for long, with a pool for each kind of job."""
    embed = PoolSettings(model="embeds", engine="simulator", serves="embeddings")
    pools, batches = {**settings.pools, "embed": embed}, BatchSettings(files=FileSettings(store=str(tmp_path)))
    return build_web(wait_limit_s=5.0, keep_alive_s=0.1, pools=pools, batches=batches)


def with_ids(text: str, batch: Batch) -> str:
    """The text with this batch's ids in place of those of examples."""
    return text.replace("file-…", show_id(batch.input_file_id, FILE_PREFIX))


@pytest.fixture
def batch(web: Web, app: App) -> Batch:
    """A batch that was cancelled before its only line ran, and its file."""
    with web.deps.store.begin() as db:
        file_id = files.begin(db, app.id, "batch", "lines.jsonl")
    storage_of(web.deps).writer(storage_key(app.id, file_id)).finish()
    with web.deps.store.begin() as db:
        files.finish(db, file_id, "batch", 0, None)
        made = batches.create(
            db,
            app.id,
            window_s=3600,
            most_open=1,
            endpoint="/v1/responses",
            input_file_id=file_id,
            completion_window="1h",
            overflow=Overflow.NEVER,
            state=BatchState.CANCELLED,
            total=1,
            failed=1,
        )
        line = {"number": 1, "custom_id": "1", "prefix": "", "body": '{"input": "Why?"}', "state": LineState.CANCELLED}
        db.execute(sa.insert(batch_lines).values(batch_id=made.id, **line))
    return made


@pytest.fixture
def without_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep Hypothesis from seeking calls that are accepted: its optimiser at times fails with an IndexError (6.170)."""
    monkeypatch.setattr("hypothesis.target", lambda *_, **__: None)


@pytest.mark.usefixtures("answering", "without_targets")
def test_every_answer_to_every_call_is_as_the_document_says(base_url: str, key: str, batch: Batch, web: Web) -> None:
    outcome = run(base_url, key, batch)

    assert outcome.failures == [], "\n\n".join(outcome.failures)
    assert set(outcome.server_errors) <= HONEST_ENDS, outcome.server_errors
    assert set(outcome.statuses) == {f"{each.method.upper()} {path_of(each)}" for each in described(web.server.flask)}
    for operation, counts in outcome.statuses.items():
        assert any(status < 300 for status in counts), f"{operation} never succeeded: {counts}"
    assert sum(map(Counter.total, outcome.statuses.values())) >= 1000, outcome.statuses


@pytest.mark.usefixtures("answering")
def test_each_example_of_the_document_works_as_it_is(client: ApiClient, batch: Batch) -> None:
    for each in described(client.web.server.flask):
        path = each.path.replace("{batch_id}", show_id(batch.id, BATCH_PREFIX))
        for name, body in each.examples.items():
            sent = json.loads(with_ids(json.dumps(body, ensure_ascii=False), batch))
            response = client.open(path, method=each.method.upper(), json=sent)
            assert response.status_code == each.status, (each.path, name, response.get_data())
            kind = "text/event-stream" if body.get("stream") else "application/json"
            assert response.mimetype == kind, (each.path, name)
            assert response.get_data()
