"""`/v1/jobs` on real servers: the accept, the refusal, the replay, the poll, the cancel, and whose job it is."""

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from redis import Redis

from api.auth import KEY_TTL_S
from headrace.broker.admission import Admission, books_key
from headrace.broker.messages import list_key
from headrace.broker.news import listeners_key
from headrace.config import BudgetSettings, LaneSettings, Settings
from headrace.domain.apps import App
from headrace.domain.attempts import AttemptEnd, Claim, Usage
from headrace.domain.fleet import ProcessInfo, ProcessKind, WorkerInfo, WorkerReport
from headrace.domain.ids import new_id, oldest_id, parse_id, show_id
from headrace.domain.limits import Cost
from headrace.domain.queues import Lane, Ticket
from headrace.domain.states import JobState
from headrace.policies.forecasting import LaneRates, PoolRates, to_json
from headrace.store import Store, apps
from headrace.store.fleet import processes, workers
from headrace.store.jobs import texts
from headrace.store.money import budgets, tariffs
from headrace.store.money.tariffs import ListPrice
from headrace.tables import jobs, refusals
from tests import one_attempt
from tests.waiting import until
from tests.web import ApiClient, Web

GOOD = {"prompt": "Why is the sky blue?", "max_tokens": 256}
QUEUE = "chat.normal"
#: What the job above counts for: its prompt and the most output that it may have.
JOB_TOKENS = 7 + 256


def submit(client: ApiClient, **changes: Any) -> Any:
    return client.post("/v1/jobs", json={**GOOD, **changes})


@pytest.fixture
def working(store: Store, queued: Callable[..., Ticket]) -> Callable[..., None]:
    """Puts one worker of the pool to work, with this number of jobs running on it."""

    def make(slots: int, running: int) -> None:
        worker = WorkerInfo(new_id(), "gpu@test", "host-1", "chat", "simulator", "served", slots, 2048, 65_536, 16)
        with store.begin() as db:
            workers.register(db, worker, 600)
        for ticket in [queued() for _ in range(running)]:
            with store.begin() as db:
                assert one_attempt.claim(db, ticket.job_id, 1, worker.id, "simulator")

    return make


def submitted(client: ApiClient, **changes: Any) -> UUID:
    return parse_id(submit(client, **changes).get_json()["id"])


def test_an_accept_says_where_the_job_stands(client: ApiClient, redis: Redis) -> None:
    submit(client)
    response = submit(client, lane="normal", metadata={"k": "v"})

    body = response.get_json()
    assert response.status_code == 202
    assert response.headers["x-job-id"] == body["id"]
    assert (body["object"], body["status"], body["lane"], body["queue"]) == ("job", "queued", "normal", QUEUE)
    assert (body["position"], body["depth"]) == (2, 2)
    assert body["start_by"].endswith("Z")
    assert redis.llen(list_key(QUEUE)) == 2
    assert redis.zcard(books_key("reservations", QUEUE)) == 0
    assert body["id"] in redis.lindex(list_key(QUEUE), 0)
    assert GOOD["prompt"] not in redis.lindex(list_key(QUEUE), 0)


def test_max_tokens_and_max_wait_left_out_are_chosen_and_echoed(client: ApiClient) -> None:
    for lane, max_wait_s in (("high", 600.0), ("normal", 600.0), ("low", 14_400.0), ("batch", 86_400.0)):
        accepted = client.post("/v1/jobs", json={"prompt": "Why?", "lane": lane}).get_json()
        read = client.get(f"/v1/jobs/{accepted['id']}").get_json()
        for body in (accepted, read):
            assert (body["max_tokens"], body["max_wait"]) == (1024, max_wait_s)


Limited = Callable[..., ApiClient]


@pytest.fixture
def limited(build_web: Callable[..., Web], client_of: Any, key: str, settings: Settings) -> Limited:
    """A client of a server whose lane `normal` has these settings."""

    def make(**changes: Any) -> ApiClient:
        web = build_web(lanes={**settings.lanes, Lane.NORMAL: LaneSettings(**changes)})
        client: ApiClient = client_of(key, web)
        return client

    return make


def problem(response: Any, status: int = 429) -> dict[str, Any]:
    assert response.status_code == status, response.get_data()
    error: dict[str, Any] = response.get_json()["error"]
    return error


def test_a_full_queue_answers_429_with_the_numbers(limited: Limited, store: Store, app: App) -> None:
    client = limited(depth_cap=2)
    assert [submit(client).status_code for _ in range(3)] == [202, 202, 429]

    response = submit(client)

    error = problem(response)
    assert (error["code"], error["type"], error["param"]) == ("queue_full", "rate_limit_error", None)
    told = {name: error[name] for name in ("reason", "queue", "depth", "cap", "unit", "expected_wait_s")}
    assert told == {
        **{"reason": "no_worker", "queue": QUEUE, "depth": 2, "cap": 2, "unit": "jobs"},
        "expected_wait_s": None,
    }
    full = f"Queue {QUEUE} is full: 2 jobs wait and its cap is 2."
    assert error["message"] == f"{full} No worker serves pool chat: none is coming. Do not retry soon."
    assert response.headers["x-should-retry"] == "false"
    assert "Retry-After" not in response.headers
    assert "x-job-id" not in response.headers
    assert submit(client, lane="high").status_code == 202
    client.web.deps.submitter.refusals.counts.flush()
    with store.begin() as db:
        assert db.scalar(sa.select(sa.func.count()).select_from(jobs)) == 3
        key = (refusals.c.app_id, refusals.c.queue, refusals.c.reason, refusals.c.is_repeat)
        counted = db.execute(sa.select(*key, refusals.c.jobs).order_by(refusals.c.is_repeat)).all()
    # The same body again is no further demand.
    assert [tuple(row) for row in counted] == [
        (app.id, QUEUE, "no_worker", False, 1),
        (app.id, QUEUE, "no_worker", True, 1),
    ]


def test_a_full_queue_refuses_what_is_valid_and_needs_a_place(limited: Limited) -> None:
    client = limited(depth_cap=1)
    keyed = {"Idempotency-Key": "once"}
    first = client.post("/v1/jobs", json={"prompt": "Hi"}, headers=keyed)
    assert (first.status_code, submit(client).status_code) == (202, 429)
    assert client.post("/v1/jobs", data=b"{", content_type="application/json").status_code == 400
    assert client.post("/v1/jobs", json={"prompt": "Hi", "max_tokens": "many"}).status_code == 400
    assert client.post("/v1/jobs", json={"prompt": "Hi"}, headers=keyed).get_json()["id"] == first.get_json()["id"]
    assert client.post("/v1/jobs", json={"prompt": "Hi", "lane": "high"}).status_code == 202


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions"])
@pytest.mark.parametrize("stream", [True, False])
def test_openais_ways_are_refused_alike(limited: Limited, path: str, stream: bool) -> None:
    client = limited(depth_cap=1)
    submit(client)
    body = {"input": "Hi"} if path == "/v1/responses" else {"messages": [{"role": "user", "content": "Hi"}]}
    response = client.post(path, json={**body, "stream": stream})
    assert (problem(response)["code"], response.mimetype) == ("queue_full", "application/json")
    assert response.headers["x-should-retry"] == "false"


def test_the_depth_and_the_cap_of_a_429_are_of_one_kind_as_in_queues(
    limited: Limited, working: Callable[..., None]
) -> None:
    working(slots=1, running=1)
    client = limited(backlog_cap_tokens=300)
    assert submit(client).status_code == 202
    error = problem(submit(client))
    assert (error["reason"], error["depth"], error["cap"], error["unit"]) == ("tokens", JOB_TOKENS, 300, "tokens")
    [queue] = [each for each in client.get("/v1/queues").get_json()["data"] if each["queue"] == QUEUE]
    assert (queue["backlog_tokens"], queue["backlog_cap_tokens"]) == (error["depth"], error["cap"])
    assert "tokens wait, this job may take" in error["message"]


def test_an_app_leaves_room_for_another_that_wants_some(
    limited: Limited, client_of: Any, make_key: Any, working: Callable[..., None], admission: Admission
) -> None:
    working(slots=1, running=1)
    admission.publish_outlook(to_json({"chat": PoolRates(1000.0)}), for_s=600)
    client = limited(depth_cap=4)
    other: ApiClient = client_of(make_key("other"), client.application)
    ids = [submit(client).get_json()["id"] for _ in range(4)]
    assert problem(submit(other))["reason"] == "depth"

    # Of the next places two are the other's, who is back in time.
    for job_id in ids[:2]:
        client.post(f"/v1/jobs/{job_id}/cancel")
    error = problem(submit(client))
    assert (error["reason"], error["cap"]) == ("share", 2)
    # What it was told a moment ago may be repeated to it for a moment.
    until(lambda: submit(other).status_code == 202)
    assert submit(other).status_code == 202
    assert [submit(client).status_code, submit(other).status_code] == [429, 429]


def test_a_job_that_would_start_too_late_is_refused_at_once(
    client: ApiClient, admission: Admission, working: Callable[..., None]
) -> None:
    working(slots=1, running=1)
    # 10 tokens a second, and each job may take 263.
    lanes = {Lane.NORMAL: LaneRates(1.0, JOB_TOKENS)}
    admission.publish_outlook(to_json({"chat": PoolRates(10.0, lanes)}), for_s=600)
    for expected_wait_s in (26.3, 52.6):
        assert submit(client, max_wait=60).get_json()["expected_wait_s"] == pytest.approx(expected_wait_s, rel=0.05)

    response = submit(client, max_wait=45)

    error = problem(response)
    assert (error["reason"], error["depth"], error["unit"]) == ("wait", 2 * JOB_TOKENS, "tokens")
    assert error["expected_wait_s"] == pytest.approx(78.9, rel=0.05)
    assert 1 <= int(response.headers["Retry-After"]) <= 35
    never = submit(client, max_wait=1e-3)
    assert problem(never)["reason"] == "wait"
    assert submit(client, max_wait=120).status_code == 202


def test_what_is_too_far_away_must_not_be_tried_again(
    client: ApiClient, admission: Admission, working: Callable[..., None]
) -> None:
    working(slots=1, running=1)
    admission.publish_outlook(to_json({"chat": PoolRates(1.0)}), for_s=600)
    submit(client, max_wait=3600)
    response = submit(client, max_wait=1)
    assert problem(response)["message"].endswith("Do not retry soon.")
    assert response.headers["x-should-retry"] == "false"
    assert "Retry-After" not in response.headers


def test_an_apps_own_limits_are_told_in_openais_headers(client: ApiClient, store: Store, app: App) -> None:
    with store.begin() as db:
        apps.set_limits(db, app.name, {"requests_per_minute": 2, "tokens_per_minute": 6000})
    first = submit(client)
    assert first.status_code == 202
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert first.headers["x-ratelimit-reset-requests"] == "30s"
    assert first.headers["x-ratelimit-limit-tokens"] == "6000"
    assert int(first.headers["x-ratelimit-remaining-tokens"]) == 6000 - JOB_TOKENS
    chat = client.post("/v1/responses", json={"input": "Hi", "background": True})
    assert chat.headers["x-ratelimit-remaining-requests"] == "0"

    refused = submit(client)

    error = problem(refused)
    assert (error["code"], error["reason"], error["type"]) == (
        "rate_limit_exceeded",
        "requests_per_minute",
        "rate_limit_error",
    )
    assert 1 <= int(refused.headers["Retry-After"]) <= 30
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    too_large = submit(client, max_tokens=1900, prompt="word " * 20)
    assert problem(too_large)["reason"] == "requests_per_minute"


def test_a_job_that_is_larger_than_its_apps_minute_is_told_never(client: ApiClient, store: Store, app: App) -> None:
    with store.begin() as db:
        apps.set_limits(db, app.name, {"tokens_per_minute": 100})
    response = submit(client)
    assert problem(response)["reason"] == "tokens_per_minute"
    assert response.headers["x-should-retry"] == "false"
    assert submit(client, max_tokens=20).status_code == 202


def test_an_app_may_have_so_many_jobs_waiting(client: ApiClient, store: Store, app: App) -> None:
    with store.begin() as db:
        apps.set_limits(db, app.name, {"queued_jobs": 2})
    ids = [submit(client, lane=lane).get_json()["id"] for lane in ("high", "low")]
    error = problem(submit(client))
    assert (error["reason"], error["cap"], error["code"]) == ("app_jobs", 2, "queue_full")
    client.post(f"/v1/jobs/{ids[0]}/cancel")
    until(lambda: submit(client).status_code == 202)


def test_the_same_key_with_the_same_body_is_one_job(client: ApiClient, redis: Redis) -> None:
    headers = {"Idempotency-Key": '"a"'}
    first = client.post("/v1/jobs", json=GOOD, headers=headers)

    again = client.post("/v1/jobs", json=GOOD, headers={"Idempotency-Key": "a"})

    assert (again.status_code, again.get_json()["id"]) == (202, first.get_json()["id"])
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    assert redis.llen(list_key(QUEUE)) == 1


def test_the_same_key_with_another_body_is_refused(client: ApiClient, redis: Redis) -> None:
    headers = {"Idempotency-Key": "a"}
    client.post("/v1/jobs", json=GOOD, headers=headers)

    other = client.post("/v1/jobs", json={"prompt": "Another"}, headers=headers)

    assert (other.status_code, other.get_json()["error"]["code"]) == (422, "idempotency_key_reused")
    assert redis.llen(list_key(QUEUE)) == 1


def test_a_key_sent_many_times_at_once_makes_one_job(web: Web, client_of: Any, key: str, redis: Redis) -> None:
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
    assert redis.zcard(books_key("reservations", QUEUE)) == 0


def test_one_apps_key_is_another_apps_own(client: ApiClient, client_of: Any, make_key: Any) -> None:
    headers = {"Idempotency-Key": "a"}
    first = client.post("/v1/jobs", json=GOOD, headers=headers)
    other = client_of(make_key("other")).post("/v1/jobs", json=GOOD, headers=headers)
    assert first.get_json()["id"] != other.get_json()["id"]


def test_a_finished_job_has_its_answer_its_usage_and_its_cost(client: ApiClient, finish: Any) -> None:
    job_id = submitted(client, metadata={"k": "v"}, end_user="u")
    finish(job_id)

    body = client.get(f"/v1/jobs/job_{job_id.hex}").get_json()

    assert (body["status"], body["text"], body["finish_reason"]) == (
        "succeeded",
        "Because of Rayleigh scattering.",
        "stop",
    )
    assert (body["engine"], body["model_served"], body["attempts"]) == ("simulator", "served", 1)
    usage = {
        "prompt_tokens": 9,
        "output_tokens": 7,
        "cached_tokens": 2,
        "reasoning_tokens": 0,
        "total_tokens": 16,
        "original_tokens": None,
    }
    assert (body["usage"], body["reasoning"]) == (usage, None)
    assert body["cost"] == {"usd": "0.000001230", "currency": "USD", "price_version": "test-1"}
    assert (body["metadata"], body["end_user"], body["error"]) == ({"k": "v"}, "u", None)
    assert body["wait_s"] >= 0
    assert body["run_s"] >= 0


def test_a_job_has_the_log_probabilities_of_its_tokens_where_they_were_asked_for(
    client: ApiClient, finish: Any
) -> None:
    job_ids = [submitted(client, **asked) for asked in ({}, {"top_logprobs": 0}, {"top_logprobs": 2})]
    for job_id in job_ids:
        finish(job_id)

    none, alone, two = [client.get(f"/v1/jobs/job_{job_id.hex}").get_json()["logprobs"] for job_id in job_ids]

    assert none is None
    assert [token["token"] for token in alone] == ["Because of ", "Rayleigh ", "scattering.", "<|im_end|>"]
    assert alone[1] == {"token": "Rayleigh ", "logprob": -0.5, "bytes": list(b"Rayleigh "), "top_logprobs": []}
    assert [top["token"] for top in two[0]["top_logprobs"]] == ["Because of ", "other0"]
    assert {job["logprobs"] for job in client.get("/v1/jobs").get_json()["data"]} == {None}


def test_a_job_has_what_the_model_thought(client: ApiClient, finish: Any) -> None:
    job_id = submitted(client, prompt="Do think.")
    finish(job_id)

    body = client.get(f"/v1/jobs/job_{job_id.hex}").get_json()

    assert (body["reasoning"], body["text"]) == ("Light, and air: ", "Because of Rayleigh scattering.")
    assert (body["usage"]["reasoning_tokens"], body["usage"]["output_tokens"]) == (3, 7)
    [listed] = client.get("/v1/jobs").get_json()["data"]
    assert (listed["reasoning"], listed["usage"]["reasoning_tokens"]) == (None, 3)


@pytest.mark.parametrize("prefix", ["job_", "resp_", "chatcmpl-"])
def test_a_job_answers_to_each_of_its_names(client: ApiClient, prefix: str) -> None:
    job_id = submitted(client)
    assert client.get(f"/v1/jobs/{prefix}{job_id.hex}").get_json()["id"] == f"job_{job_id.hex}"
    assert client.get(f"/v1/responses/{prefix}{job_id.hex}").get_json()["id"] == f"resp_{job_id.hex}"


def test_another_apps_job_does_not_exist(client: ApiClient, client_of: Any, make_key: Any) -> None:
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


def is_heard(redis: Redis, job_id: UUID) -> bool:
    """Whether a process that listens to its channel hears of the job."""
    return any(dict(redis.pubsub_numsub(channel))[channel] for channel in redis.smembers(listeners_key(job_id)))


def test_a_wait_ends_when_the_end_is_announced(
    client: ApiClient, redis: Redis, finish: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without the message, only the recheck could end the wait, and that comes too late.
    monkeypatch.setattr("api.reading.RECHECK_S", 3600)
    job_id = submitted(client)
    answers: list[Any] = []
    waiting = threading.Thread(
        target=lambda: answers.append(client.get(f"/v1/jobs/job_{job_id.hex}?wait=60").get_json())
    )
    waiting.start()
    until(lambda: is_heard(redis, job_id))

    finish(job_id)

    waiting.join(20)
    assert not waiting.is_alive()
    assert answers[0]["status"] == "succeeded"


def test_an_open_wait_holds_no_database_connection(
    client: ApiClient, web: Web, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.reading.RECHECK_S", 3600)
    engine = web.deps.store._engine
    job_id = submitted(client)
    waiting = threading.Thread(target=lambda: client.get(f"/v1/jobs/job_{job_id.hex}?wait=60"))
    waiting.start()

    # One is kept for inserts. A wait that held another would never get there.
    until(lambda: is_heard(redis, job_id) and engine.pool.checkedout() == 1)

    assert waiting.is_alive()
    web.deps.waits.close()
    waiting.join(20)
    assert not waiting.is_alive()


def test_a_wait_that_runs_out_shows_the_job_as_it_stands(client: ApiClient) -> None:
    job_id = submitted(client)
    response = client.get(f"/v1/jobs/job_{job_id.hex}?wait=0.05")
    assert (response.status_code, response.get_json()["status"]) == (200, "queued")


def test_a_cancel_takes_the_job_out_of_its_queue(client: ApiClient, redis: Redis) -> None:
    job_id = submitted(client)

    first = client.post(f"/v1/jobs/job_{job_id.hex}/cancel")
    again = client.post(f"/v1/jobs/job_{job_id.hex}/cancel")

    assert [answer.get_json()["status"] for answer in (first, again)] == ["cancelled", "cancelled"]
    assert redis.llen(list_key(QUEUE)) == 0


def claimed(store: Store, job_id: UUID) -> Claim:
    worker = WorkerInfo(new_id(), "gpu@test", "host-1", "chat", "simulator", "served", 8, 2048, 65_536, 16)
    with store.begin() as db:
        workers.register(db, worker, 30)
        claim = one_attempt.claim(db, job_id, 1, worker.id, "simulator")
    assert claim is not None
    return claim


def test_a_cancel_of_a_running_job_answers_with_the_state_that_its_worker_confirms(
    client: ApiClient, store: Store, admission: Admission
) -> None:
    job_id = submitted(client)
    claim = claimed(store, job_id)

    def is_requested() -> bool:
        with store.begin() as db:
            return bool(db.scalar(sa.select(jobs.c.cancel_requested_at).where(jobs.c.id == job_id)))

    def confirm() -> None:
        until(is_requested)
        end = AttemptEnd("aborted", 0.5, Cost(Decimal(0), "test-1"), "waste", Usage(9, 7, 2), "", "abort", "served")
        with store.begin() as db:
            one_attempt.finish(db, claim, JobState.CANCELLED, end)
        admission.announce_ended([job_id])

    worker = threading.Thread(target=confirm)
    worker.start()
    answer = client.post(f"/v1/jobs/job_{job_id.hex}/cancel").get_json()
    worker.join(20)
    assert answer["status"] == "cancelled"


def test_a_cancel_that_no_worker_confirms_answers_with_the_job_as_it_stands(
    client: ApiClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.routes.jobs.CONFIRMED_WITHIN_S", 0.1)
    job_id = submitted(client)
    claimed(store, job_id)
    assert client.post(f"/v1/jobs/job_{job_id.hex}/cancel").get_json()["status"] == "running"


def test_a_cancel_leaves_an_ended_job_as_it_is(client: ApiClient, finish: Any) -> None:
    job_id = submitted(client)
    finish(job_id)
    assert client.post(f"/v1/jobs/job_{job_id.hex}/cancel").get_json()["status"] == "succeeded"


def test_the_list_goes_back_in_time_page_by_page(client: ApiClient, finish: Any) -> None:
    ids = [f"job_{submitted(client).hex}" for _ in range(3)]

    first = client.get("/v1/jobs?limit=2").get_json()
    second = client.get(f"/v1/jobs?limit=2&after={first['last_id']}").get_json()

    assert [job["id"] for job in first["data"]] == [ids[2], ids[1]]
    assert [job["id"] for job in second["data"]] == [ids[0]]
    assert (first["has_more"], second["has_more"]) == (True, False)
    finish(parse_id(ids[1]))
    done = client.get("/v1/jobs?status=succeeded").get_json()["data"]
    assert [job["id"] for job in done] == [ids[1]]


def test_the_queues_say_how_full_they_are(
    client: ApiClient, admission: Admission, working: Callable[..., None]
) -> None:
    working(slots=10, running=10)
    admission.publish_outlook(to_json({"chat": PoolRates(26.3, {Lane.HIGH: LaneRates(1.0, JOB_TOKENS)})}), for_s=600)
    submit(client, lane="high")

    def queues() -> dict[str, Any]:
        return {queue["queue"]: queue for queue in client.get("/v1/queues").get_json()["data"]}

    assert list(queues()) == ["chat.high", "chat.normal", "chat.low", "chat.batch"]
    # 263 tokens wait; at 263 a second they have drained in one, and a slot frees in another.
    until(lambda: queues()["chat.high"]["expected_wait_s"] == 2.0)
    high = queues()["chat.high"]
    assert high == {
        "queue": "chat.high",
        "object": "queue",
        "pool": "chat",
        "lane": "high",
        "depth": 1,
        "depth_cap": 500,
        "backlog_tokens": JOB_TOKENS,
        "expected_tokens": JOB_TOKENS,
        "backlog_cap_tokens": 1_000_000,
        "apps": 1,
        "takes": 10,
        "max_wait_s": 600.0,
        "interactive_max_wait_s": 30.0,
        "latency_goal_s": None,
        "drain_tokens_per_s": 263.0,
        "expected_wait_s": 2.0,
        "reason": None,
        "worker_in_s": None,
        "workers": 1,
        "running": 10,
        "slots": 10,
    }
    assert [queue["depth"] for queue in queues().values()] == [1, 0, 0, 0]
    assert [queue["takes"] for queue in queues().values()] == [10, 4, 1, 1]


def test_without_workers_nobody_can_tell_how_long_a_queue_takes(client: ApiClient) -> None:
    for queue in client.get("/v1/queues").get_json()["data"]:
        assert (queue["expected_wait_s"], queue["drain_tokens_per_s"], queue["workers"]) == (None, None, 0)


def test_a_revoked_key_stops_working_soon(client: ApiClient, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_readiness_says_what_fails(web: Web, build_web: Any, store: Store) -> None:
    ready = web.test_client().get("/readyz").get_json()
    assert (ready["status"], ready["failures"]) == ("ready", {})
    assert set(ready["warnings"]) == {"no_worker"}
    lost = build_web(redis_url="redis://127.0.0.1:1/0", database_url="postgresql://x@127.0.0.1:1/x")
    response = lost.test_client().get("/readyz")
    assert response.status_code == 503
    assert set(response.get_json()["failures"]) == {"postgres", "redis"}
    assert lost.test_client().get("/healthz").status_code == 200


def test_readiness_warns_of_a_control_process_and_a_beat_that_are_not_seen(
    web: Web, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.health.START_S", 0.0)

    def warnings() -> dict[str, str]:
        found: dict[str, str] = web.test_client().get("/readyz").get_json()["warnings"]
        return found

    assert warnings()["control"].startswith("No control process was seen yet: no job expires")
    for kind in (ProcessKind.CONTROL, ProcessKind.BEAT):
        with store.begin() as db:
            processes.beat(db, ProcessInfo(new_id(), kind, f"{kind}@test", "test", 7, "0.1.0", None, None), {})
    until(lambda: not {"control", "beat"} & warnings().keys(), "a new check sees them")
    with store.begin() as db:
        db.execute(sa.text("UPDATE processes SET seen_at = now() - interval '90 s' WHERE kind = 'beat'"))
    until(lambda: "No process beat was seen for 9" in warnings().get("beat", ""), "a new check misses it")


def test_readiness_warns_of_a_paid_api_without_a_budget(build_web: Any, store: Store) -> None:
    web = build_web(openai_api_key="sk-test")
    ready = web.test_client().get("/readyz")
    assert ready.status_code == 200
    assert "'headrace budgets set --day-usd 5' opens it" in ready.get_json()["warnings"]["overflow"]
    with store.begin() as db:
        budgets.set_limits(db, {"day_usd": Decimal(5)}, BudgetSettings())
    until(lambda: "overflow" not in web.test_client().get("/readyz").get_json()["warnings"], "a new check sees it")


def test_a_paid_model_is_used_once_its_list_price_is_taken(
    build_web: Any, client_of: Any, key: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.door.paid.TARIFF_TTL_S", -1.0)  # each submit reads the prices
    worker = WorkerInfo(new_id(), "overflow@test", "host-1", "overflow", "openai", "gpt-4o-mini", 8)
    with store.begin() as db:
        workers.register(db, worker, 600)
        workers.renew(db, worker.id, 600, WorkerReport(0, ready=True))
        budgets.set_limits(db, {"day_usd": Decimal(5)}, BudgetSettings())
    client = client_of(key, build_web(openai_api_key="sk-test", prices={}))

    assert "'headrace prices take gpt-4o-mini'" in client.get("/readyz").get_json()["warnings"]["prices"]
    assert "No price is listed for 'gpt-4o-mini'" in problem(submit(client, overflow="only"), 400)["message"]
    with store.begin() as db:
        tariffs.take_list(db, [ListPrice("gpt-4o-mini", Decimal(1), Decimal(1), Decimal(1), {}, "a list")])
    accepted = submit(client, overflow="only")

    assert (accepted.status_code, accepted.get_json()["queue"]) == (202, "overflow.normal")
    until(lambda: "prices" not in client.get("/readyz").get_json()["warnings"], "a new check sees it")


@pytest.mark.parametrize(("revision", "ready"), [("0001", False), (None, False), ("9999_from_a_newer_release", True)])
def test_readiness_asks_for_this_releases_migrations_at_least(
    web: Web, store: Store, revision: str | None, ready: bool
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


def test_the_log_has_no_prompt_and_no_key(client: ApiClient, key: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    submit(client, prompt="canary in the prompt")
    submit(client, prompt="canary in the prompt\0")
    assert "canary" not in caplog.text
    assert key not in caplog.text


def test_a_job_of_nobody_is_not_found(client: ApiClient) -> None:
    assert client.get(f"/v1/jobs/job_{new_id().hex}").status_code == 404
    assert json.loads(client.get("/v1/jobs").get_data())["data"] == []


def test_who_reads_a_job_whose_time_is_over_ends_it_and_frees_its_place(
    client: ApiClient, admission: Admission, redis: Redis
) -> None:
    job_id = submitted(client, max_wait=1)

    while client.get(f"/v1/jobs/job_{job_id.hex}").get_json()["status"] != "expired":
        assert redis.llen(list_key(QUEUE)) == 1

    assert admission.loads([QUEUE])[QUEUE].jobs == 0
    assert redis.llen(list_key(QUEUE)) == 0


def test_a_job_whose_texts_were_kept_for_long_enough_is_found_no_more(
    client: ApiClient, queued: Callable[..., Ticket], store: Store
) -> None:
    path = f"/v1/jobs/{show_id(queued(id=oldest_id(datetime.now(UTC) - timedelta(days=3))).job_id)}"
    with store.begin() as db:
        db.execute(sa.update(jobs).values(state="succeeded", ended_at=sa.func.now() - timedelta(days=2)))
        assert texts.forget_old(db, keep_days=3) == 0
    assert client.get(path).status_code == 200

    with store.begin() as db:
        assert texts.forget_old(db, keep_days=2) == 1

    assert [client.get(path).status_code, client.delete(path).status_code] == [404, 404]
    assert client.get("/v1/jobs").get_json()["data"] == []


def test_web_logs_job_accepted_once_with_app_queue_and_request_id(
    client: ApiClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    answers = [client.post("/v1/jobs", json=GOOD, headers={"Idempotency-Key": "one"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202], answers[0].json

    [line] = [entry for record in caplog.records if record.message == "job_accepted" for entry in record.each]
    assert (line["job_id"], line["queue"], line["app"]) == (answers[0].json["id"], QUEUE, "test")
    assert line["request_id"] == answers[0].headers["x-request-id"]
