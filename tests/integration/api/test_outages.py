"""Postgres goes away between an accept and the answer: the caller is told which job goes on, and orders no other."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from headrace.errors import StoreUnavailable
from headrace.jobs import show_id
from headrace.store import Store
from headrace.tables import jobs

CHAT = {"messages": [{"role": "user", "content": "Why?"}]}
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "background": ("/v1/responses", {"input": "Why?", "background": True}),
    "waiting": ("/v1/responses", {"input": "Why?"}),
    "streaming": ("/v1/responses", {"input": "Why?", "stream": True}),
    "chat": ("/v1/chat/completions", CHAT),
    "chat, streaming": ("/v1/chat/completions", CHAT | {"stream": True}),
}


@pytest.fixture
def job_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def away(*_: Any) -> None:
        raise StoreUnavailable("Postgres does not answer: gone")

    return lambda: monkeypatch.setattr("headrace.store.jobs.find_all", away)


@pytest.mark.parametrize("way", WAYS)
def test_a_job_that_was_accepted_is_named_and_not_ordered_again(
    client: FlaskClient, store: Store, job_cannot_be_read: Callable[[], None], way: str
) -> None:
    path, body = WAYS[way]
    job_cannot_be_read()

    response = client.post(path, json=body)

    with store.begin() as db:
        [(job_id, state)] = db.execute(sa.select(jobs.c.id, jobs.c.state)).all()
    assert (response.status_code, response.get_json()["error"]["code"]) == (504, "wait_timeout")
    assert (response.headers["x-job-id"], response.headers["x-should-retry"]) == (show_id(job_id), "false")
    assert show_id(job_id) in response.get_json()["error"]["message"]
    assert state == "queued"


def test_a_poll_is_worth_another_try(client: FlaskClient, job_cannot_be_read: Callable[[], None]) -> None:
    job_id = client.post("/v1/jobs", json={"prompt": "Why?"}).get_json()["id"]
    job_cannot_be_read()
    response = client.get(f"/v1/jobs/{job_id}?wait=1")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "2")
