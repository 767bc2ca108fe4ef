"""Tools and calls in Postgres: what a worker gets of a job's tools, and what of its calls is kept and given on."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
import sqlalchemy as sa

from headrace.domain.answers import Choice
from headrace.domain.attempts import AttemptEnd, Claim, Escalation, Usage
from headrace.domain.ids import show_id
from headrace.domain.jobs import JobSpec
from headrace.domain.limits import Cost
from headrace.domain.prompts import Message, Sampling
from headrace.domain.prompts.tools import ToolCall, Tools
from headrace.domain.queues import Route, Ticket
from headrace.domain.states import JobState
from headrace.errors import PayloadUnreadable
from headrace.store import Store, escalations, jobs
from headrace.store.cache import exact_cache
from headrace.store.cache.exact_cache import Hit, Question
from headrace.store.jobs import texts
from tests import one_attempt

CALL = ToolCall("call_1", "weather", '{"city": "Paris"}')
MESSAGES = (
    Message("user", "Hi"),
    Message("assistant", "", tool_calls=(CALL,)),
    Message("tool", "rainy", tool_call_id="call_1"),
)
SAMPLING = Sampling(16, tools=Tools(({"name": "weather", "parameters": {"type": "object"}},), "function", "weather"))
KEY = b"k" * 32
MADE = (ToolCall("call_2", "weather", '{"city": "Rome\0"}'), ToolCall("call_3", "weather", "{"))
#: NUL cannot be stored.
STORED = (replace(MADE[0], arguments='{"city": "Rome\ufffd"}'), MADE[1])
END = AttemptEnd(
    *("succeeded", 0.5, Cost(Decimal("0.5"), "v1"), "compute", Usage(9, 7, 2), "", "tool_calls", "served"),
    tool_calls=MADE,
)

Queued = Callable[..., Ticket]


@pytest.fixture
def claimed(store: Store, queued: Queued) -> Callable[..., Claim]:
    """Inserts a job and has a new worker claim it."""

    return lambda **changes: one_attempt.claimed(store, queued(**changes))


def test_a_worker_gets_the_tools_and_the_calls_of_earlier_turns(store: Store, claimed: Callable[..., Claim]) -> None:
    claim = claimed(messages=MESSAGES, sampling=SAMPLING)
    assert (claim.messages, claim.sampling) == (MESSAGES, SAMPLING)
    with store.begin() as db:
        assert texts.conversation(db, claim.app_id, claim.job_id) == MESSAGES


def test_an_answer_of_calls_alone_is_kept_and_serves_an_identical_job(
    store: Store, claimed: Callable[..., Claim], make_spec: Callable[..., JobSpec]
) -> None:
    claim = claimed(sampling=SAMPLING, cache_key=KEY)
    with store.begin() as db:
        assert one_attempt.finish(db, claim, JobState.SUCCEEDED, END)
        job = jobs.find(db, claim.app_id, claim.job_id)
        [listed] = jobs.newest(db, claim.app_id)
    assert (job.answer, job.finish_reason, job.tool_calls) == ("", "tool_calls", STORED)
    assert listed.tool_calls == STORED

    question = Question(make_spec(cache_key=KEY), 60.0, datetime.now(UTC))
    found = exact_cache.search(store, [question])[question.spec.id]
    assert found.job_id == claim.job_id
    exact_cache.serve(store, [Hit(question, claim.job_id, "chat.normal")])
    with store.begin() as db:
        served = jobs.find(db, question.spec.app_id, question.spec.id)
    assert (served.cache, served.finish_reason, served.tool_calls) == ("hit", "tool_calls", STORED)


def test_every_answer_of_several_is_kept_whatever_its_model_writes(store: Store, claimed: Callable[..., Claim]) -> None:
    claim = claimed(sampling=replace(SAMPLING, n=2))
    several = replace(END, model_served="served\0", others=(Choice("", "tool_calls", tool_calls=MADE),))
    with store.begin() as db:
        assert one_attempt.finish(db, claim, JobState.SUCCEEDED, several)
        job = jobs.find(db, claim.app_id, claim.job_id)
    assert (job.tool_calls, job.others, job.model_served) == (
        STORED,
        (Choice("", "tool_calls", tool_calls=STORED),),
        "served\ufffd",
    )


def test_an_answer_that_stands_has_its_calls(store: Store, claimed: Callable[..., Claim]) -> None:
    claim = claimed(rule="short", pool="fast", model="small")
    to = Escalation("length", "chat", "large", "chat.normal", Route.POOL, "rule 'short'", 60.0)
    with store.begin() as db:
        escalations.escalate(db, claim, END, to)
        [ticket] = jobs.enqueue_due(db)
        second = one_attempt.claim(db, ticket.job_id, ticket.enqueue_no, one_attempt.add_worker(db), "simulator")
        assert second is not None
        failed = AttemptEnd("failed", 0.1, Cost(Decimal(0), "v2"), "waste", error_code="engine_fault")
        assert escalations.stand_in(db, second, failed, "engine_fault")
        job = jobs.find(db, claim.app_id, claim.job_id)
    assert (job.state, job.tool_calls, job.finish_reason) == ("succeeded", STORED, "tool_calls")


def test_calls_that_a_newer_release_wrote_hide_no_other_job_of_a_list(
    store: Store, claimed: Callable[..., Claim], caplog: pytest.LogCaptureFixture
) -> None:
    newer, ours = (claimed(sampling=SAMPLING) for _ in range(2))
    with store.begin() as db:
        for claim in (newer, ours):
            assert one_attempt.finish(db, claim, JobState.SUCCEEDED, END)
        calls = '[{"id": "call_9", "type": "custom", "custom": {"name": "look", "input": "secret"}}]'
        change = sa.text("UPDATE job_texts SET tool_calls = CAST(:calls AS jsonb) WHERE job_id = :id")
        db.execute(change, {"calls": calls, "id": newer.job_id})

    with store.begin() as db:
        assert [job.id for job in jobs.newest(db, ours.app_id)] == [ours.job_id]
        assert jobs.find(db, ours.app_id, ours.job_id).tool_calls == STORED
        with pytest.raises(PayloadUnreadable) as raised:
            jobs.find(db, ours.app_id, newer.job_id)
    assert "secret" not in str(raised.value)
    assert {vars(record)["job_id"] for record in caplog.records} == {show_id(newer.job_id)}
