"""What the API answers while Postgres or Redis is down, silent or full."""

import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from uuid import UUID

import httpx2
import pytest
import sqlalchemy as sa
from redis import Redis
from redis.exceptions import OutOfMemoryError

from api.server import THREADS
from headrace.broker.admission import Admission
from headrace.broker.messages import named_in
from headrace.connections.redis import REDIS_TIMEOUT_S
from headrace.domain.ids import parse_id, show_id
from headrace.errors import StoreUnavailable
from headrace.store import Store
from headrace.tables import jobs
from tests.waiting import until
from tests.web import ApiClient, Web

CHAT = {"messages": [{"role": "user", "content": "Why?"}]}
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "waiting": ("/v1/responses", {"input": "Why?"}),
    "chat": ("/v1/chat/completions", CHAT),
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


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_is_accepted_without_a_read(
    client: ApiClient, job_cannot_be_read: Callable[[], None], stream: bool
) -> None:
    job_cannot_be_read()
    response = client.post("/v1/responses", json={"input": "Why?", "background": True, "stream": stream})
    assert response.status_code == 200
    told = next(iter(response.response)) if stream else response.get_data()
    assert b'"status":"queued"' in told
    response.close()


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
    """Also on a connection that was open before the node became read-only, where reads go on."""
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


#: More than there are threads.
STREAMS = THREADS + 88
#: Far less than a time-out of Redis.
AT_ONCE_S = 1.0


@contextmanager
def stopped(redis: Redis) -> Iterator[None]:
    """Valkey, stopped: its connections stay open, and it says nothing."""
    number = redis.info("server")["process_id"]
    os.kill(number, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(number, signal.SIGCONT)


@pytest.fixture
def web(build_web: Callable[..., Web]) -> Web:
    """An API whose streams ask Redis twice in a time-out of it."""
    return build_web(keep_alive_s=REDIS_TIMEOUT_S / 2)


def test_open_streams_keep_no_call_from_its_answer_while_redis_is_silent(
    web: Web, base_url: str, redis: Redis, key: str, make_key: Callable[[str], str]
) -> None:
    held, port = web.deps.waits.slots()["stream"], int(base_url.rpartition(":")[2])
    headers, other = {"Authorization": f"Bearer {key}"}, {"Authorization": f"Bearer {make_key('other')}"}
    with httpx2.Client(base_url=base_url, timeout=30) as client, ExitStack() as streams:
        job = {"input": "Why?", "stream": True, "background": True}
        with client.stream("POST", "/v1/responses", json=job, headers=headers) as first:
            found = re.search(r'"id":"(resp_\w+)"', next(first.iter_text()))
            assert found is not None
        request = f"GET /v1/responses/{found[1]}?stream=true HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n"
        readers = [streams.enter_context(socket.create_connection(("127.0.0.1", port), 30)) for _ in range(STREAMS)]
        for reader in readers:
            reader.sendall(request.encode())
        # Each has asked Redis for the first time.
        assert all(reader.recv(1) for reader in readers)
        assert held.held == STREAMS
        took_s = list[float]()
        with stopped(redis):
            until_s = time.monotonic() + 3 * REDIS_TIMEOUT_S
            while time.monotonic() < until_s:
                for path, status in (("/healthz", 200), ("/v1/models", 200), (f"/v1/jobs/{found[1]}", 404)):
                    began = time.monotonic()
                    assert client.get(path, headers=other).status_code == status
                    took_s.append(time.monotonic() - began)
        assert max(took_s) < AT_ONCE_S
    until(lambda: held.held == 0)


JOB = {"prompt": "Why?"}
QUEUE = "chat.normal"
#: Each insert of a job meets what Postgres answers when its disk has no room.
NO_ROOM = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;
    CREATE TRIGGER full_disk BEFORE INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION refuse()
"""


@contextmanager
def postgres_is_full(store: Store) -> Iterator[None]:
    with store.begin() as db:
        db.execute(sa.text(NO_ROOM))
    yield
    with store.begin() as db:
        db.execute(sa.text("DROP FUNCTION refuse CASCADE"))


@contextmanager
def redis_is_full(redis: Redis) -> Iterator[None]:
    before = redis.config_get("maxmemory")["maxmemory"]
    redis.config_set("maxmemory", "1")
    try:
        yield
    finally:
        redis.config_set("maxmemory", before)


def in_list(admission: Admission) -> list[UUID]:
    return [named[0] for message in admission.messages(QUEUE, 10) if (named := named_in(message))]


def test_a_full_postgres_refuses_for_now_and_leaves_nothing_behind(
    client: ApiClient, store: Store, admission: Admission
) -> None:
    same = {"Idempotency-Key": "one"}
    with postgres_is_full(store):
        refused = client.post("/v1/jobs", json=JOB, headers=same)
        assert (refused.status_code, refused.get_json()["error"]["code"]) == (503, "store_unavailable")
        assert int(refused.headers["Retry-After"]) > 0
        assert admission.loads([QUEUE])[QUEUE].jobs == 0
    accepted = client.post("/v1/jobs", json=JOB, headers=same)

    assert accepted.status_code == 202
    assert in_list(admission) == [parse_id(accepted.get_json()["id"])]
    with store.begin() as db:
        assert db.scalar(sa.select(sa.func.count()).select_from(jobs)) == 1


def test_a_full_redis_still_has_places_which_the_caps_bound(
    client: ApiClient, admission: Admission, redis: Redis
) -> None:
    with redis_is_full(redis):
        with pytest.raises(OutOfMemoryError):
            redis.set("anything", "else")
        accepted = client.post("/v1/jobs", json=JOB)
        assert client.get(f"/v1/jobs/{accepted.get_json()['id']}").status_code == 200

    assert accepted.status_code == 202
    assert in_list(admission) == [parse_id(accepted.get_json()["id"])]
