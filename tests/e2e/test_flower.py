"""What Flower shows of jobs, and what its buttons do: asked over Flower's own HTTP API."""

import time
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from headrace.domain.ids import parse_id

#: Of a job that cannot end within it, in seconds.
DEADLINE_S = 3


@pytest.fixture(scope="module")
def system(start: Callable[..., Any]) -> Any:
    """One slot, and an engine that makes 20 tokens a second."""
    slow = {"simulator__output_tokens": "2000", "simulator__decode_tokens_per_s": "20"}
    return start(also=["flower", "webhooks"], pools__chat__max_running="1", **slow)


@pytest.fixture
def flower(system: Any) -> Any:
    report = system.stack.report
    with httpx2.Client(base_url=report.flower_url, auth=tuple(report.flower_auth.split(":")), timeout=30) as client:
        yield client


def task(flower: httpx2.Client, job_id: str) -> dict[str, Any]:
    """What Flower knows of a job; its state is empty before Flower heard of it."""
    answer = flower.get(f"/api/task/info/{job_id}")
    return dict(answer.json()) if answer.status_code == 200 else {"state": ""}


def test_flower_shows_a_failed_job_as_failure_with_its_error_code(
    system: Any, flower: httpx2.Client, wait_until: Callable[..., None]
) -> None:
    good, bad = system.submit(max_tokens=2), system.submit(max_tokens=2000, deadline=time.time() + DEADLINE_S)
    assert [job["status"] for job in system.all_ended([good, bad])] == ["succeeded", "failed"]
    wait_until(lambda: task(flower, bad)["state"] == "FAILURE", "the failure shows")
    assert task(flower, bad)["exception"] == "JobFailed('deadline_exceeded')"
    assert task(flower, bad)["worker"].startswith("gpu@")
    wait_until(lambda: task(flower, good)["state"] == "SUCCESS", "the success shows")


def test_flower_shows_a_failed_webhook_as_a_retry_and_no_worker_has_failed_at_it(
    system: Any, flower: httpx2.Client, wait_until: Callable[..., None]
) -> None:
    job = system.submit(max_tokens=2, webhook="http://127.0.0.1:1/")
    assert system.ended(job)["status"] == "succeeded"

    def tries() -> list[dict[str, Any]]:
        return list(flower.get("/api/tasks?taskname=headrace.deliver").json().values())

    wait_until(lambda: [each["state"] for each in tries()][:1] == ["RETRY"], "the failed try shows")
    assert {each["state"] for each in tries()} == {"RETRY"}
    assert tries()[0]["worker"].startswith("webhooks@")


def test_terminating_a_running_job_in_flower_cancels_it(
    system: Any, flower: httpx2.Client, wait_until: Callable[..., None]
) -> None:
    job = running(system, wait_until)
    answer = flower.post(f"/api/task/revoke/{job}?terminate=true")
    assert answer.status_code == 200, answer.text
    assert system.ended(job)["status"] == "cancelled"
    wait_until(lambda: task(flower, job)["state"] == "REVOKED", "Flower shows it as revoked")
    operator = system.stack.report.flower_auth.partition(":")[0]
    audited = "SELECT actor, source, action FROM audit_log WHERE subject = %s"
    assert system.sql(audited, job) == [{"actor": operator, "source": "celery", "action": "job.cancel"}]


def running(system: Any, wait_until: Callable[..., None]) -> str:
    """A job that runs for longer than a test does."""
    job = str(system.submit(max_tokens=2000))
    wait_until(lambda: status(system, job) == "running", "it was started")
    return job


def status(system: Any, job_id: str) -> str:
    return str(system.http.get(f"/v1/jobs/{job_id}").json()["status"])


def test_revoking_an_unknown_job_is_refused(flower: httpx2.Client) -> None:
    answer = flower.post(f"/api/task/revoke/job_{'0' * 32}")
    assert (answer.status_code, "No job with id" in answer.text) == (403, True)


def test_jobs_that_end_in_their_queue_are_shown_as_revoked(
    system: Any, flower: httpx2.Client, wait_until: Callable[..., None]
) -> None:
    """More jobs than the worker takes are before them, so that no worker ever has them."""
    blockers = [running(system, wait_until), *(system.submit(max_tokens=2000) for _ in range(5))]
    cancelled, expired, revoked = (system.submit(max_tokens=2) for _ in range(3))
    system.http.post(f"/v1/jobs/{cancelled}/cancel")
    system.sql("UPDATE jobs SET start_by = now() WHERE id = %s RETURNING id", parse_id(expired))
    assert flower.post(f"/api/task/revoke/{revoked}").status_code == 200
    ends = [job["status"] for job in system.all_ended([cancelled, expired, revoked])]
    assert ends == ["cancelled", "expired", "cancelled"]
    for job in (cancelled, expired, revoked):
        wait_until(lambda job=job: task(flower, job)["state"] == "REVOKED", "Flower shows it as revoked")
        assert task(flower, job)["name"] == "headrace.execute"
    assert system.sql("SELECT 1 FROM attempts WHERE job_id = %s", parse_id(revoked)) == []
    for blocker in blockers:
        assert flower.post(f"/api/task/revoke/{blocker}?terminate=true").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        *("worker/shutdown/{}", "worker/pool/restart/{}", "worker/pool/grow/{}?n=1", "worker/pool/shrink/{}?n=1"),
        *("worker/pool/autoscale/{}?min=1&max=2", "worker/queue/add-consumer/{}?queue=x"),
        *("worker/queue/cancel-consumer/{}?queue=chat.high", "task/timeout/headrace.execute?workername={}&hard=1"),
        "task/rate-limit/headrace.execute?workername={}&ratelimit=1",
        *("task/apply/headrace.execute", "task/async-apply/headrace.observe", "task/send-task/headrace.observe"),
        "task/abort/job_" + "0" * 32,
    ],
)
def test_flowers_login_cancels_jobs_and_changes_nothing_else(
    flower: httpx2.Client, wait_until: Callable[..., None], path: str
) -> None:
    def worker() -> str:
        return next((name for name in flower.get("/api/workers?refresh=1").json() if name.startswith("gpu@")), "")

    wait_until(worker, "Flower knows the worker")
    answer = flower.post("/api/" + path.format(worker()), json={"args": []})
    assert (answer.status_code, answer.text) == (403, "Read only mode is enabled")


def test_the_page_of_a_running_job_has_the_button_that_cancels_it(
    system: Any, flower: httpx2.Client, wait_until: Callable[..., None]
) -> None:
    job = running(system, wait_until)
    wait_until(lambda: task(flower, job)["state"] == "STARTED", "Flower knows that it runs")
    assert "task-terminate" in flower.get(f"/task/{job}").text
    system.http.post(f"/v1/jobs/{job}/cancel")


def test_flower_shows_no_button_of_what_it_refuses(flower: httpx2.Client) -> None:
    names = flower.get("/api/workers?refresh=1").json()
    page = flower.get(f"/worker/{next(name for name in names if name.startswith('gpu@'))}").text
    assert "worker-shutdown" not in page


def test_the_broker_page_shows_the_queues(flower: httpx2.Client) -> None:
    page = flower.get("/broker")
    assert page.status_code == 200, page.text
    assert "chat.normal" in page.text or "No queues" in page.text
    assert "not supported" not in page.text


def test_the_page_of_a_job_that_flower_did_not_hear_of_says_where_to_look(flower: httpx2.Client) -> None:
    page = flower.get(f"/task/job_{'0' * 32}")
    assert page.status_code == 404
    assert "headrace jobs show ID" in page.text
    assert "GET /v1/jobs/ID" in page.text
