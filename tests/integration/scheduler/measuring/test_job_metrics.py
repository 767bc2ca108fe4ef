"""What a control process tells Prometheus of jobs: each is counted once, by its queue and how it ended."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from headrace.domain.attempts import AttemptEnd, Claim
from headrace.domain.limits import Cost
from headrace.domain.queues import Lane, Ticket
from headrace.domain.states import JobState
from headrace.store import Store, attempts, jobs
from scheduler.deps import BOUNDS_S, ControlDeps
from scheduler.observe import observe
from scheduler.sweep import expire
from tests import one_attempt

END = AttemptEnd("succeeded", 0.1, Cost(Decimal(0), "v1"), "compute")
FAULT = AttemptEnd("failed", 0.1, Cost(Decimal(0), "v1"), "waste", error_code="engine_fault")
NORMAL = 'lane="normal",pool="chat"'

Observed = Callable[..., list[str]]


@pytest.fixture
def observed(deps: ControlDeps, serve: Any) -> Observed:
    """Observes once more; returns the samples that begin with this name, and are not 0."""
    hasty = replace(deps, settings=deps.settings.model_copy(update={"observe_every_s": 0.001}))
    scrape = serve(deps.tallies)

    def look(name: str) -> list[str]:
        assert observe(hasty)
        return [line for line in scrape() if line.startswith(name) and not line.endswith(" 0.0")]

    look("")
    return look


def test_accepted_jobs_are_counted_by_queue(queued: Callable[..., Ticket], observed: Observed) -> None:
    queued()
    queued()
    queued(lane=Lane.BATCH)
    expected = [
        'headrace_jobs_accepted_total{lane="batch",pool="chat"} 1.0',
        f"headrace_jobs_accepted_total{{{NORMAL}}} 2.0",
    ]
    assert observed("headrace_jobs_accepted") == expected
    assert observed("headrace_jobs_accepted") == expected


def test_a_wait_counts_once_at_the_first_start(
    store: Store, queued: Callable[..., Ticket], age: Any, claim: Callable[..., Claim], observed: Observed, query: Any
) -> None:
    ticket = queued(max_wait_s=3600)
    age(ticket.job_id, timedelta(seconds=90))
    with store.begin() as db:
        attempts.retry(db, claim(ticket.job_id, 1), FAULT, 0)
    buckets = observed("headrace_job_wait_seconds_bucket")
    query("UPDATE jobs SET state = 'queued', enqueue_no = 2, queued_at = now(), not_before = NULL")
    claim(ticket.job_id, 2)

    assert buckets == [
        f'headrace_job_wait_seconds_bucket{{lane="normal",le="{le}",pool="chat"}} 1.0'
        for le in ("120.0", "300.0", "600.0", "1800.0", "3600.0", "86400.0", "+Inf")
    ]
    assert observed("headrace_job_wait_seconds_bucket") == buckets
    [total] = observed("headrace_job_wait_seconds_sum")
    assert 90 <= float(total.split()[1]) < 100


def test_jobs_are_counted_by_their_end_and_runs_by_their_length(
    deps: ControlDeps,
    store: Store,
    queued: Callable[..., Ticket],
    age: Any,
    claim: Callable[..., Claim],
    observed: Observed,
    query: Any,
) -> None:
    good, bad, cancelled, late = (queued() for _ in range(4))
    with store.begin() as db:
        claims = {state: claim(job.job_id, 1) for state, job in (("succeeded", good), ("failed", bad))}
    query("UPDATE jobs SET started_at = now() - interval '15 seconds' WHERE state = 'running'")
    with store.begin() as db:
        assert one_attempt.finish(db, claims["succeeded"], JobState.SUCCEEDED, END)
        assert one_attempt.finish(db, claims["failed"], JobState.FAILED, FAULT)
        jobs.cancel(db, None, cancelled.job_id)
    age(late.job_id, timedelta(hours=1))
    assert expire(deps) == 1

    ended = [
        f'headrace_jobs_ended_total{{error_code="",{NORMAL},state="cancelled"}} 1.0',
        f'headrace_jobs_ended_total{{error_code="expired",{NORMAL},state="expired"}} 1.0',
        f'headrace_jobs_ended_total{{error_code="engine_fault",{NORMAL},state="failed"}} 1.0',
        f'headrace_jobs_ended_total{{error_code="",{NORMAL},state="succeeded"}} 1.0',
    ]
    assert observed("headrace_jobs_ended") == ended
    assert observed("headrace_jobs_ended") == ended
    first = 'headrace_job_run_seconds_bucket{lane="normal",le="20.0",pool="chat"} 2.0'
    assert observed("headrace_job_run_seconds_bucket")[0] == first


def test_jobs_that_end_between_two_attempts_are_counted_once(
    deps: ControlDeps,
    store: Store,
    queued: Callable[..., Ticket],
    claim: Callable[..., Claim],
    observed: Observed,
    query: Any,
) -> None:
    cancelled, late, stopped = (queued() for _ in range(3))
    with store.begin() as db:
        for ticket in (cancelled, late):
            attempts.retry(db, claim(ticket.job_id, 1), FAULT, 60)
        running = claim(stopped.job_id, 1)
    assert observed("headrace_jobs_ended") == []
    query("UPDATE jobs SET finish_by = now() WHERE id = :id", id=late.job_id)
    with store.begin() as db:
        jobs.cancel(db, None, cancelled.job_id)
        # It has an entry in the ledger, as the others have of their first attempt.
        assert one_attempt.finish(db, running, JobState.CANCELLED, replace(END, outcome="aborted"))
    assert expire(deps) == 1

    ended = [
        f'headrace_jobs_ended_total{{error_code="",{NORMAL},state="cancelled"}} 2.0',
        f'headrace_jobs_ended_total{{error_code="deadline_exceeded",{NORMAL},state="failed"}} 1.0',
    ]
    assert observed("headrace_jobs_ended") == ended
    assert observed("headrace_jobs_ended") == ended
    [count] = observed("headrace_job_run_seconds_count")
    assert count.endswith(" 3.0")


@pytest.mark.parametrize("bound_s", BOUNDS_S)
def test_a_wait_of_a_bound_is_in_its_bucket(
    queued: Callable[..., Ticket], observed: Observed, query: Any, bound_s: float
) -> None:
    for _ in range(2):
        queued()
    query("UPDATE jobs SET started_at = now(), created_at = now() - :bound * interval '1 second'", bound=bound_s)
    query("UPDATE jobs SET created_at = created_at - interval '1 ms' WHERE id = (SELECT id FROM jobs LIMIT 1)")

    lines = observed("headrace_job_wait_seconds_bucket")

    assert lines[0].endswith(f'le="{bound_s}",pool="chat"}} 1.0')
    assert lines[-1].endswith("2.0")
