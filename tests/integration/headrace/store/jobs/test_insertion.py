""""""

import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine

from headrace.domain.apps import App
from headrace.domain.ids import new_id
from headrace.domain.jobs import Idempotency, Inserted, JobSpec
from headrace.domain.prompts import Message, Sampling
from headrace.domain.queues import Candidate, Lane, Overflow
from headrace.errors import HeadraceError, IdempotencyInProgress, IdempotencyKeyReused, StoreUnavailable
from headrace.store import Store, apps
from headrace.store.jobs import insertion
from headrace.store.jobs.insertion import PATIENCE_S, find_replay, find_replays, insert_batch, keep_key
from headrace.store.sql import text_of
from headrace.tables import idempotency_keys, job_texts, jobs
from tests.integration.conftest import waiting_for_disk
from tests.waiting import until

DEADLINE_S = 20

OWN = Candidate("chat.normal", 1, 1, None, "own pool")


def count(store: Store, table: sa.Table) -> int:
    with store.begin() as db:
        return db.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def test_job_is_durable_with_its_text_when_insert_returns(store: Store, make_spec: Callable[..., JobSpec]) -> None:
    spec = make_spec(max_wait_s=90)

    (inserted,) = insert_batch(store, [(spec, OWN)])

    with store.begin() as db:
        row = db.execute(sa.select(jobs, job_texts).join(job_texts, job_texts.c.job_id == jobs.c.id)).one()
    assert (row.id, row.state, row.queue) == (spec.id, "queued", "chat.normal")
    assert row.messages == [{"role": "user", "content": "What is a headrace?"}]
    assert inserted == Inserted(spec.id, row.start_by)
    assert (row.start_by - row.created_at).total_seconds() == 90


def test_batch_has_an_outcome_for_each_row_in_order(store: Store, make_spec: Callable[..., JobSpec]) -> None:
    specs = [make_spec(max_wait_s=10.0 * (i + 1)) for i in range(9)]

    outcomes = insert_batch(store, [(spec, OWN) for spec in specs])

    with store.begin() as db:
        start_by = dict(db.execute(sa.select(jobs.c.id, jobs.c.start_by)).all())
    assert outcomes == [Inserted(spec.id, start_by[spec.id]) for spec in specs]
    assert insert_batch(store, []) == []


def test_bad_rows_are_reported_alone_and_without_their_prompt(store: Store, make_spec: Callable[..., JobSpec]) -> None:
    bad = {3: "secret prompt \0", 4: "secret prompt \ud800", 17: "secret prompt \0"}
    specs = [make_spec(messages=(Message("user", bad.get(i, "fine")),)) for i in range(20)]

    outcomes = insert_batch(store, [(spec, OWN) for spec in specs])

    refused = {i: outcome for i, outcome in enumerate(outcomes) if isinstance(outcome, HeadraceError)}
    assert refused.keys() == bad.keys()
    assert not any("secret" in f"{error} {error.__cause__} {error.__context__}" for error in refused.values())
    assert count(store, jobs) == count(store, job_texts) == 17


def test_batch_is_split_when_its_texts_are_long(
    store: Store, make_spec: Callable[..., JobSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    statements: list[int] = []
    together = insertion._insert

    def count_rows(*args: Any) -> list[Inserted | HeadraceError]:
        statements.append(len(args[1]))
        return together(*args)

    monkeypatch.setattr(insertion, "_insert", count_rows)
    monkeypatch.setattr(insertion, "BATCH_BYTES", 5_000)
    specs = [make_spec(messages=(Message("user", "x" * length),)) for length in (1_000, 9_000, 2_000, 2_000, 1_000)]

    outcomes = insert_batch(store, [(spec, OWN) for spec in specs])

    assert [outcome.job_id for outcome in outcomes if isinstance(outcome, Inserted)] == [spec.id for spec in specs]
    assert statements == [1, 1, 1, 2]


def test_an_insert_waits_for_the_disk(
    store: Store, make_spec: Callable[..., JobSpec], disk_is_away: Callable[[], AbstractContextManager[None]]
) -> None:
    with ThreadPoolExecutor(1) as threads:
        with disk_is_away():
            inserts = threads.submit(insert_batch, store, [(make_spec(), OWN)])
            until(lambda: waiting_for_disk(store) == 1, "it waits for the disk")
            assert not inserts.done()
        assert len(inserts.result(DEADLINE_S)) == 1


def test_nothing_is_called_durable_when_the_commit_itself_fails(
    store: Store, make_spec: Callable[..., JobSpec]
) -> None:
    # A deferred trigger raises after the statement has returned its rows, as a commit does that cannot be written.
    with store.begin() as db:
        db.execute(
            sa.text(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no commit'; END$$;"
                "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON jobs DEFERRABLE INITIALLY DEFERRED"
                " FOR EACH ROW EXECUTE FUNCTION refuse()"
            )
        )
    try:
        outcomes = insert_batch(store, [(make_spec(), OWN) for _ in range(3)])
    finally:
        with store.begin() as db:
            db.execute(sa.text("DROP TRIGGER refuse ON jobs; DROP FUNCTION refuse()"))

    assert [str(outcome) for outcome in outcomes] == ["Postgres refused the job: no commit"] * 3
    assert count(store, jobs) == 0


def test_every_row_is_unavailable_when_postgres_is_down(make_spec: Callable[..., JobSpec]) -> None:
    down = Store(sa.create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none"))

    outcomes = insert_batch(down, [(make_spec(), OWN) for _ in range(3)])

    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 3


def inserted_into(table: str) -> set[str]:
    """The columns that `insert.sql` names."""
    [names] = re.findall(rf"INSERT INTO {table} \(([^)]*)\)", text_of("insert"))
    return set(re.findall(r"\w+", names))


def test_every_column_of_a_new_job_is_given_or_left_to_someone() -> None:
    elsewhere = {  # Whoever adds a column says here that an insert leaves it to its default, or inserts it.
        *("model_served", "served_by_job", "output_tokens", "cached_tokens", "reasoning_tokens"),
        *("finish_reason", "usd", "error_code", "error_message", "enqueue_no", "attempt", "worker_id", "created_at"),
        *("started_at", "ended_at", "cancel_requested_at", "erased_at", "suspicion", "retry_of"),
        *("stand_by", "shadow_of", "original_tokens", "needs_version"),
    }

    assert inserted_into("jobs") == set(jobs.c.keys()) - elsewhere
    assert inserted_into("job_texts") == set(job_texts.c.keys()) - {
        *("answer", "logprobs", "logprobs_json", "reasoning", "tool_calls", "kept_answer", "choices")
    }
    assert inserted_into("idempotency_keys") == set(idempotency_keys.c.keys())


def test_every_field_of_a_spec_is_stored(store: Store, make_spec: Callable[..., JobSpec]) -> None:
    with store.begin() as db:
        other = apps.ensure(db, "other")
    deadline = datetime(2100, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    sampling = Sampling(7, 0.0, 0.25, ("é", "\n"), 0, {"type": "json_schema", "schema": {"a": [1.5, None]}}, 0, "none")
    sampling = replace(sampling, n=3, extra={"logit_bias": {"7": -1.5}})
    stored: dict[str, tuple[Any, dict[str, Any]]] = {  # By field: its value, and the columns it becomes.
        "id": ((spec := make_spec()).id, {"id": spec.id}),
        "app_id": (other.id, {"app_id": other.id}),
        "model": ("m", {"model_requested": "m"}),
        "adapter": ("m", {"adapter": "m"}),
        "pool": ("p", {"pool": "p"}),
        "lane": (Lane.LOW, {"lane": "low"}),
        "messages": (
            (Message("system", 'quote " \\ \u2028 😀'), Message("user", "", "ann")),
            {
                "messages": [
                    {"role": "system", "content": 'quote " \\ \u2028 😀'},
                    {"role": "user", "content": "", "name": "ann"},
                ]
            },
        ),
        "sampling": (
            sampling,
            {
                "max_tokens": 7,
                "n": 3,
                "sampling": {
                    "n": 3,
                    **{"max_tokens": 7, "temperature": 0.0, "top_p": 0.25, "stop": ["é", "\n"], "seed": 0},
                    **{"response_format": sampling.response_format, "top_logprobs": 0, "reasoning_effort": "none"},
                    "extra": {"logit_bias": {"7": -1.5}},
                },
            },
        ),
        "prompt_tokens": (11, {"prompt_tokens": 11}),
        "max_wait_s": (0.5, {}),
        "deadline": (deadline, {"finish_by": deadline}),
        "overflow": (Overflow.NEVER, {"overflow": "never"}),
        "max_cost_usd": (Decimal("0.123456789"), {"max_cost_usd": Decimal("0.123456789")}),
        "metadata": ({"k": "v"}, {"metadata": {"k": "v"}}),
        "webhook_url": ("https://example.com/", {"webhook_url": "https://example.com/"}),
        "end_user": ("u", {"end_user": "u"}),
        "background": (False, {"background": False}),
        "stream": (True, {"stream": True}),
        "idempotency": (Idempotency("k", b"\0h\xff"), {"key": "k", "request_hash": b"\0h\xff"}),
        "is_cache_miss": (True, {"cache": "miss"}),
        "cache_key": (b"\0k\xff", {"cache_key": b"\0k\xff"}),
        "is_stored": (False, {"is_unstored": True}),
        "looked_up_by": ("embed", {}),
        "rule": ("short", {"rule": "short"}),
        "is_shadowed": (True, {"shadow": "wanted"}),
        "start_after": (None, {"start_after": None}),
        "notes": ({"one": "1", "two": {"2": 3}}, {"notes": {"one": "1", "two": {"2": 3}}}),
        "not_before": (None, {"not_before": None}),
    }
    assert set(stored) == {field.name for field in fields(JobSpec)}

    insert_batch(
        store,
        [(make_spec(**{name: value for name, (value, _) in stored.items()}), Candidate("overflow.q", 1, 1, None, "r"))],
    )

    with store.begin() as db:
        keys = idempotency_keys.c
        texts = sa.join(jobs, job_texts, job_texts.c.job_id == jobs.c.id)
        tables = texts.join(idempotency_keys, keys.job_id == jobs.c.id)
        row = db.execute(sa.select(jobs, job_texts, keys.key, keys.request_hash).select_from(tables)).one()
    expected = {name: value for _, columns in stored.values() for name, value in columns.items()}
    expected |= {"state": "queued", "queue": "overflow.q", "route": "overflow", "route_reason": "r"}
    assert {name: row._mapping[name] for name in expected} == expected
    of_statement = {"job_id", "queued_at", "start_by", "overflow_at", "expires_at"}
    given = inserted_into("jobs") | inserted_into("job_texts") | inserted_into("idempotency_keys")
    assert expected.keys() >= given - of_statement
    assert (row.start_by - row.queued_at).total_seconds() == 0.5


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


def test_a_batch_takes_no_key_that_a_job_has_and_one_that_is_over(
    store: Store, app: App, make_spec: MakeSpec, insert_job: Callable[[JobSpec], Inserted]
) -> None:
    key, batch_id = Idempotency("a", b"hash"), new_id()
    insert_job(make_spec(idempotency=key))
    with pytest.raises(IdempotencyKeyReused), store.begin() as db:
        keep_key(db, app.id, key, batch_id)
    with store.begin() as db:
        db.execute(sa.update(idempotency_keys).values(expires_at=sa.func.now()))
    with store.begin() as db:
        keep_key(db, app.id, key, batch_id)
        assert find_replay(db, app.id, "a") == (batch_id, b"hash")
