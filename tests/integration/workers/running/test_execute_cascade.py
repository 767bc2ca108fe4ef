"""A worker's part of a cascade, on a real Postgres: what it asks the engine, sends on, and gives after all."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.config import PoolSettings, Settings
from headrace.config.rules import RuleSettings
from headrace.domain.answers import TokenLogprob
from headrace.domain.attempts import Claim, Outcome, Usage
from headrace.domain.prompts import Sampling
from headrace.domain.queues import Route, Ticket
from headrace.domain.states import JobState
from headrace.errors import EngineCrash, EngineFault, PromptRejected
from headrace.policies.overflow import Objection
from headrace.policies.pricing import Tariff
from headrace.store import Store, jobs
from headrace.tables import attempts, ledger
from tests.integration.workers.conftest import Make, job
from workers.engines.base import EngineLimits, Generation, GenerationRequest, OnDelta
from workers.running.bill import Bill
from workers.running.cascading import Cascading
from workers.running.execute import Execute
from workers.running.publisher import Notices

TOKEN: TokenLogprob = {"token": "a", "logprob": -3.0, "bytes": [97], "top_logprobs": []}
GOOD = Generation("An answer.", Usage(8, 3), "stop", "m")
CUT = replace(GOOD, text="An answer that", finish_reason="length")
POOLS = {
    "fast": PoolSettings(model="small"),
    "chat": PoolSettings(model="large"),
    "paid": PoolSettings(model="gpt-4o", engine="openai"),
}


@dataclass
class ScriptedEngine:
    """Gives one answer, or raises one error."""

    name: str = "scripted"
    continues: bool = False
    outcome: Generation | Exception = GOOD
    sampling: list[Sampling] = field(default_factory=list)

    def start(self) -> EngineLimits:
        return EngineLimits(2048, 4)

    def generate(self, request: GenerationRequest, on_delta: OnDelta | None = None) -> Generation:
        self.sampling.append(request.sampling)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


class Deaf(Notices):
    def __init__(self) -> None:
        self.announced = list[Any]()

    def claimed(self, job_id: Any, enqueue_no: int) -> None: ...

    def ended(self, job_id: Any, *, has_webhook: bool) -> None:
        self.announced.append(job_id)


class Broke:
    """A payer without money."""

    is_open = True

    def reserve(self, claim: Claim, tariff: Tariff) -> Objection:
        return Objection("budget_exceeded", "No money: none is left.")


@dataclass
class Bench:
    execute: Execute
    engine: ScriptedEngine
    notices: Deaf

    def judges(self, *pools: str, **rule: Any) -> None:
        rules = {"short": RuleSettings(pools=pools, cascade=True, **rule)}
        self.execute.cascading = Cascading(rules, POOLS)


@pytest.fixture
def bench(bare_worker: Make, settings: Settings) -> Bench:
    engine, notices = ScriptedEngine(), Deaf()
    tariff = Tariff.of(settings.model_copy(update={"pools": POOLS}))
    execute = bare_worker(engine, notices, pool="fast", bill=Bill(tariff, Route.POOL, "host"))
    return Bench(execute, engine, notices)


@pytest.fixture
def asked(queued: Callable[..., Ticket]) -> Callable[..., Ticket]:
    """Queues a job of the rule `short` in the pool `fast`."""
    return lambda **changes: queued(**{"rule": "short", "pool": "fast", "model": "small", **changes})


@pytest.fixture
def again(store: Store, bench: Bench) -> Callable[[], Outcome]:
    """Has the job that is due queued again and run."""

    def run() -> Outcome:
        bench.execute.state.ready.set()
        with store.begin() as db:
            db.execute(sa.text("UPDATE jobs SET not_before = now()"))
            [ticket] = jobs.enqueue_due(db)
        return bench.execute.run(ticket.job_id, ticket.enqueue_no)

    return run


def entries(store: Store) -> list[tuple[str, str | None]]:
    with store.begin() as db:
        return [tuple(row) for row in db.execute(sa.select(ledger.c.kind, ledger.c.reason).order_by(ledger.c.id))]


def test_a_bad_answer_sends_the_job_on_and_the_next_one_is_given(
    bench: Bench, store: Store, asked: Callable[..., Ticket], again: Callable[[], Outcome]
) -> None:
    bench.judges("fast", "chat")
    ticket, bench.engine.outcome = asked(), CUT
    assert bench.execute.run(ticket.job_id, 1) == Outcome(JobState.WAITING)
    assert (job(store, ticket).queue, bench.notices.announced) == ("chat.normal", [])

    assert again() == Outcome(JobState.SUCCEEDED)

    done = job(store, ticket)
    assert (done.state, done.answer, done.finish_reason) == (JobState.SUCCEEDED, CUT.text, "length")
    assert entries(store) == [("waste", "escalated"), ("compute", None)], "the last pool's answer is not judged"
    assert bench.notices.announced == [ticket.job_id]
    with store.begin() as db:
        judged = db.execute(sa.select(attempts.c.escalated_by).order_by(attempts.c.number)).scalars().all()
    assert judged == ["length", None]


def test_a_good_answer_is_given_at_once(bench: Bench, store: Store, asked: Callable[..., Ticket]) -> None:
    bench.judges("fast", "chat")
    ticket = asked()
    assert bench.execute.run(ticket.job_id, 1) == Outcome(JobState.SUCCEEDED)
    assert entries(store) == [("compute", None)]


def test_an_unsure_answer_is_sent_on_and_no_caller_is_shown_why(
    bench: Bench, store: Store, asked: Callable[..., Ticket]
) -> None:
    bench.judges("fast", "chat", min_logprob=-2.0)
    unsure, sure = asked(), asked()
    bench.engine.outcome = replace(GOOD, logprobs=(TOKEN,))
    assert bench.execute.run(unsure.job_id, 1) == Outcome(JobState.WAITING)
    bench.engine.outcome = replace(GOOD, logprobs=({**TOKEN, "logprob": -1.0},))
    assert bench.execute.run(sure.job_id, 1) == Outcome(JobState.SUCCEEDED)

    assert [each.top_logprobs for each in bench.engine.sampling] == [0, 0]
    assert job(store, sure).logprobs is None


@pytest.mark.parametrize(
    "error",
    [PromptRejected("it is too long"), EngineFault("broken")],
    ids=["rejected", "broken in the last attempt"],
)
def test_an_error_of_the_better_pool_leaves_the_job_its_answer(
    bench: Bench, store: Store, asked: Callable[..., Ticket], again: Callable[[], Outcome], error: Exception
) -> None:
    bench.judges("fast", "chat")
    ticket, bench.engine.outcome = asked(), CUT
    bench.execute.run(ticket.job_id, 1)
    bench.engine.outcome = error

    outcome = again()

    done = job(store, ticket)
    assert outcome is not None
    assert outcome.state is done.state is JobState.SUCCEEDED
    assert (done.answer, done.pool, done.attempt, done.engine) == (CUT.text, "fast", 1, "scripted")
    assert done.route_reason == f"rule 'short': the answer of fast stands: {outcome.error_code}"
    assert entries(store) == [("waste", "escalated"), ("waste", "kept"), ("compute", None), ("waste", None)]
    assert bench.notices.announced == [ticket.job_id]


def test_a_job_whose_engine_died_twice_has_its_answer_and_the_prompt_is_remembered(
    bench: Bench, store: Store, asked: Callable[..., Ticket], again: Callable[[], Outcome]
) -> None:
    bench.judges("fast", "chat")
    ticket, bench.engine.outcome = asked(), CUT
    bench.execute.run(ticket.job_id, 1)
    bench.engine.outcome = EngineCrash("dead", made_tokens=0)
    again()
    assert again() == Outcome(JobState.SUCCEEDED, "engine_crash")
    assert job(store, ticket).answer == CUT.text
    with store.begin() as db:
        assert db.execute(sa.text("SELECT count(*) FROM poison_prompts")).scalar() == 1


def test_a_job_for_which_there_is_no_money_has_its_answer(
    bench: Bench, store: Store, asked: Callable[..., Ticket], again: Callable[[], Outcome]
) -> None:
    bench.judges("fast", "paid")
    ticket, bench.engine.outcome = asked(), CUT
    bench.execute.run(ticket.job_id, 1)
    assert (job(store, ticket).queue, job(store, ticket).model_requested) == ("overflow.normal", "gpt-4o")
    bench.execute.payer = Broke()  # type: ignore[assignment]

    assert again() == Outcome(JobState.SUCCEEDED, "budget_exceeded")

    done = job(store, ticket)
    assert (done.answer, done.pool, done.queue) == (CUT.text, "fast", "fast.normal")
    assert done.route_reason == "rule 'short': the answer of fast stands: budget_exceeded"
    assert len(bench.engine.sampling) == 1, "nothing was called"


def test_a_job_that_streams_is_given_what_its_caller_has_read(
    bench: Bench, store: Store, asked: Callable[..., Ticket]
) -> None:
    bench.judges("fast", "chat")
    ticket, bench.engine.outcome = asked(stream=True), CUT
    assert bench.execute.run(ticket.job_id, 1) == Outcome(JobState.SUCCEEDED)
    assert job(store, ticket).answer == CUT.text


def test_a_shadow_is_waste_and_is_not_judged(bench: Bench, store: Store, asked: Callable[..., Ticket]) -> None:
    bench.judges("fast", "chat")
    ticket, bench.engine.outcome = asked(rule=None), CUT
    with store.begin() as db:
        db.execute(sa.text("UPDATE jobs SET shadow_of = id, shadow = 'open'"))
    assert bench.execute.run(ticket.job_id, 1) == Outcome(JobState.SUCCEEDED)
    assert (entries(store), job(store, ticket).usd) == ([("waste", "shadow")], 0)


def test_an_answer_whose_schema_cannot_be_checked_is_given_and_counted(
    bench: Bench, store: Store, asked: Callable[..., Ticket]
) -> None:
    bench.judges("fast", "chat")
    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"pattern": "(?=a)"}}}
    ticket = asked(sampling=Sampling(8, response_format=schema))
    bench.engine.outcome = replace(CUT, text='"b"', finish_reason="stop")

    assert bench.execute.run(ticket.job_id, 1) == Outcome(JobState.SUCCEEDED)
    assert (job(store, ticket).answer, bench.execute.state.unchecked.snapshot()) == ('"b"', {(): 1})
