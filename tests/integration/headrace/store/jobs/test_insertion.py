import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.domain.jobs import Idempotency, Inserted, JobSpec
from headrace.domain.prompts import Message, Sampling
from headrace.domain.queues import Candidate, Lane, Overflow
from headrace.errors import HeadraceError, StoreUnavailable
from headrace.store import Store
from headrace.store.clients import apps
from headrace.store.jobs import insertion
from headrace.store.jobs.insertion import insert_batch
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


def test_before_disk_a_job_is_there_at_once_and_the_wait_is_for_the_disk(
    store: Store, make_spec: Callable[..., JobSpec], disk_is_away: Callable[[], AbstractContextManager[None]]
) -> None:
    insert_batch(store, [(make_spec(), OWN)], is_before_disk=True)  # It may have to connect.
    with ThreadPoolExecutor(1) as threads:
        with disk_is_away():
            spec = make_spec()
            (inserted,) = insert_batch(store, [(spec, OWN)], is_before_disk=True)
            assert isinstance(inserted, Inserted)
            assert count(store, jobs) == 2
            waits = threads.submit(store.wait_for_disk)
            until(lambda: waiting_for_disk(store) == 1, "it waits for the disk")
            assert not waits.done()
        waits.result(DEADLINE_S)


def test_otherwise_an_insert_waits_for_the_disk_itself(
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
        *("model_served", "batch_id", "custom_id", "served_by_job", "output_tokens", "cached_tokens"),
        "reasoning_tokens",
        *("finish_reason", "usd", "error_code", "error_message", "enqueue_no", "attempt", "worker_id", "created_at"),
        *("not_before", "started_at", "ended_at", "cancel_requested_at", "erased_at", "suspicion", "retry_of"),
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
