import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine

from headrace.domain.jobs import Idempotency, Inserted, JobSpec
from headrace.domain.prompts import Message
from headrace.domain.queues import Candidate
from headrace.errors import HeadraceError, IdempotencyInProgress, IdempotencyKeyReused, StoreUnavailable
from headrace.store import Store
from headrace.store.jobs.idempotency import PATIENCE_S, find_replays
from headrace.store.jobs.insertion import insert_batch
from headrace.tables import idempotency_keys, jobs

OWN = Candidate("chat.normal", 1, 1, None, "own pool")
DEADLINE_S = 10

MakeSpec = Callable[..., JobSpec]
InsertJob = Callable[[JobSpec], Inserted]


class HeldStore(Store):
    """Another process's: it has written its batch, and its commit takes until it is let go."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.pid = 0
        self._written, self._let_go = threading.Event(), threading.Event()
        self._thread = ThreadPoolExecutor(1)

    def run(self, sql: str, parameters: Mapping[str, Any]) -> Sequence[Any]:
        with self.begin() as db:
            self.pid = db.scalar(sa.select(sa.func.pg_backend_pid())) or 0
            rows = db.exec_driver_sql(sql, dict(parameters)).all()
            self._written.set()
            self._let_go.wait(DEADLINE_S)
        return rows

    def start(self, *specs: JobSpec) -> Future[list[Inserted | HeadraceError]]:
        """Bring a batch to just before its commit."""
        outcomes = self._thread.submit(insert_batch, self, [(spec, OWN) for spec in specs])
        assert self._written.wait(DEADLINE_S)
        return outcomes

    def let_go(self) -> None:
        self._let_go.set()

    def end(self) -> None:
        self.let_go()
        self._thread.shutdown()


@pytest.fixture
def held(engine: Engine) -> Iterator[HeldStore]:
    store = HeldStore(engine)
    yield store
    store.end()


def keyed(make_spec: MakeSpec, key: str, body: bytes = b"body") -> JobSpec:
    return make_spec(idempotency=Idempotency(key, body))


def count(store: Store, table: sa.Table) -> int:
    with store.begin() as db:
        return db.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def test_same_key_and_body_stand_for_one_job(store: Store, make_spec: MakeSpec, insert_job: InsertJob) -> None:
    first = keyed(make_spec, "k")
    insert_job(first)

    replay = insert_job(keyed(make_spec, "k"))

    assert replay.is_replay
    assert replay.job_id == first.id
    assert count(store, jobs) == 1


def test_same_key_with_another_body_is_refused(store: Store, make_spec: MakeSpec, insert_job: InsertJob) -> None:
    insert_job(keyed(make_spec, "k"))

    with pytest.raises(IdempotencyKeyReused):
        insert_job(keyed(make_spec, "k", b"other"))

    assert count(store, jobs) == 1


def test_second_of_two_rows_with_one_key_is_a_replay_or_refused_when_they_share_a_batch(
    store: Store, make_spec: MakeSpec
) -> None:
    first, again, other = keyed(make_spec, "k"), keyed(make_spec, "k"), keyed(make_spec, "k", b"other")
    mates = [make_spec(), keyed(make_spec, "j")]

    outcomes = insert_batch(store, [(spec, OWN) for spec in (mates[0], first, again, mates[1], other)])

    job_ids = [outcome.job_id if isinstance(outcome, Inserted) else type(outcome) for outcome in outcomes]
    assert job_ids == [mates[0].id, first.id, first.id, mates[1].id, IdempotencyKeyReused]
    assert [isinstance(outcome, Inserted) and outcome.is_replay for outcome in outcomes[:4]] == [
        False,
        False,
        True,
        False,
    ]
    assert count(store, jobs) == 3


def test_key_goes_to_the_next_row_when_the_first_of_the_batch_is_refused(store: Store, make_spec: MakeSpec) -> None:
    bad = make_spec(idempotency=Idempotency("k", b"body"), messages=(Message("user", "\0"),))
    good = keyed(make_spec, "k")

    refused, inserted = insert_batch(store, [(bad, OWN), (good, OWN)])

    assert isinstance(refused, HeadraceError)
    assert inserted == Inserted(good.id, getattr(inserted, "start_by", None))
    assert not inserted.is_replay


def test_one_key_of_two_apps_stands_for_two_jobs(store: Store, make_spec: MakeSpec) -> None:
    with store.begin() as db:
        other = db.scalar(
            sa.text("INSERT INTO apps (id, name, webhook_secret) VALUES (gen_random_uuid(), 'other', '') RETURNING id")
        )
    specs = [keyed(make_spec, "k"), make_spec(app_id=other, idempotency=Idempotency("k", b"body"))]

    outcomes = insert_batch(store, [(spec, OWN) for spec in specs])

    assert [outcome.job_id for outcome in outcomes if isinstance(outcome, Inserted)] == [spec.id for spec in specs]
    with store.begin() as db:
        found = find_replays(db, [(spec.app_id, key) for spec in specs for key in ("k", "unused")])
    assert found == {(spec.app_id, "k"): (spec.id, b"body") for spec in specs}


def test_key_is_free_again_when_it_has_expired(store: Store, make_spec: MakeSpec, insert_job: InsertJob) -> None:
    insert_batch(store, [(keyed(make_spec, "k"), OWN)])
    with store.begin() as db:
        db.execute(sa.update(idempotency_keys).values(expires_at=sa.func.now()))
    second = keyed(make_spec, "k", b"other")

    inserted, replay = [insert_job(spec) for spec in (second, keyed(make_spec, "k", b"other"))]

    assert (inserted.job_id, inserted.is_replay) == (second.id, False)
    assert (replay.job_id, replay.is_replay) == (second.id, True)
    with store.begin() as db:
        left = db.execute(sa.select(idempotency_keys.c.expires_at - sa.func.now())).scalars().all()
    assert [round(each.total_seconds() / 3600, 1) for each in left] == [24]


def test_replay_is_told_as_soon_as_the_first_commit_is_there(
    store: Store, held: HeldStore, make_spec: MakeSpec, insert_job: InsertJob
) -> None:
    first = keyed(make_spec, "k")
    outcomes = held.start(first)
    let_go = threading.Timer(1, held.let_go)
    started_at = time.monotonic()
    let_go.start()

    replay = insert_job(keyed(make_spec, "k"))

    assert 1 <= time.monotonic() - started_at < PATIENCE_S
    assert (replay.job_id, replay.is_replay) == (first.id, True)
    assert [outcome.job_id for outcome in outcomes.result() if isinstance(outcome, Inserted)] == [first.id]
    assert count(store, jobs) == 1


def test_other_body_is_refused_as_soon_as_the_first_commit_is_there(
    store: Store, held: HeldStore, make_spec: MakeSpec, insert_job: InsertJob
) -> None:
    held.start(keyed(make_spec, "k"))
    threading.Timer(0.1, held.let_go).start()

    with pytest.raises(IdempotencyKeyReused):
        insert_job(keyed(make_spec, "k", b"other"))


def test_request_gives_up_when_the_first_commit_takes_longer_than_its_patience(
    store: Store, held: HeldStore, make_spec: MakeSpec, insert_job: InsertJob
) -> None:
    held.start(keyed(make_spec, "k"))
    started_at = time.monotonic()

    with pytest.raises(IdempotencyInProgress):
        insert_job(keyed(make_spec, "k"))

    assert time.monotonic() - started_at >= PATIENCE_S


def test_batch_mates_do_not_wait_for_a_key_that_another_process_holds(
    store: Store, held: HeldStore, make_spec: MakeSpec
) -> None:
    outcomes = held.start(*(keyed(make_spec, key) for key in ("a", "b", "c")))
    # In the opposite order, with others between.
    specs = [keyed(make_spec, key) for key in ("c", "x", "b", "a")] + [make_spec()]

    # It returns although the other commit does not come before.
    here = insert_batch(store, [(spec, OWN) for spec in specs])

    busy = [isinstance(outcome, IdempotencyInProgress) for outcome in here]
    assert busy == [True, False, True, True, False]
    held.let_go()
    assert all(isinstance(outcome, Inserted) for outcome in outcomes.result())
    assert count(store, jobs) == 5


def test_thread_with_another_key_does_not_wait_for_one_that_does(
    store: Store, held: HeldStore, make_spec: MakeSpec, insert_job: InsertJob
) -> None:
    held.start(keyed(make_spec, "k"))

    with ThreadPoolExecutor(9) as threads:
        waiting = threads.submit(insert_job, keyed(make_spec, "k"))
        mates = [threads.submit(insert_job, make_spec()) for _ in range(8)]
        assert not any(mate.result(PATIENCE_S).is_replay for mate in mates)
        assert not waiting.done()
        held.let_go()
        assert waiting.result(DEADLINE_S).is_replay


def test_key_is_free_when_the_process_that_held_it_dies(
    store: Store, held: HeldStore, make_spec: MakeSpec, insert_job: InsertJob
) -> None:
    outcomes = held.start(keyed(make_spec, "k"))
    second = keyed(make_spec, "k", b"other")

    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(insert_job, second)
        with store.begin() as db:
            db.execute(sa.select(sa.func.pg_terminate_backend(held.pid)))
        inserted = waiting.result(DEADLINE_S)

    assert (inserted.job_id, inserted.is_replay) == (second.id, False)
    held.let_go()
    assert [type(outcome) for outcome in outcomes.result()] == [StoreUnavailable]
    assert count(store, jobs) == 1


def test_one_job_stands_when_a_key_comes_many_times_at_once(
    store: Store, make_spec: MakeSpec, insert_job: InsertJob
) -> None:
    specs = [keyed(make_spec, f"k{i % 3}") for i in range(60)]

    with ThreadPoolExecutor(8) as threads:
        inserted = list(threads.map(insert_job, specs))

    assert len({each.job_id for each in inserted}) == 3
    assert count(store, jobs) == 3


@pytest.mark.timeout(120)
def test_nobody_deadlocks_when_batches_bring_the_same_keys_in_any_order(store: Store, make_spec: MakeSpec) -> None:
    rounds = 60

    def bring(seed: int) -> list[Inserted | HeadraceError]:
        order = random.Random(seed)
        outcomes: list[Inserted | HeadraceError] = []
        for n in range(rounds):
            keys = order.sample(range(12), 12)
            outcomes += insert_batch(store, [(keyed(make_spec, f"{n}.{key}"), OWN) for key in keys])
        return outcomes

    with ThreadPoolExecutor(4) as threads:
        outcomes = [outcome for each in threads.map(bring, range(4)) for outcome in each]

    assert {type(outcome) for outcome in outcomes} <= {Inserted, IdempotencyInProgress}
    assert sum(isinstance(outcome, Inserted) and not outcome.is_replay for outcome in outcomes) == 12 * rounds
    assert count(store, jobs) == count(store, idempotency_keys) == 12 * rounds
