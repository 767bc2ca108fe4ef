"""`/v1/jobs` on real servers: the accept, the refusal, the replay, the poll, the cancel, and whose job it is."""

import json
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis

from api.auth import KEY_TTL_S
from api.deps import EXTENSION
from headrace.admission import ENDED, Admission, reservations_key
from headrace.broker import list_key
from headrace.config import LaneSettings, Settings
from headrace.jobs import Lane, new_id, parse_id
from headrace.store import Store
from headrace.store.apps import App
from headrace.tables import jobs, refusals

GOOD = {"prompt": "Why is the sky blue?"}
QUEUE = "chat.normal"


def submit(client: FlaskClient, **changes: Any) -> Any:
    return client.post("/v1/jobs", json={**GOOD, **changes})


def submitted(client: FlaskClient, **changes: Any) -> UUID:
    return parse_id(submit(client, **changes).get_json()["id"])


def test_an_accept_says_where_the_job_stands(client: FlaskClient, redis: Redis) -> None:
    submit(client)
    response = submit(client, lane="normal", metadata={"k": "v"})

    body = response.get_json()
    assert response.status_code == 202
    assert response.headers["x-job-id"] == body["id"]
    assert (body["object"], body["status"], body["lane"], body["queue"]) == ("job", "queued", "normal", QUEUE)
    assert (body["position"], body["depth"]) == (2, 2)
    assert body["start_by"].endswith("Z")
    assert redis.llen(list_key(QUEUE)) == 2
    assert redis.zcard(reservations_key(QUEUE)) == 0
    assert body["id"] in redis.lindex(list_key(QUEUE), 0)
    assert GOOD["prompt"] not in redis.lindex(list_key(QUEUE), 0)


def test_a_full_queue_answers_429_with_the_numbers(
    build_web: Callable[..., Flask],
    client_of: Callable[..., FlaskClient],
    key: str,
    settings: Settings,
    store: Store,
    app: App,
) -> None:
    web = build_web(lanes={**settings.lanes, Lane.NORMAL: LaneSettings(depth_cap=2)})
    client = client_of(key, web)
    assert [submit(client).status_code for _ in range(3)] == [202, 202, 429]

    response = submit(client)

    error = response.get_json()["error"]
    assert (error["code"], error["type"]) == ("queue_full", "rate_limit_error")
    assert QUEUE in error["message"]
    assert "2 jobs" in error["message"]
    assert 1 <= int(response.headers["Retry-After"]) <= 120
    assert submit(client, lane="high").status_code == 202
    web.extensions[EXTENSION].refusals.flush()
    with store.begin() as db:
        assert db.scalar(sa.select(sa.func.count()).select_from(jobs)) == 3
        counted = db.execute(sa.select(refusals.c.app_id, refusals.c.queue, refusals.c.reason, refusals.c.jobs)).one()
    assert tuple(counted) == (app.id, QUEUE, "queue_full", 2)


def test_the_same_key_with_the_same_body_is_one_job(client: FlaskClient, redis: Redis) -> None:
    headers = {"Idempotency-Key": '"a"'}
    first = client.post("/v1/jobs", json=GOOD, headers=headers)

    again = client.post("/v1/jobs", json=GOOD, headers={"Idempotency-Key": "a"})

    assert (again.status_code, again.get_json()["id"]) == (202, first.get_json()["id"])
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    assert redis.llen(list_key(QUEUE)) == 1


def test_the_same_key_with_another_body_is_refused(client: FlaskClient, redis: Redis) -> None:
    headers = {"Idempotency-Key": "a"}
    client.post("/v1/jobs", json=GOOD, headers=headers)

    other = client.post("/v1/jobs", json={"prompt": "Another"}, headers=headers)

    assert (other.status_code, other.get_json()["error"]["code"]) == (422, "idempotency_key_reused")
    assert redis.llen(list_key(QUEUE)) == 1


def test_a_key_sent_many_times_at_once_makes_one_job(web: Flask, client_of: Any, key: str, redis: Redis) -> None:
    ids: list[str] = []

    def post() -> None:
        response = client_of(key).post("/v1/jobs", json=GOOD, headers={"Idempotency-Key": "a"})
        ids.append(response.get_json()["id"])

    threads = [threading.Thread(target=post) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(ids) == 8
    assert len(set(ids)) == 1
    assert redis.llen(list_key(QUEUE)) == 1
    assert redis.zcard(reservations_key(QUEUE)) == 0


def test_one_apps_key_is_another_apps_own(client: FlaskClient, client_of: Any, make_key: Any) -> None:
    headers = {"Idempotency-Key": "a"}
    first = client.post("/v1/jobs", json=GOOD, headers=headers)
    other = client_of(make_key("other")).post("/v1/jobs", json=GOOD, headers=headers)
    assert first.get_json()["id"] != other.get_json()["id"]


def test_a_finished_job_has_its_answer_its_usage_and_its_cost(client: FlaskClient, finish: Any) -> None:
    job_id = submitted(client, metadata={"k": "v"}, end_user="u")
    finish(job_id)

    body = client.get(f"/v1/jobs/job_{job_id.hex}").get_json()

    assert (body["status"], body["text"], body["finish_reason"]) == (
        "succeeded",
        "Because of Rayleigh scattering.",
        "stop",
    )
    assert (body["engine"], body["model_served"], body["attempts"]) == ("simulator", "served", 1)
    assert body["usage"] == {"prompt_tokens": 9, "output_tokens": 7, "cached_tokens": 2, "total_tokens": 16}
    assert body["cost"] == {"usd": "0.000001230", "currency": "USD", "price_version": "test-1"}
    assert (body["metadata"], body["end_user"], body["error"]) == ({"k": "v"}, "u", None)
    assert body["wait_s"] >= 0
    assert body["run_s"] >= 0


@pytest.mark.parametrize("prefix", ["job_", "resp_", "chatcmpl-"])
def test_a_job_answers_to_each_of_its_names(client: FlaskClient, prefix: str) -> None:
    job_id = submitted(client)
    assert client.get(f"/v1/jobs/{prefix}{job_id.hex}").get_json()["id"] == f"job_{job_id.hex}"


def test_another_apps_job_does_not_exist(client: FlaskClient, client_of: Any, make_key: Any) -> None:
    job_id = submitted(client)
    other = client_of(make_key("other"))

    answers = [
        other.get(f"/v1/jobs/job_{job_id.hex}"),
        other.get(f"/v1/jobs/job_{job_id.hex}?wait=30"),
        other.post(f"/v1/jobs/job_{job_id.hex}/cancel"),
        other.get(f"/v1/responses/resp_{job_id.hex}"),
        other.post(f"/v1/responses/resp_{job_id.hex}/cancel"),
    ]

    assert [answer.status_code for answer in answers] == [404] * 5
    assert other.get("/v1/jobs").get_json()["data"] == []
    assert client.get(f"/v1/jobs/job_{job_id.hex}").get_json()["status"] == "queued"


def eventually(condition: Callable[[], bool]) -> None:
    """Return once it holds."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def test_a_wait_ends_when_the_end_is_announced(
    client: FlaskClient, redis: Redis, finish: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without the message, only the recheck could end the wait, and that comes too late.
    monkeypatch.setattr("api.waits.RECHECK_S", 3600)
    job_id = submitted(client)
    answers: list[Any] = []
    waiting = threading.Thread(
        target=lambda: answers.append(client.get(f"/v1/jobs/job_{job_id.hex}?wait=60").get_json())
    )
    waiting.start()
    eventually(lambda: dict(redis.pubsub_numsub(ENDED))[ENDED] == 1)

    finish(job_id)

    waiting.join(20)
    assert not waiting.is_alive()
    assert answers[0]["status"] == "succeeded"


def test_an_open_wait_holds_no_database_connection(
    client: FlaskClient, web: Flask, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.waits.RECHECK_S", 3600)
    engine = web.extensions[EXTENSION].store._engine
    job_id = submitted(client)
    waiting = threading.Thread(target=lambda: client.get(f"/v1/jobs/job_{job_id.hex}?wait=60"))
    waiting.start()

    # A wait that held one would never get there.
    eventually(lambda: dict(redis.pubsub_numsub(ENDED))[ENDED] == 1 and engine.pool.checkedout() == 0)

    assert waiting.is_alive()
    web.extensions[EXTENSION].waits.close()
    waiting.join(20)
    assert not waiting.is_alive()


def test_a_wait_that_runs_out_shows_the_job_as_it_stands(client: FlaskClient) -> None:
    job_id = submitted(client)
    response = client.get(f"/v1/jobs/job_{job_id.hex}?wait=0.05")
    assert (response.status_code, response.get_json()["status"]) == (200, "queued")


def test_a_cancel_takes_the_job_out_of_its_queue(client: FlaskClient, redis: Redis) -> None:
    job_id = submitted(client)

    first = client.post(f"/v1/jobs/job_{job_id.hex}/cancel")
    again = client.post(f"/v1/jobs/job_{job_id.hex}/cancel")

    assert [answer.get_json()["status"] for answer in (first, again)] == ["cancelled", "cancelled"]
    assert redis.llen(list_key(QUEUE)) == 0


def test_a_cancel_leaves_an_ended_job_as_it_is(client: FlaskClient, finish: Any) -> None:
    job_id = submitted(client)
    finish(job_id)
    assert client.post(f"/v1/jobs/job_{job_id.hex}/cancel").get_json()["status"] == "succeeded"


def test_the_list_goes_back_in_time_page_by_page(client: FlaskClient, finish: Any) -> None:
    ids = [f"job_{submitted(client).hex}" for _ in range(3)]

    first = client.get("/v1/jobs?limit=2").get_json()
    second = client.get(f"/v1/jobs?limit=2&after={first['last_id']}").get_json()

    assert [job["id"] for job in first["data"]] == [ids[2], ids[1]]
    assert [job["id"] for job in second["data"]] == [ids[0]]
    assert (first["has_more"], second["has_more"]) == (True, False)
    finish(parse_id(ids[1]))
    done = client.get("/v1/jobs?status=succeeded").get_json()["data"]
    assert [job["id"] for job in done] == [ids[1]]


def test_the_queues_say_how_full_they_are(client: FlaskClient, admission: Admission) -> None:
    admission.publish_drain_rates({"chat.high": 0.5})
    submit(client, lane="high")

    queues = {queue["queue"]: queue for queue in client.get("/v1/queues").get_json()["data"]}

    assert list(queues) == ["chat.high", "chat.normal", "chat.low", "chat.batch"]
    high = queues["chat.high"]
    assert (high["depth"], high["depth_cap"], high["drain_jobs_per_s"]) == (1, 500, 0.5)
    assert high["expected_wait_s"] == 4.0
    assert queues["chat.low"]["expected_wait_s"] is None


def test_a_revoked_key_stops_working_soon(client: FlaskClient, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.get("/v1/models").status_code == 200
    with store.begin() as db:
        db.execute(sa.text("UPDATE api_keys SET revoked_at = now()"))

    later = time.monotonic() + KEY_TTL_S
    monkeypatch.setattr("api.auth.time", SimpleNamespace(monotonic=lambda: later))

    assert client.get("/v1/models").status_code == 401


def test_nothing_is_accepted_while_redis_is_down(build_web: Any, client_of: Any, key: str, store: Store) -> None:
    response = submit(client_of(key, build_web(redis_url="redis://127.0.0.1:1/0")))
    assert (response.status_code, response.get_json()["error"]["code"]) == (503, "broker_unavailable")
    assert int(response.headers["Retry-After"]) > 0
    with store.begin() as db:
        assert db.scalar(sa.select(sa.func.count()).select_from(jobs)) == 0


def test_readiness_says_what_fails(web: Flask, build_web: Any, store: Store) -> None:
    assert web.test_client().get("/readyz").get_json() == {"status": "ready", "failures": {}}
    lost = build_web(redis_url="redis://127.0.0.1:1/0", database_url="postgresql://x@127.0.0.1:1/x")
    response = lost.test_client().get("/readyz")
    assert response.status_code == 503
    assert set(response.get_json()["failures"]) == {"postgres", "redis"}
    assert lost.test_client().get("/healthz").status_code == 200


@pytest.mark.parametrize(("revision", "ready"), [("0001", False), (None, False), ("9999_from_a_newer_release", True)])
def test_readiness_asks_for_this_releases_migrations_at_least(
    web: Flask, store: Store, revision: str | None, ready: bool
) -> None:
    with store.begin() as db:
        head = db.scalar(sa.text("SELECT version_num FROM alembic_version"))
        db.execute(sa.text("DELETE FROM alembic_version"))
        if revision:
            db.execute(sa.text("INSERT INTO alembic_version VALUES (:revision)"), {"revision": revision})
    try:
        assert web.test_client().get("/readyz").status_code == (200 if ready else 503)
    finally:
        with store.begin() as db:
            db.execute(sa.text("DELETE FROM alembic_version"))
            db.execute(sa.text("INSERT INTO alembic_version VALUES (:head)"), {"head": head})


def test_the_log_has_no_prompt_and_no_key(client: FlaskClient, key: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    submit(client, prompt="canary in the prompt")
    submit(client, prompt="canary in the prompt\0")
    assert "canary" not in caplog.text
    assert key not in caplog.text


def test_a_job_of_nobody_is_not_found(client: FlaskClient) -> None:
    assert client.get(f"/v1/jobs/job_{new_id().hex}").status_code == 404
    assert json.loads(client.get("/v1/jobs").get_data())["data"] == []
