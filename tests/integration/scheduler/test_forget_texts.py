"""Texts that have been kept for long enough go, and all that they cost stays."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from headrace.config import Settings
from headrace.domain.answers import Alternative, TokenLogprob
from headrace.domain.attempts import AttemptEnd, Usage
from headrace.domain.deliveries import Terms
from headrace.domain.limits import Cost
from headrace.domain.prompts import Message, Sampling
from headrace.domain.queues import Ticket
from headrace.domain.states import JobState
from headrace.errors import NotFound
from headrace.store import deliveries, jobs
from headrace.store.jobs import overview
from headrace.tables import metadata
from scheduler import sweep
from scheduler.deps import ControlDeps
from tests import one_attempt

KEEP_DAYS = 30
CANARY = "canary-7f3a"
HOOK = "https://receiver.example/hook"
TOKEN = TokenLogprob(token=CANARY, logprob=-0.5, top_logprobs=[Alternative(token=CANARY, logprob=-0.5)])
ANSWERED = AttemptEnd(
    "succeeded",
    1.5,
    Cost(Decimal("0.002"), "v1"),
    "compute",
    Usage(9, 5, 0),
    text=f"An answer with the {CANARY}.",
    finish_reason="stop",
    logprobs=[TOKEN],
    reasoning=f"It thinks of the {CANARY}.",
)
REJECTED = AttemptEnd(
    "failed", 0.5, Cost(Decimal("0.001"), "v1"), "waste", error_code="rejected", error_message=f"Not this: {CANARY}"
)

Ended = Callable[..., Ticket]


@pytest.fixture
def deps(deps: ControlDeps) -> ControlDeps:
    """With a system that keeps texts for `KEEP_DAYS`."""
    return replace(deps, settings=deps.settings.model_copy(update={"keep_texts_days": KEEP_DAYS}))


@pytest.fixture
def with_texts(query: Any) -> Callable[[], set[UUID]]:
    """The jobs whose texts are there."""
    return lambda: {job_id for (job_id,) in query("SELECT job_id FROM job_texts")}


@pytest.fixture
def run(deps: ControlDeps, claim: Any, made_days_ago: Any, query: Any) -> Callable[[JobState, AttemptEnd], UUID]:
    """Lets a worker run a job to this end, with a canary in all that its caller and its engine say, a while ago."""

    def to_its_end(target: JobState, end: AttemptEnd) -> UUID:
        ticket = made_days_ago(
            KEEP_DAYS + 1,
            messages=(Message("system", "Be brief."), Message("user", f"Say {CANARY}.")),
            sampling=Sampling(max_tokens=16, stop=(CANARY,), top_logprobs=1),
            metadata={"order": CANARY},
            webhook_url=HOOK,
        )
        with deps.store.begin() as db:
            assert one_attempt.finish(db, claim(ticket.job_id, 1), target, end)
        query("UPDATE jobs SET ended_at = ended_at - make_interval(days => :days)", days=KEEP_DAYS + 1)
        return ticket.job_id

    return to_its_end


def places_of_the_canary(query: Any) -> set[str]:
    """The tables that have it anywhere in a row."""
    found = "SELECT 1 FROM {0} AS each WHERE each::text LIKE :canary"
    names = [table.name for table in metadata.sorted_tables]
    return {name for name in names if query(found.format(name), canary=f"%{CANARY}%")}


def test_no_table_has_a_text_left_and_the_bill_is_as_it_was(deps: ControlDeps, run: Any, query: Any) -> None:
    ended = {run(JobState.SUCCEEDED, ANSWERED), run(JobState.FAILED, REJECTED)}
    bill = "SELECT * FROM cost_per_request ORDER BY job_id"
    facts = "SELECT id, state, error_code, usd, output_tokens, started_at, ended_at FROM jobs ORDER BY id"
    kept = [bill, facts, "SELECT * FROM ledger ORDER BY id", "SELECT * FROM attempts ORDER BY job_id"]
    before = [query(statement) for statement in kept]
    assert [len(rows) for rows in before] == [2, 2, 2, 2]
    assert places_of_the_canary(query) == {"jobs", "job_texts"}

    assert sweep.forget_texts(deps) == 2

    assert places_of_the_canary(query) == set()
    assert [query(statement) for statement in kept] == before
    assert query("SELECT DISTINCT erased_at IS NULL, metadata, error_message FROM jobs") == [(False, {}, None)]
    [[app_id]] = query("SELECT id FROM apps")
    with deps.store.begin() as db:
        assert jobs.newest(db, app_id) == []
        for job_id in ended:
            with pytest.raises(NotFound):
                jobs.find(db, app_id, job_id)


def test_a_webhook_that_is_still_on_its_way_is_sent(deps: ControlDeps, run: Any, query: Any) -> None:
    job_id = run(JobState.SUCCEEDED, ANSWERED)
    assert sweep.forget_texts(deps) == 1
    with deps.store.begin() as db:
        [delivery] = deliveries.pull(db, Terms(1, per_app=1, per_receiver=1, max_tries=1, lease_s=60)).deliveries
    assert (delivery.event, delivery.data["job_id"]) == ("response.completed", f"job_{job_id.hex}")


def test_jobs_that_have_not_ended_or_not_long_ago_keep_their_texts(
    deps: ControlDeps, ended: Ended, made_days_ago: Any, running_under: Any, with_texts: Any, query: Any
) -> None:
    tickets = [made_days_ago(KEEP_DAYS + 1) for _ in range(4)]
    waiting, queued, running, just_ended = (ticket.job_id for ticket in tickets)
    running_under(tickets[2])
    query("UPDATE jobs SET state = 'waiting' WHERE id = :id", id=waiting)
    query("UPDATE jobs SET state = 'succeeded', ended_at = now() - interval '1 day' WHERE id = :id", id=just_ended)
    young = ended(KEEP_DAYS - 1).job_id
    old = ended(KEEP_DAYS).job_id
    everything = {waiting, queued, running, just_ended, young}
    assert with_texts() == everything | {old}
    assert sweep.forget_texts(deps) == 1
    assert with_texts() == everything


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled", "expired"])
def test_whatever_the_end_was_the_texts_go(deps: ControlDeps, ended: Ended, with_texts: Any, state: str) -> None:
    ended(KEEP_DAYS, state=state)
    assert sweep.forget_texts(deps) == 1
    assert with_texts() == set()


def test_texts_go_in_batches_the_oldest_first_and_the_next_sweep_goes_on(
    deps: ControlDeps, ended: Ended, with_texts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.store.jobs.texts.FORGET_JOBS", 2)
    days = (KEEP_DAYS + 1, KEEP_DAYS + 3, KEEP_DAYS + 2)
    last = ended(days[0]).job_id
    for each in days[1:]:
        ended(each)
    assert sweep.forget_texts(deps) == 2
    assert with_texts() == {last}
    assert [sweep.forget_texts(deps) for _ in range(2)] == [1, 0]


def test_texts_are_kept_for_30_days_by_default(
    deps: ControlDeps, ended: Ended, with_texts: Any, settings: Settings
) -> None:
    kept = ended(29).job_id
    ended(31)
    assert sweep.forget_texts(replace(deps, settings=settings)) == 1
    assert with_texts() == {kept}


def test_texts_that_are_kept_for_ever_stay_until_they_are_deleted(
    deps: ControlDeps, ended: Ended, with_texts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_KEEP_TEXTS_DAYS", "forever")
    job_id = ended(10 * KEEP_DAYS).job_id
    assert sweep.forget_texts(replace(deps, settings=Settings.load())) == 0
    assert with_texts() == {job_id}


def test_what_an_operator_is_retrying_is_left_until_the_next_time(
    deps: ControlDeps, ended: Ended, with_texts: Any
) -> None:
    held = ended(KEEP_DAYS, state="failed")
    ended(KEEP_DAYS)
    with deps.store.begin() as db:
        [new] = overview.retry(db, [held.job_id]).values()
        assert sweep.forget_texts(deps) == 1
    assert with_texts() == {held.job_id, new}
    assert sweep.forget_texts(deps) == 1
    assert with_texts() == {new}, "it is another job, which has not ended"


def test_what_was_not_to_be_stored_goes_soon_after_its_end_whatever_the_setting(
    deps: ControlDeps, ended: Ended, with_texts: Any, query: Any
) -> None:
    unstored, late, stored = [ended(0).job_id for _ in range(3)]
    query("UPDATE job_texts SET is_unstored = true WHERE job_id = ANY(:ids)", ids=[unstored, late])
    query("UPDATE jobs SET ended_at = now() - interval '1 s' * :s WHERE id <> :late", s=sweep.UNSTORED_S + 1, late=late)
    settings = deps.settings.model_copy(update={"keep_texts_days": None})
    assert sweep.forget_texts(replace(deps, settings=settings)) == 1
    assert with_texts() == {late, stored}
