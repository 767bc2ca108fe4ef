"""Jobs that may not start before a time: they wait in Postgres, without a place in a queue."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from redis import Redis

from headrace.broker.admission import Admission
from headrace.broker.messages import list_key
from headrace.broker.rates import Pace
from headrace.config import LaneSettings, Settings
from headrace.domain.apps import App
from headrace.domain.ids import parse_id, show_id
from headrace.domain.queues import Lane
from headrace.store import Store, apps
from headrace.tables import jobs
from scheduler.deps import ControlDeps
from scheduler.sweep import publish_due
from tests.web import ApiClient, Web

GOOD = {"prompt": "Why is the sky blue?", "max_wait": 60}
QUEUE = "chat.normal"


def later(**ahead: float) -> str:
    return (datetime.now(UTC) + timedelta(**ahead)).isoformat()


def row_of(store: Store, job_id: UUID) -> Any:
    with store.begin() as db:
        return db.execute(sa.select(jobs).where(jobs.c.id == job_id)).one()


def test_a_delayed_job_is_accepted_and_waits_in_no_queue(client: ApiClient, store: Store, redis: Redis) -> None:
    start = later(hours=2)
    answer = client.post("/v1/jobs", json={**GOOD, "not_before": start})

    body = answer.get_json()
    assert (answer.status_code, body["status"], body["position"], body["depth"]) == (202, "waiting", None, None)
    row = row_of(store, parse_id(body["id"]))
    assert (row.state, row.queued_at, row.not_before) == ("waiting", None, datetime.fromisoformat(start))
    assert row.start_by == row.not_before + timedelta(seconds=60)
    assert row.route_reason.startswith("starts at ")
    assert redis.llen(list_key(QUEUE)) == 0


@pytest.fixture
def control(settings: Settings, store: Store, admission: Admission, redis: Redis) -> ControlDeps:
    return ControlDeps(settings, store, admission, Pace(redis))


def test_it_is_queued_once_its_time_has_come(
    client: ApiClient, store: Store, control: ControlDeps, redis: Redis, finish: Callable[..., None]
) -> None:
    job_id = parse_id(client.post("/v1/jobs", json={**GOOD, "not_before": later(hours=2)}).get_json()["id"])
    assert publish_due(control) == 0
    with store.begin() as db:
        db.execute(sa.update(jobs).where(jobs.c.id == job_id).values(not_before=sa.func.now()))

    assert publish_due(control) == 1
    assert (row_of(store, job_id).state, redis.llen(list_key(QUEUE))) == ("queued", 1)
    finish(job_id)
    assert client.get(f"/v1/jobs/{show_id(job_id)}").get_json()["status"] == "succeeded"


def test_the_wait_of_a_delayed_job_begins_at_its_start(
    client: ApiClient, store: Store, control: ControlDeps, finish: Callable[..., None]
) -> None:
    start = later(hours=2)
    shown = datetime.fromisoformat(start).isoformat().replace("+00:00", "Z")
    path = f"/v1/jobs/{client.post('/v1/jobs', json={**GOOD, 'not_before': start}).get_json()['id']}"
    job_id = parse_id(path.rpartition("/")[2])
    waiting = client.get(path).get_json()
    assert (waiting["max_wait"], waiting["wait_s"], waiting["not_before"]) == (60.0, None, shown)
    with store.begin() as db:
        # As if two hours had passed.
        ago = timedelta(hours=2, seconds=2)
        times = {name: jobs.c[name] - ago for name in ("created_at", "start_after", "start_by")}
        db.execute(sa.update(jobs).where(jobs.c.id == job_id).values(not_before=sa.func.now(), **times))
    assert publish_due(control) == 1
    finish(job_id)

    ended = client.get(path).get_json()

    assert ended["max_wait"] == 60.0
    assert 2 <= ended["wait_s"] < 30


def test_one_that_is_cancelled_before_its_start_has_not_waited(client: ApiClient) -> None:
    body = {"input": "Why?", "background": True, "job": {"not_before": later(hours=1), "max_wait": 60}}
    made = client.post("/v1/responses", json=body).get_json()
    cancelled = client.post(f"/v1/responses/{made['id']}/cancel").get_json()

    for each in (made["job"], cancelled["job"]):
        assert (each["max_wait"], each["not_before"]) == (60.0, made["job"]["not_before"])
    assert made["job"]["not_before"] is not None
    assert cancelled["job"]["wait_s"] == 0.0


def test_a_time_that_has_passed_delays_nothing(client: ApiClient) -> None:
    answer = client.post("/v1/jobs", json={**GOOD, "not_before": later(seconds=-5)})

    assert (answer.status_code, answer.get_json()["status"]) == (202, "queued")


def test_a_response_in_the_background_may_start_later(client: ApiClient, store: Store) -> None:
    body = {"input": "Why?", "background": True, "job": {"not_before": later(hours=1)}}
    answer = client.post("/v1/responses", json=body)

    assert (answer.status_code, answer.get_json()["status"]) == (200, "queued")
    assert row_of(store, parse_id(answer.get_json()["id"])).state == "waiting"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", {"input": "Why?"}),
        ("/v1/responses", {"input": "Why?", "stream": True, "background": True}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Why?"}]}),
    ],
    ids=["waiting", "stream", "chat"],
)
def test_no_caller_waits_for_a_delayed_job(client: ApiClient, path: str, body: dict[str, Any]) -> None:
    answer = client.post(path, json={**body, "job": {"not_before": later(hours=1)}})

    error = answer.get_json()["error"]
    assert (answer.status_code, error["param"]) == (400, "job.not_before")
    assert "POST /v1/jobs" in error["message"]


def test_a_start_that_makes_no_sense_is_refused(client: ApiClient) -> None:
    far = client.post("/v1/jobs", json={**GOOD, "not_before": later(days=31)})
    contradiction = client.post("/v1/jobs", json={**GOOD, "not_before": later(hours=2), "deadline": later(hours=1)})
    spelling = client.post("/v1/jobs", json={**GOOD, "not_before": "tomorrow"})

    for answer in (far, contradiction, spelling):
        assert (answer.status_code, answer.get_json()["error"]["param"]) == (400, "not_before")


def test_the_delayed_jobs_of_an_app_are_no_more_than_the_lane_holds(
    build_web: Callable[..., Web], client_of: Any, key: str
) -> None:
    web = build_web(lanes={lane: LaneSettings(depth_cap=2) for lane in Lane})
    client = client_of(key, web)
    answers = [client.post("/v1/jobs", json={**GOOD, "not_before": later(hours=1)}) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [202, 202, 429]
    error = answers[-1].get_json()["error"]
    assert (error["reason"], error["depth"], error["cap"]) == ("delayed", 2, 2)
    assert client.post("/v1/jobs", json=GOOD).status_code == 202


def test_a_delayed_job_counts_in_its_app_s_rate_of_tokens(client: ApiClient, store: Store, app: App) -> None:
    with store.begin() as db:
        apps.set_limits(db, app.name, {"tokens_per_minute": 100})
    body = {**GOOD, "not_before": later(hours=1)}
    never = client.post("/v1/jobs", json={**body, "max_tokens": 100})
    first, again = (client.post("/v1/jobs", json={**body, "max_tokens": 50}) for _ in range(2))

    assert (never.status_code, never.get_json()["error"]["reason"]) == (429, "tokens_per_minute")
    assert "too large for that limit" in never.get_json()["error"]["message"]
    assert never.headers["x-should-retry"] == "false"
    assert (first.status_code, first.headers["x-ratelimit-limit-tokens"]) == (202, "100")
    assert (again.status_code, again.get_json()["error"]["reason"]) == (429, "tokens_per_minute")
    assert int(again.headers["Retry-After"]) > 0


def test_a_delayed_job_is_no_waiting_job_of_its_app_s_limit(client: ApiClient, store: Store, app: App) -> None:
    with store.begin() as db:
        apps.set_limits(db, app.name, {"queued_jobs": 1})
    assert client.post("/v1/jobs", json=GOOD).status_code == 202
    assert client.post("/v1/jobs", json=GOOD).status_code == 429
    assert client.post("/v1/jobs", json={**GOOD, "not_before": later(hours=1)}).status_code == 202


def test_a_delayed_job_is_cancelled_and_replayed_as_any_other(client: ApiClient) -> None:
    body, headers = {**GOOD, "not_before": later(hours=1)}, {"Idempotency-Key": "once"}
    first = client.post("/v1/jobs", json=body, headers=headers)
    again = client.post("/v1/jobs", json=body, headers=headers)

    assert again.get_json()["id"] == first.get_json()["id"]
    assert again.headers["Idempotent-Replayed"] == "true"
    cancelled = client.post(f"/v1/jobs/{first.get_json()['id']}/cancel")
    assert cancelled.get_json()["status"] == "cancelled"
