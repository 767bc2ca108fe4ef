"""A filled database is partitioned while it is read and written, by old code and new."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.exc import DatabaseError

from headrace.domain.ids import new_id
from headrace.tables import BY_MONTH
from tests.waiting import until

#: The last migration before the partitions.
BEFORE = "0039"
JOBS = 5_000
#: A reader waits for as long as a migration for a lock, and then some on a busy machine.
LONGEST_S = 5.0

_FILL = (
    "INSERT INTO apps (id, name, webhook_secret) VALUES (gen_random_uuid(), 'old', 'whsec_')",
    f"""
    INSERT INTO jobs (id, app_id, state, lane, pool, queue, route, route_reason, overflow, model_requested, background,
                      prompt_tokens, max_tokens, start_by, started_at, ended_at, attempt)
    SELECT ('01900000-0000-7000-8000-' || lpad(to_hex(no), 12, '0'))::uuid, apps.id, 'succeeded', 'normal', 'chat',
           'chat.normal', 'pool', 'old', 'never', 'm', true, 8, 16, now(), now(), now(), 1
    FROM apps, generate_series(1, {JOBS}) no
    """,
    "UPDATE jobs SET state = 'failed' WHERE id = (SELECT id FROM jobs ORDER BY id LIMIT 1)",
    "UPDATE jobs SET retry_of = (SELECT id FROM jobs ORDER BY id LIMIT 1)"
    " WHERE id = (SELECT id FROM jobs ORDER BY id OFFSET 1 LIMIT 1)",
    "INSERT INTO job_texts (job_id, messages, sampling, answer) SELECT id, '[]', '{}', 'An answer.' FROM jobs",
    "INSERT INTO attempts (job_id, number, worker_id, engine, started_at) SELECT id, 1, id, 'e', now() FROM jobs",
    "INSERT INTO ledger (kind, job_id, app_id, pool, usd) SELECT 'compute', id, app_id, 'chat', 0.001 FROM jobs",
    "INSERT INTO ledger (kind, usd) VALUES ('adjustment', -0.5)",
    "INSERT INTO deliveries (id, job_id, app_id, event, url, state)"
    " SELECT gen_random_uuid(), id, app_id, 'job.succeeded', 'https://r.example/hook', 'delivered' FROM jobs",
    "INSERT INTO deliveries (id, event, url, data) VALUES (gen_random_uuid(), 'budget', 'https://o.example', '{}')",
)
_SUMS = """
    SELECT (SELECT count(*) FROM jobs), (SELECT count(*) FROM job_texts), (SELECT count(*) FROM attempts),
           (SELECT count(*) FROM deliveries), (SELECT count(*) FROM ledger), (SELECT sum(usd) FROM ledger),
           (SELECT sum(usd) FROM cost_per_request), (SELECT count(*) FROM charges),
           (SELECT sum(usd) FROM cost_per_day)
"""
_JOB = """
    SELECT j.state, t.answer, a.engine, l.usd FROM jobs j JOIN job_texts t ON t.job_id = j.id
    LEFT JOIN attempts a ON a.job_id = j.id LEFT JOIN ledger l ON l.job_id = j.id WHERE j.id = :id
"""
_NEW = """
    INSERT INTO jobs (id, app_id, state, lane, pool, queue, route, route_reason, overflow, model_requested, background,
                      prompt_tokens, max_tokens, start_by)
    SELECT :id, id, 'queued', 'normal', 'chat', 'chat.normal', 'pool', 'new', 'never', 'm', true, 8, 16, now() FROM apps
"""
_FILES = """
    SELECT c.oid::regclass::text AS name, pg_relation_filenode(c.oid) AS file FROM pg_class c
    WHERE relkind IN ('r', 'i') AND relnamespace = 'public'::regnamespace AND (relname ~ '^({tables})(_first)?$'
          OR c.oid IN (SELECT indexrelid FROM pg_index WHERE indrelid::regclass::text ~ '^({tables})(_first)?$'))
"""


@pytest.fixture
def filled(config: Config, engine: sa.Engine) -> sa.Engine:
    command.upgrade(config, BEFORE)
    with engine.begin() as db:
        for statement in _FILL:
            db.execute(sa.text(statement))
    return engine


def read(engine: sa.Engine, sql: str, **given: Any) -> list[tuple[Any, ...]]:
    with engine.begin() as db:
        return [tuple(row) for row in db.execute(sa.text(sql), given)]


class Busy:
    """Threads that read and write until the block ends. What they raised, and the longest wait, can be read then."""

    def __init__(self) -> None:
        self.raised: list[BaseException] = []
        self.longest_s = 0.0
        self.rounds = 0
        self.inserted: list[UUID] = []
        self._stop = threading.Event()

    @contextmanager
    def doing(self, *works: Callable[[], None]) -> Iterator[None]:
        threads = [threading.Thread(target=self._repeat, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        until(lambda: self.rounds > len(works) * 3)
        try:
            yield
            more = self.rounds + len(works) * 3
            until(lambda: self.rounds > more or self.raised)
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(30)

    def _repeat(self, work: Callable[[], None]) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                work()
            except BaseException as error:
                self.raised.append(error)
                return
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            self.rounds += 1


def test_readers_and_writers_go_on_while_a_filled_database_is_partitioned(config: Config, filled: sa.Engine) -> None:
    before = read(filled, _SUMS)
    job_id = UUID("01900000-0000-7000-8000-000000000009")
    [one] = read(filled, _JOB, id=job_id)
    busy = Busy()

    def poll() -> None:
        assert read(filled, _JOB, id=job_id) == [one]

    def analyse() -> None:
        # Entries, which no writer here adds to.
        assert read(filled, "SELECT count(*), sum(usd) FROM ledger") == [(JOBS + 1, before[0][5])]

    def accept() -> None:
        new = new_id()
        with filled.begin() as db:
            db.execute(sa.text(_NEW), {"id": new})
            texts = "INSERT INTO job_texts (job_id, messages, sampling) VALUES (:id, '[]', '{}')"
            db.execute(sa.text(texts), {"id": new})
        busy.inserted.append(new)

    with busy.doing(poll, analyse, accept):
        command.upgrade(config, "head")

    assert busy.raised == []
    assert busy.longest_s < LONGEST_S
    jobs, texts, *others = read(filled, _SUMS)[0]
    assert (jobs, texts) == (JOBS + len(busy.inserted),) * 2
    assert others == list(before[0][2:])
    assert {job for (job,) in read(filled, "SELECT id FROM jobs WHERE state = 'queued'")} == set(busy.inserted)


def test_no_row_is_copied_and_no_index_is_built_but_for_the_empty_tables(config: Config, filled: sa.Engine) -> None:
    tables = "|".join(BY_MONTH)

    def files() -> dict[str, int]:
        found = read(filled, _FILES.format(tables=tables))
        return {name.removesuffix("_first"): file for name, file in found}

    command.upgrade(config, "0042")
    before = files()

    command.upgrade(config, "0043")

    assert files() == before
    assert read(filled, "SELECT DISTINCT tableoid::regclass::text FROM jobs") == [("jobs_first",)]


def test_what_was_retried_before_cannot_be_retried_after(config: Config, filled: sa.Engine) -> None:
    command.upgrade(config, "head")

    [(old, new)] = read(filled, "SELECT job_id, retried_as FROM job_retries")
    assert read(filled, "SELECT retry_of FROM jobs WHERE id = :id", id=new) == [(old,)]
    again = _NEW.replace("background,", "background, retry_of,").replace("true,", "true, CAST(:old AS uuid),")
    with pytest.raises(DatabaseError, match="duplicate key"), filled.begin() as db:
        db.execute(sa.text(again), {"id": new_id(), "old": old})


def test_the_next_entry_has_the_next_number_and_none_can_be_changed(config: Config, filled: sa.Engine) -> None:
    [(last,)] = read(filled, "SELECT max(id) FROM ledger")

    command.upgrade(config, "head")

    assert read(filled, "INSERT INTO ledger (kind, usd) VALUES ('adjustment', 1) RETURNING id") == [(last + 1,)]
    for table in ("ledger", "ledger_first"):
        with pytest.raises(DatabaseError, match="immutable"), filled.begin() as db:
            db.execute(sa.text(f"UPDATE {table} SET usd = 0"))


def test_rights_and_views_of_others_stay_as_they_were(config: Config, filled: sa.Engine) -> None:
    role = f"reader_{new_id().hex}"
    with filled.begin() as db:
        db.exec_driver_sql(f"CREATE ROLE {role}")
        db.exec_driver_sql(f"GRANT SELECT (id, state) ON jobs TO {role}; GRANT SELECT ON ledger, charges TO {role}")
        # A view of the operators' own.
        db.exec_driver_sql("CREATE VIEW theirs AS SELECT count(*) AS jobs FROM jobs")
    try:
        command.upgrade(config, "head")

        with filled.begin() as db:
            db.execute(sa.text(_NEW), {"id": new_id()})
            assert db.scalar(sa.text("SELECT jobs FROM theirs")) == JOBS + 1
            db.exec_driver_sql(f"SET LOCAL ROLE {role}")
            assert db.scalar(sa.text("SELECT count(id) FROM jobs")) == JOBS + 1
            assert db.scalar(sa.text("SELECT count(*) FROM charges")) == JOBS + 1
            with pytest.raises(DatabaseError, match="permission denied"):
                db.execute(sa.text("SELECT metadata FROM jobs"))
    finally:
        with filled.begin() as db:
            db.exec_driver_sql(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_what_was_partitioned_can_be_whole_again_and_partitioned_again(config: Config, filled: sa.Engine) -> None:
    before = read(filled, _SUMS)
    command.upgrade(config, "head")

    command.downgrade(config, BEFORE)

    assert read(filled, _SUMS) == before
    assert read(filled, "SELECT count(*) FROM pg_class WHERE relkind = 'p'") == [(0,)]
    assert read(filled, "INSERT INTO ledger (kind, usd) VALUES ('adjustment', 1) RETURNING id") == [(JOBS + 2,)]
    with pytest.raises(DatabaseError, match="immutable"), filled.begin() as db:
        db.execute(sa.text("DELETE FROM ledger"))
    command.upgrade(config, "head")
    assert read(filled, "SELECT count(*) FROM ledger") == [(JOBS + 2,)]


def test_a_month_with_rows_is_not_lost_by_a_downgrade(config: Config, filled: sa.Engine) -> None:
    command.upgrade(config, "head")
    with filled.begin() as db:
        edge = db.scalar(
            sa.text(
                "SELECT substring(pg_get_expr(relpartbound, oid) FROM 'TO .''(.*)''') FROM pg_class"
                " WHERE relname = 'jobs_first'"
            )
        )
        db.exec_driver_sql(f"CREATE TABLE jobs_more PARTITION OF jobs FOR VALUES FROM ('{edge}') TO (MAXVALUE)")
        db.execute(sa.text(_NEW), {"id": UUID(edge)})

    with pytest.raises(RuntimeError, match="jobs_more has rows"):
        command.downgrade(config, BEFORE)

    assert read(filled, "SELECT count(*) FROM jobs") == [(JOBS + 1,)]
