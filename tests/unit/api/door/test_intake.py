"""Many accepts at once: each gets its own outcome, no caller waits for ever, and what went wrong is undone and told."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import pytest

from api.door.drafts import Bid, Sent
from api.door.intake import FAILPOINT_INSERTED, Intake, Outcome
from headrace.broker.admission import Admission
from headrace.domain.apps import App
from headrace.domain.ids import new_id
from headrace.domain.jobs import Idempotency, Inserted, JobSpec
from headrace.domain.limits import NO_RATES
from headrace.domain.places import Ask, Place, Refusal
from headrace.domain.prompts import Message, Sampling
from headrace.domain.queues import Candidate, Lane, Ticket
from headrace.errors import BrokerUnavailable, HeadraceError, IdempotencyInProgress, StoreUnavailable
from headrace.store import Store

THREADS = 64
PATIENCE_S = 20
APP = new_id()
START = datetime(2026, 1, 1, tzinfo=UTC)
QUEUE = Candidate("chat.normal", 500, 1_000_000, None, "own pool")
REFUSAL = Refusal("depth", 500, 1000, 1000, NO_RATES, cap_jobs=500)


class Servers:
    """Redis and Postgres. While `is_open` is not set, a reserve holds on, so that requests pile up behind it.

    Attributes:
        answers: by job id, a Refusal at the door or the result of the insert.
        failures: by step, what it raises.
        batches: the jobs of each reserve; `running` those under way at once, at most.
    """

    def __init__(self) -> None:
        self.is_open = threading.Event()
        self.is_open.set()
        self.answers: dict[UUID, Refusal | Inserted | HeadraceError] = {}
        self.failures: dict[str, BaseException] = {}
        self.batches: list[list[UUID]] = []
        self.inserted: list[list[tuple[JobSpec, Candidate]]] = []
        self.committed: list[Ticket] = []
        self.given_back: list[UUID] = []
        self.steps: list[str] = []
        self.most_running = 0
        self._running = 0
        self._lock = threading.Lock()

    def _step(self, name: str) -> None:
        with self._lock:
            self.steps.append(name)
        if name in self.failures:
            raise self.failures[name]

    def reserve(self, asks: Sequence[Ask]) -> list[Place | Refusal]:
        with self._lock:
            self._running += 1
            self.most_running = max(self.most_running, self._running)
            self.batches.append([ask.job_id for ask in asks])
        try:
            assert self.is_open.wait(PATIENCE_S)
            self._step("reserve")
            return [self._at_the_door(number, ask) for number, ask in enumerate(asks, 1)]
        finally:
            with self._lock:
                self._running -= 1

    def _at_the_door(self, number: int, ask: Ask) -> Place | Refusal:
        answer = self.answers.get(ask.job_id)
        return answer if isinstance(answer, Refusal) else Place(ask.candidates[0], number, number, 0, NO_RATES)

    def insert_batch(self, _: Store, rows: Sequence[tuple[JobSpec, Candidate]]) -> list[Inserted | HeadraceError]:
        self._step("insert")
        self.inserted.append(list(rows))
        return [self._in_postgres(spec.id) for spec, _ in rows]

    def _in_postgres(self, job_id: UUID) -> Inserted | HeadraceError:
        answer = self.answers.get(job_id)
        # Each job its own time, so that a mix-up shows.
        return answer if isinstance(answer, Inserted | HeadraceError) else Inserted(job_id, start_by_of(job_id))

    def commit(self, tickets: Sequence[Ticket], lookups: Mapping[UUID, str]) -> None:
        self._step("commit")
        with self._lock:
            self.committed += tickets

    def give_back(self, job_ids: Iterable[UUID]) -> int:
        given = list(job_ids)
        if given:
            self._step("give_back")
        with self._lock:
            self.given_back += given
        return len(given)


def start_by_of(job_id: UUID) -> datetime:
    return START + timedelta(seconds=job_id.int % 1_000_000)


def make_spec() -> JobSpec:
    return JobSpec(
        id=new_id(),
        app_id=APP,
        model="test-model",
        pool="chat",
        lane=Lane.NORMAL,
        messages=(Message("user", "Hi"),),
        sampling=Sampling(max_tokens=16),
        prompt_tokens=8,
        max_wait_s=30.0,
    )


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Servers:
    servers = Servers()
    monkeypatch.setattr("api.door.intake.insert_batch", servers.insert_batch)
    return servers


@pytest.fixture
def intake(servers: Servers) -> Intake:
    return Intake(cast(Store, servers), cast(Admission, servers), servers._step)


def accept(intake: Intake, spec: JobSpec) -> Outcome:
    return intake.accept(_bid(spec))


def serve(intake: Intake, specs: Sequence[JobSpec]) -> list[Outcome | BaseException]:
    """Accept these as one batch."""
    return intake._serve([_bid(spec) for spec in specs])


def _bid(spec: JobSpec) -> Bid:
    app = App(spec.app_id, "app", "whsec_test")
    needs = spec.id, spec.app_id, spec.kv_tokens, (QUEUE,)
    return Bid(*needs, spec=spec, app=app, sent=Sent("req_1"))


def at_once(
    intake: Intake, specs: Sequence[JobSpec], before: Callable[[], Any] = lambda: None
) -> list[Future[Outcome]]:
    """Accept each in a thread of its own; returns once all are settled. `before` is called when all have begun."""
    together = threading.Barrier(len(specs) + 1)

    def run(spec: JobSpec) -> Outcome:
        together.wait(PATIENCE_S)
        return accept(intake, spec)

    with ThreadPoolExecutor(len(specs)) as threads:
        outcomes = [threads.submit(run, spec) for spec in specs]
        together.wait(PATIENCE_S)
        before()
        _, hanging = wait(outcomes, PATIENCE_S)
        assert not hanging
    return outcomes


def pile_up(intake: Intake, servers: Servers, specs: Sequence[JobSpec]) -> list[Future[Outcome]]:
    """As `at_once`, with nothing answered until every request that no batch has taken waits for one."""

    def all_wait() -> None:
        while sum(map(len, servers.batches)) + intake.batching.waiting < len(specs):
            threading.Event().wait(0.001)
        servers.is_open.set()

    servers.is_open.clear()
    return at_once(intake, specs, all_wait)


def is_idle(intake: Intake) -> bool:
    return intake.batching.is_idle


def test_one_accept_is_a_place_a_row_and_a_message(intake: Intake, servers: Servers) -> None:
    spec = make_spec()
    outcome = accept(intake, spec)
    assert outcome == Place(QUEUE, 1, 1, 0, NO_RATES, start_by=start_by_of(spec.id))
    assert servers.steps == ["reserve", "insert", FAILPOINT_INSERTED, "commit"]
    [ticket] = servers.committed
    assert (ticket.job_id, ticket.app_id, ticket.queue) == (spec.id, APP, "chat.normal")
    assert (ticket.kv_tokens, ticket.start_by) == (spec.kv_tokens, start_by_of(spec.id))
    assert is_idle(intake)


def test_the_message_of_several_answers_takes_as_much_kv_cache_as_was_reserved(
    intake: Intake, servers: Servers
) -> None:
    spec = replace(make_spec(), sampling=Sampling(max_tokens=16, n=3))
    accept(intake, spec)
    [ticket] = servers.committed
    assert (ticket.kv_tokens, ticket.n) == (spec.kv_tokens, 3)


@pytest.mark.parametrize("refused", [IdempotencyInProgress(), StoreUnavailable("gone")], ids=repr)
def test_a_stream_that_was_not_inserted_waits_for_no_disk(
    intake: Intake, servers: Servers, refused: HeadraceError
) -> None:
    spec = replace(make_spec(), stream=True)
    servers.answers[spec.id] = refused
    with pytest.raises(type(refused)):
        accept(intake, spec)
    assert "disk" not in servers.steps


def test_a_streams_key_is_told_to_nobody_before_it_is_on_disk(intake: Intake, servers: Servers) -> None:
    accept(intake, replace(make_spec(), stream=True, idempotency=Idempotency("key", b"hash")))
    assert servers.steps == ["reserve", "insert", FAILPOINT_INSERTED, "commit"]


def test_streams_that_come_together_share_the_wait_for_the_disk(intake: Intake, servers: Servers) -> None:
    outcomes = serve(intake, [replace(make_spec(), stream=True) for _ in range(2)])
    assert all(isinstance(outcome, Place) for outcome in outcomes)
    assert servers.steps == ["reserve", "insert", FAILPOINT_INSERTED, "commit"]


def test_all_that_come_at_once_are_accepted_together_each_as_itself(intake: Intake, servers: Servers) -> None:
    specs = [make_spec() for _ in range(THREADS)]
    outcomes = pile_up(intake, servers, specs)

    assert [cast(Place, each.result()).start_by for each in outcomes] == [start_by_of(spec.id) for spec in specs]
    assert Counter(job for batch in servers.batches for job in batch) == Counter(spec.id for spec in specs)
    assert Counter(ticket.job_id for ticket in servers.committed) == Counter(spec.id for spec in specs)
    # The leader takes what is there when it comes; all others share the batches after.
    assert len(servers.batches) <= 3
    assert servers.most_running == 1
    assert is_idle(intake)


@pytest.mark.parametrize("bound", [1, 3, 64])
def test_no_batch_is_larger_than_its_bound(
    intake: Intake, servers: Servers, monkeypatch: pytest.MonkeyPatch, bound: int
) -> None:
    monkeypatch.setattr(intake.batching, "_most", bound)
    specs = [make_spec() for _ in range(THREADS)]
    outcomes = pile_up(intake, servers, specs)
    assert all(isinstance(each.result(), Place) for each in outcomes)
    assert max(map(len, servers.batches)) <= bound
    assert max(map(len, servers.inserted)) <= bound
    assert sum(map(len, servers.batches)) == THREADS
    assert servers.most_running == 1
    assert is_idle(intake)


def test_threads_that_come_again_and_again_all_get_through(intake: Intake, servers: Servers) -> None:
    done = 0
    for _ in range(20):
        outcomes = at_once(intake, [make_spec() for _ in range(16)])
        done += sum(isinstance(each.result(), Place) for each in outcomes)
    assert done == len(servers.committed) == 320
    assert is_idle(intake)


@pytest.mark.parametrize("step", ["reserve", "insert", FAILPOINT_INSERTED, "commit"])
@pytest.mark.parametrize("failure", [BrokerUnavailable("gone"), RuntimeError("a bug"), SystemExit(3)], ids=repr)
def test_what_fails_a_batch_reaches_everyone_in_it_and_the_next_is_served(
    intake: Intake, servers: Servers, step: str, failure: BaseException
) -> None:
    servers.failures[step] = failure
    specs = [make_spec() for _ in range(THREADS)]
    outcomes = pile_up(intake, servers, specs)
    # The jobs are durable by then, and their messages are made up for.
    is_accepted = step == "commit" and isinstance(failure, BrokerUnavailable)
    for outcome in outcomes:
        assert (outcome.exception() is None) if is_accepted else (outcome.exception() is failure)
    assert is_idle(intake)
    servers.failures.clear()
    assert isinstance(accept(intake, make_spec()), Place)


@pytest.mark.parametrize("way", ["raises", "says so of each row"])
@pytest.mark.parametrize("step", ["reserve", "insert"])
def test_who_waits_behind_a_server_that_says_nothing_is_told_so_with_the_first(
    intake: Intake, servers: Servers, monkeypatch: pytest.MonkeyPatch, step: str, way: str
) -> None:
    monkeypatch.setattr("headrace.batching.SILENCE_S", 0.0)
    monkeypatch.setattr(intake.batching, "_most", 4)
    specs, gone = [make_spec() for _ in range(THREADS)], StoreUnavailable("gone")
    if way == "raises":
        servers.failures[step] = gone
    else:
        servers.answers = dict.fromkeys((spec.id for spec in specs), gone)
    outcomes = pile_up(intake, servers, specs)

    assert all(outcome.exception() is gone for outcome in outcomes)
    assert len(servers.batches) <= 2
    assert is_idle(intake)
    servers.failures.clear()
    assert isinstance(accept(intake, make_spec()), Place)


def test_the_places_are_given_back_when_the_insert_fails(intake: Intake, servers: Servers) -> None:
    servers.failures["insert"] = StoreUnavailable("gone")
    specs = [make_spec() for _ in range(8)]
    pile_up(intake, servers, specs)
    assert Counter(servers.given_back) == Counter(spec.id for spec in specs)
    assert servers.committed == []


def test_the_inserts_own_error_is_told_when_the_place_cannot_be_given_back(intake: Intake, servers: Servers) -> None:
    servers.failures = {"insert": StoreUnavailable("gone"), "give_back": BrokerUnavailable("gone too")}
    with pytest.raises(StoreUnavailable):
        accept(intake, make_spec())


def test_one_bad_request_does_not_fail_the_others(intake: Intake, servers: Servers) -> None:
    specs = [make_spec() for _ in range(12)]
    refused, unstorable, in_progress, replay = (spec.id for spec in specs[:4])
    first = new_id()
    servers.answers = {
        refused: REFUSAL,
        unstorable: HeadraceError("Postgres refused the job"),
        in_progress: IdempotencyInProgress(),
        replay: Inserted(first, None),
    }
    outcomes = pile_up(intake, servers, specs)

    assert outcomes[0].result() == REFUSAL
    assert outcomes[1].exception() is servers.answers[unstorable]
    assert outcomes[2].exception() is servers.answers[in_progress]
    assert outcomes[3].result() == Inserted(first, None)
    others = {spec.id for spec in specs[4:]}
    assert all(isinstance(each.result(), Place) for each in outcomes[4:])
    assert {ticket.job_id for ticket in servers.committed} == others
    assert set(servers.given_back) == {unstorable, in_progress, replay}, "a refused one has no place"
    assert refused not in {spec.id for rows in servers.inserted for spec, _ in rows}


def test_a_batch_that_is_refused_as_a_whole_reaches_no_database(intake: Intake, servers: Servers) -> None:
    spec = make_spec()
    servers.answers[spec.id] = REFUSAL
    assert accept(intake, spec) == REFUSAL
    assert servers.steps == ["reserve"]


def test_a_row_says_where_its_job_was_put_and_why(intake: Intake, servers: Servers) -> None:
    accept(intake, make_spec())
    [[(_, candidate)]] = servers.inserted
    assert (candidate.queue, candidate.reason) == ("chat.normal", "own pool")


def test_the_jobs_of_a_batch_share_each_step_and_each_has_its_outcome(intake: Intake, servers: Servers) -> None:
    good, bad, refused = (make_spec() for _ in range(3))
    servers.answers = {bad.id: HeadraceError("It does not fit."), refused.id: REFUSAL}

    outcomes = serve(intake, [good, bad, refused])

    assert outcomes[0] == Place(QUEUE, 1, 1, 0, NO_RATES, start_by=start_by_of(good.id))
    assert outcomes[1:] == [servers.answers[bad.id], REFUSAL]
    assert servers.batches == [[good.id, bad.id, refused.id]]
    assert [ticket.job_id for ticket in servers.committed] == [good.id]


def test_a_refusal_holds_where_postgres_fails_the_others(intake: Intake, servers: Servers) -> None:
    good, refused = make_spec(), make_spec()
    servers.answers = {refused.id: REFUSAL}
    error = servers.failures["insert"] = StoreUnavailable("It is down.")
    assert serve(intake, [good, refused]) == [error, REFUSAL]
    assert servers.given_back == [good.id]
