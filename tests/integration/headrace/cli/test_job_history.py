"""`headrace jobs show`: one job's whole life, for operators."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from click.testing import Result

from headrace.domain.attempts import AttemptEnd, Usage
from headrace.domain.choices import Choice
from headrace.domain.fleet import WorkerInfo
from headrace.domain.ids import ID_PREFIXES, new_id, show_id
from headrace.domain.limits.budgets import Cost
from headrace.domain.queues import Ticket
from headrace.domain.states import JobState
from headrace.store import Store, attempts
from headrace.store import jobs as job_store
from headrace.store.fleet import workers
from headrace.tables import deliveries, job_texts

Run = Callable[..., Result]
HOOK = "https://hooks.example.com/jobs"
DONE = AttemptEnd("succeeded", 0.5, Cost(usd=0, price_version="v1"), "compute", Usage(8, 5), text="A channel.")


@pytest.fixture
def worker(store: Store) -> UUID:
    info = WorkerInfo(
        **{"id": new_id(), "name": "chat-1", "host_id": "host-1", "pool": "chat", "engine": "simulator"},
        **{"model": "test-model", "max_model_tokens": None, "max_running": 4, "kv_tokens": None},
        **{"kv_block_tokens": None},
    )
    with store.begin() as db:
        workers.register(db, info, 10.0)
    return info.id


@pytest.fixture
def ended(store: Store, queued: Callable[..., Ticket], worker: UUID) -> Ticket:
    """A job that failed once, waited, ran again, succeeded, and told its webhook once in vain."""
    ticket = queued(webhook_url=HOOK)
    with store.begin() as db:
        first = attempts.claim(db, ticket.job_id, ticket.enqueue_no, worker, "simulator")
        assert first is not None
        broken = replace(DONE, outcome="failed", kind="waste", error_code="engine_timeout", text=None)
        assert attempts.retry(db, first, broken, 0.0) is JobState.WAITING
    with store.begin() as db:
        [again] = job_store.enqueue_due(db)
        second = attempts.claim(db, again.job_id, again.enqueue_no, worker, "simulator")
        assert second is not None
    with store.begin() as db:
        assert attempts.finish(db, second, JobState.SUCCEEDED, DONE)
        db.execute(sa.update(deliveries).values(tries=1, last_status=500))
    return ticket


def told(run: Run, job_id: str, *options: str) -> dict[str, Any]:
    result = run("jobs", "show", job_id, "--json", *options)
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def test_jobs_show_tells_a_job_s_whole_life_in_order(run: Run, ended: Ticket) -> None:
    life = told(run, show_id(ended.job_id))

    assert (life["id"], life["app"], life["status"]) == (show_id(ended.job_id), "test", "succeeded")
    names = [event["event"] for event in life["timeline"]]
    assert names == [
        *("accepted", "attempt_started", "attempt_ended", "charged", "queued_again"),
        *("attempt_started", "attempt_ended", "charged", "ended", "webhook"),
    ]
    assert sorted(event["at"] for event in life["timeline"]) == [event["at"] for event in life["timeline"]]
    first, second = (event for event in life["timeline"] if event["event"] == "attempt_started")
    assert (first["attempt"], first["worker"], first["host_id"], first["engine"]) == (
        1,
        "chat-1",
        "host-1",
        "simulator",
    )
    assert second["attempt"] == 2
    failed, succeeded = (event for event in life["timeline"] if event["event"] == "attempt_ended")
    assert (failed["outcome"], failed["error_code"]) == ("failed", "engine_timeout")
    assert (succeeded["outcome"], succeeded["prompt_tokens"], succeeded["output_tokens"]) == ("succeeded", 8, 5)
    charges = [(event["kind"], event["usd"]) for event in life["timeline"] if event["event"] == "charged"]
    assert [kind for kind, _ in charges] == ["waste", "compute"]
    webhook = life["timeline"][-1]
    assert (webhook["url"], webhook["state"], webhook["tries"], webhook["last_status"]) == (HOOK, "pending", 1, 500)


def test_jobs_show_prints_a_table_that_names_each_event(run: Run, ended: Ticket) -> None:
    result = run("jobs", "show", show_id(ended.job_id))
    assert result.exit_code == 0, result.output
    heading, *lines = result.stdout.splitlines()
    assert heading.strip() == f"{show_id(ended.job_id)} of test: succeeded"
    for part in ("accepted", "queued_again", "worker=chat-1", "error_code=engine_timeout", "kind=compute", HOOK):
        assert any(part in line for line in lines), part


@pytest.mark.parametrize("width", [80, 200])
def test_jobs_show_breaks_no_id(run: Run, ended: Ticket, width: int) -> None:
    result = run("jobs", "show", show_id(ended.job_id), COLUMNS=str(width))
    lines = result.stdout.splitlines()
    facts = [
        f"{name}={value}"
        for event in told(run, show_id(ended.job_id))["timeline"]
        for name, value in event.items()
        if name.endswith("id") and name != "job_id"
    ]
    assert len(facts) > 3
    assert [fact for fact in facts if not any(fact in line for line in lines)] == []
    assert [line for line in lines if len(line) > width] == []


@pytest.mark.parametrize("prefix", ID_PREFIXES)
def test_jobs_show_takes_an_id_as_each_api_spells_it(run: Run, queued: Callable[..., Ticket], prefix: str) -> None:
    job_id = queued().job_id
    assert told(run, show_id(job_id, prefix))["id"] == show_id(job_id)


def test_jobs_show_keeps_prompt_and_answer_to_itself_unless_asked(run: Run, store: Store, ended: Ticket) -> None:
    job = show_id(ended.job_id)
    for secret in ("What is a headrace?", "A channel."):
        assert secret not in run("jobs", "show", job).output
        assert secret not in run("jobs", "show", job, "--json").output
        assert secret in run("jobs", "show", job, "--text").stdout
    text = told(run, job, "--text")["text"]
    assert (text["messages"][0]["content"], text["answer"]) == ("What is a headrace?", "A channel.")

    with store.begin() as db:
        db.execute(sa.update(job_texts).values(choices=[Choice("A second answer.", "stop").to_fields()]))
    assert "A second answer." in run("jobs", "show", job, "--text").stdout
    with store.begin() as db:
        db.execute(sa.delete(job_texts))
    assert "erased" in run("jobs", "show", job, "--text").stderr


def test_jobs_show_names_the_retry_and_what_it_is_the_retry_of(
    run: Run, store: Store, queued: Callable[..., Ticket]
) -> None:
    old = show_id(queued().job_id)
    with store.begin() as db:
        db.execute(sa.text("UPDATE jobs SET state = 'failed', ended_at = now()"))
    new = run("retry", old).stdout.split()[-1]
    assert told(run, old)["retried_as"] == new
    assert told(run, new)["retry_of"] == old


@pytest.mark.parametrize("job_id", ["17", "job_01a21546000070000000000000000000"])
def test_jobs_show_names_an_unknown_id(run: Run, job_id: str) -> None:
    result = run("jobs", "show", job_id)
    assert (result.exit_code, result.stderr) == (1, f"Error: No job with id '{job_id}'.\n")


def test_jobs_show_keeps_what_the_paid_api_said_for_the_texts(
    run: Run, store: Store, queued: Callable[..., Ticket]
) -> None:
    job = show_id(queued().job_id)
    with store.begin() as db:
        db.execute(sa.text("UPDATE jobs SET state = 'failed', error_message = 'Bad: my prompt', ended_at = now()"))
    assert "my prompt" in " ".join(run("jobs", "show", job).stdout.split())
    with store.begin() as db:
        db.execute(sa.text("UPDATE jobs SET route = 'overflow'"))
    assert "my prompt" not in run("jobs", "show", job, "--json").output
    assert "my prompt" in " ".join(run("jobs", "show", job, "--text").stdout.split())
