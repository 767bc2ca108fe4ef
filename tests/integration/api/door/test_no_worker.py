"""A pool that no worker serves: each reply says so, and when a worker comes."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.config import BudgetSettings, LaneSettings, Settings
from headrace.domain.fleet import RETRY_UNSERVED_S, ProcessInfo, ProcessKind, WorkerInfo
from headrace.domain.hosts import HostEnd
from headrace.domain.ids import new_id
from headrace.domain.queues import Lane
from headrace.store import Store
from headrace.store.fleet import hosts, processes, workers
from headrace.store.fleet.hosts import HostPrice
from headrace.store.money import budgets
from headrace.store.scaling.capacity import LEAST_LEFT_S
from headrace.tables import refusals
from tests.web import ApiClient, Web

JOB = {"prompt": "Why is the sky blue?", "max_tokens": 16}
LATE = {"max_tokens": 16, "job": {"max_wait": 0.3}}
CHAT = {"messages": [{"role": "user", "content": "Hi"}], **LATE}
Build = Callable[..., ApiClient]


@pytest.fixture
def build(
    build_web: Callable[..., Web], client_of: Any, key: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Build:
    """A client of a server whose lane `normal` takes one job, and that reads past its caches."""
    monkeypatch.setattr("api.door.vacancies.VACANCY_TTL_S", -1.0)
    monkeypatch.setattr("headrace.broker.forecast.LIVE_TTL_S", -1.0)
    monkeypatch.setattr("api.door.catalogue.FLEETS_TTL_S", -1.0)
    monkeypatch.setattr("headrace.broker.admission.STANDING_TTL_MS", 1)
    monkeypatch.setattr("api.health.REPORT_TTL_S", -1.0)

    def make(**changes: Any) -> ApiClient:
        lanes = {**settings.lanes, Lane.NORMAL: LaneSettings(depth_cap=1)}
        client: ApiClient = client_of(key, build_web(lanes=lanes, **changes))
        return client

    return make


@pytest.fixture
def start(store: Store) -> Callable[..., None]:
    """Starts a worker of a pool."""

    def make(pool: str = "chat") -> None:
        with store.begin() as db:
            workers.register(db, WorkerInfo(new_id(), f"{pool}@test", "host-1", pool, "simulator", "served", 8), 600)

    return make


@pytest.fixture
def order(store: Store, query: Callable[..., Any]) -> Callable[..., str]:
    """Orders a host of the pool, some time ago."""

    def make(age_s: float = 0.0) -> str:
        with store.begin() as db:
            [host_id] = hosts.add_orders(db, "chat", 1, HostPrice(), 1)
        query(f"UPDATE hosts SET requested_at = now() - interval '{age_s} seconds'")
        return host_id

    return make


def see(store: Store, kind: ProcessKind, pool: str | None = None, mode: str | None = None) -> None:
    """A sign of life of a process."""
    with store.begin() as db:
        processes.beat(db, ProcessInfo(new_id(), kind, f"{kind}@test", "test", 7, "0.1.0", pool, mode), {})


def accept(client: ApiClient, **changes: Any) -> tuple[str | None, float | None]:
    body = client.post("/v1/jobs", json={**JOB, "lane": "high", **changes}).get_json()
    return body["reason"], body["worker_in_s"]


def refuse(client: ApiClient) -> tuple[dict[str, Any], str | None, str | None]:
    """The error of a full queue, and its headers Retry-After and x-should-retry."""
    client.post("/v1/jobs", json=JOB)
    response = client.post("/v1/jobs", json=JOB)
    assert response.status_code == 429
    error: dict[str, Any] = response.get_json()["error"]
    return error, response.headers.get("Retry-After"), response.headers.get("x-should-retry")


def test_an_accept_says_that_no_worker_serves_the_pool(build: Build, start: Callable[..., None]) -> None:
    client = build()
    assert accept(client) == ("no_worker", None)
    response = {"input": "Hi", "background": True, "service_tier": "priority"}
    job = client.post("/v1/responses", json=response).get_json()["job"]
    assert (job["reason"], job["worker_in_s"]) == ("no_worker", None)
    start()
    assert accept(client) == (None, None)
    job = client.post("/v1/responses", json=response).get_json()["job"]
    assert (job["reason"], job["worker_in_s"]) == (None, None)


def test_without_a_worker_to_come_a_refused_app_need_not_try_again(build: Build, store: Store) -> None:
    client = build()
    error, retry_after, should_retry = refuse(client)
    assert (error["code"], error["reason"], error["worker_in_s"]) == ("queue_full", "no_worker", None)
    assert (error["depth"], error["cap"], error["unit"]) == (1, 1, "jobs")
    assert error["message"].endswith("No worker serves pool chat: none is coming. Do not retry soon.")
    assert (retry_after, should_retry) == (None, "false")
    client.web.deps.submitter.refusals.counts.flush()
    with store.begin() as db:
        assert db.scalars(sa.select(refusals.c.reason)).all() == ["no_worker"]


def test_a_host_on_order_says_when_to_come_back(build: Build, order: Callable[..., str], store: Store) -> None:
    client = build()
    host_id = order(age_s=220)
    reason, worker_in_s = accept(client)
    assert reason == "no_worker"
    assert worker_in_s is not None
    assert 0 < worker_in_s <= 80, "a host takes 300 s"
    error, retry_after, should_retry = refuse(client)
    assert error["reason"] == "no_worker"
    assert 0 < error["worker_in_s"] <= 80
    assert retry_after is not None
    assert 0 < int(retry_after) <= 80
    assert should_retry is None
    assert f"a host is on order, and ready in about {retry_after} s. Retry after {retry_after} s." in error["message"]
    with store.begin() as db:
        hosts.drain(db, [host_id], HostEnd.BY_HAND)
    assert accept(client) == ("no_worker", None), "it will serve nothing"


def test_a_host_that_comes_late_names_its_time_and_the_sdk_does_not_wait(
    build: Build, order: Callable[..., str]
) -> None:
    client = build()
    order()
    _, retry_after, should_retry = refuse(client)
    assert retry_after is not None
    assert 120 < int(retry_after) <= 300
    assert should_retry == "false"


def test_a_host_that_is_overdue_is_expected_soon(build: Build, order: Callable[..., str]) -> None:
    client = build()
    order(age_s=900)
    assert accept(client) == ("no_worker", LEAST_LEFT_S)


@pytest.mark.parametrize(
    ("kind", "pool", "mode"),
    [(ProcessKind.GPU, "chat", None), (ProcessKind.CONTROL, None, "active")],
    ids=["a worker loads its model", "the autoscaler may order one"],
)
def test_a_worker_that_may_come_is_worth_another_try(
    build: Build, store: Store, query: Callable[..., Any], kind: ProcessKind, pool: str | None, mode: str | None
) -> None:
    client = build()
    see(store, ProcessKind.GPU, pool="fast")
    see(store, ProcessKind.CONTROL, mode="advisory")
    _, retry_after, should_retry = refuse(client)
    assert (retry_after, should_retry) == (None, "false"), "they are of no use to this pool"
    query("DELETE FROM processes")
    see(store, kind, pool=pool, mode=mode)
    error, retry_after, should_retry = refuse(client)
    assert (error["reason"], retry_after, should_retry) == ("no_worker", str(RETRY_UNSERVED_S), None)


def test_a_caller_who_waited_in_vain_learns_why(build: Build, start: Callable[..., None]) -> None:
    client = build()
    response = client.post("/v1/chat/completions", json=CHAT)
    error = response.get_json()["error"]
    assert (response.status_code, error["code"], error["reason"]) == (503, "expired", "no_worker")
    assert "It cost nothing. No worker serves pool chat: none is coming." in error["message"]
    assert response.headers["x-should-retry"] == "false"
    assert "Retry-After" not in response.headers
    start()
    response = client.post("/v1/chat/completions", json=CHAT)
    error = response.get_json()["error"]
    assert (response.status_code, error["code"], "reason" in error) == (503, "expired", False)
    assert int(response.headers["Retry-After"]) > 0


@pytest.mark.parametrize(("path", "asked"), [("chat/completions", CHAT), ("completions", {"prompt": "Hi", **LATE})])
def test_a_stream_that_waited_in_vain_ends_with_the_reason(build: Build, path: str, asked: dict[str, Any]) -> None:
    text = build().post(f"/v1/{path}", json={**asked, "stream": True}).get_data(as_text=True)
    error = json.loads(text.rpartition("data: ")[2])["error"]
    assert (error["code"], error["reason"], error["worker_in_s"]) == ("expired", "no_worker", None)
    assert error["message"].endswith("It cost nothing. No worker serves pool chat: none is coming. Do not retry soon.")


def test_readiness_and_the_queues_say_so(
    build: Build, start: Callable[..., None], order: Callable[..., str], store: Store, query: Callable[..., Any]
) -> None:
    client = build(openai_api_key="sk-test")

    def read() -> tuple[str | None, set[tuple[str | None, bool]]]:
        ready = client.get("/readyz")
        assert ready.status_code == 200
        queues = [queue for queue in client.get("/v1/queues").get_json()["data"] if queue["pool"] == "chat"]
        found = {(queue["reason"], queue["worker_in_s"] is not None) for queue in queues}
        return ready.get_json()["warnings"].get("no_worker"), found

    assert read() == ("No worker serves chat: jobs wait there, and expire. Start one.", {("no_worker", False)})
    start("overflow")
    text, _ = read()
    assert text is not None
    assert "until the paid API takes those that may go there" in text
    order(age_s=220)
    text, queues = read()
    assert text is not None
    assert text.startswith("No worker serves chat: a host is on order, and ready in about ")
    assert queues == {("no_worker", True)}
    start()
    assert read() == (None, {(None, False)})


def test_a_pool_whose_jobs_the_paid_api_takes_is_not_called_dead(
    build: Build, start: Callable[..., None], store: Store
) -> None:
    client = build(openai_api_key="sk-test")
    with store.begin() as db:
        budgets.set_limits(db, {"day_usd": Decimal(5)}, BudgetSettings())
    start("overflow")
    assert accept(client) == (None, None)
    assert accept(client, overflow="never") == ("no_worker", None)


def test_a_paid_api_that_no_worker_calls_is_an_outage_with_its_reason(build: Build, store: Store) -> None:
    client = build(openai_api_key="sk-test")
    response = client.post("/v1/jobs", json={**JOB, "overflow": "only"})
    error = response.get_json()["error"]
    assert (response.status_code, error["code"], error["reason"]) == (503, "overflow_unavailable", "no_worker")
    assert error["message"] == "No worker calls the paid API: none is coming. Do not retry soon."
    assert response.headers["x-should-retry"] == "false"
    see(store, ProcessKind.OVERFLOW)
    response = client.post("/v1/jobs", json={**JOB, "overflow": "only"})
    assert response.headers["Retry-After"] == str(RETRY_UNSERVED_S)
    assert "x-should-retry" not in response.headers
