"""Postgres goes away between an accept and the answer: the caller is told which job goes on, and orders no other."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.domain.ids import show_id
from headrace.errors import StoreUnavailable
from headrace.store import Store
from headrace.tables import jobs
from tests.waiting import until
from tests.web import ApiClient

CHAT = {"messages": [{"role": "user", "content": "Why?"}]}
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "background": ("/v1/responses", {"input": "Why?", "background": True}),
    "waiting": ("/v1/responses", {"input": "Why?"}),
    "streaming": ("/v1/responses", {"input": "Why?", "stream": True}),
    "chat": ("/v1/chat/completions", CHAT),
    "chat, streaming": ("/v1/chat/completions", CHAT | {"stream": True}),
}


#: A check is shared for a second. The rest is for a busy machine.
READY_WITHIN_S = 5.0


def readiness(client: ApiClient) -> tuple[int, list[str]]:
    """What /readyz says: its status, and the parts that fail."""
    told = client.get("/readyz")
    return told.status_code, list(told.get_json()["failures"])


@pytest.fixture
def job_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def away(*_: Any) -> None:
        raise StoreUnavailable("Postgres does not answer: gone")

    return lambda: monkeypatch.setattr("headrace.store.jobs.find_all", away)


@pytest.mark.parametrize("way", WAYS)
def test_a_job_that_was_accepted_is_named_and_not_ordered_again(
    client: ApiClient, store: Store, job_cannot_be_read: Callable[[], None], way: str
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


def test_a_poll_is_worth_another_try(client: ApiClient, job_cannot_be_read: Callable[[], None]) -> None:
    job_id = client.post("/v1/jobs", json={"prompt": "Why?"}).get_json()["id"]
    job_cannot_be_read()
    response = client.get(f"/v1/jobs/{job_id}?wait=1")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "2")


def test_read_only_postgres_is_an_outage_to_callers_and_to_readyz(
    client: ApiClient, read_only: Callable[[], AbstractContextManager[None]]
) -> None:
    assert client.post("/v1/jobs", json={"prompt": "Why?"}).status_code == 202
    assert client.get("/readyz").status_code == 200

    with read_only():
        submits = [client.post("/v1/jobs", json={"prompt": "Why?"}) for _ in range(3)]
        until(lambda: readiness(client) == (503, ["postgres"]), "it says so", READY_WITHIN_S)

    assert [(each.status_code, each.headers["Retry-After"]) for each in submits] == [(503, "2")] * 3
    until(lambda: readiness(client) == (200, []), "it is ready again", READY_WITHIN_S)
    assert client.post("/v1/jobs", json={"prompt": "Why?"}).status_code == 202


def test_readyz_writes(client: ApiClient, read_only: Callable[[], AbstractContextManager[None]]) -> None:
    """Also on a connection that was open before the node became read-only, where reads go on as ever."""
    assert client.get("/readyz").status_code == 200

    with read_only():
        until(lambda: readiness(client) == (503, ["postgres"]), "it says so", READY_WITHIN_S)
        assert client.get("/readyz").get_json()["failures"]["postgres"].startswith("Postgres takes no writes")


def test_readyz_does_not_wait_for_a_migration_under_way(client: ApiClient, store: Store) -> None:
    with store.begin() as db:
        db.execute(sa.text("UPDATE alembic_version SET version_num = version_num || '-'"))
        ready = client.get("/readyz")
        db.rollback()

    assert ready.status_code == 200


def test_readyz_fails_while_redis_is_a_read_only_replica(
    client: ApiClient, replica_for_a_while: Callable[[], AbstractContextManager[None]]
) -> None:
    with replica_for_a_while():
        ready, submit = readiness(client), client.post("/v1/jobs", json={"prompt": "Why?"})
    assert ready == (503, ["redis"])
    assert (submit.status_code, submit.headers["Retry-After"]) == (503, "2")
    until(lambda: readiness(client) == (200, []), "it is ready again", READY_WITHIN_S)
    assert client.post("/v1/jobs", json={"prompt": "Why?"}).status_code == 202


def test_full_disk_of_redis_is_an_outage_to_callers_and_to_readyz(
    client: ApiClient, redis_disk_full: Callable[[], AbstractContextManager[None]]
) -> None:
    with redis_disk_full():
        ready, submit = client.get("/readyz"), client.post("/v1/jobs", json={"prompt": "Why?"})
    assert (ready.status_code, submit.status_code) == (503, 503)
    assert client.post("/v1/jobs", json={"prompt": "Why?"}).status_code == 202
