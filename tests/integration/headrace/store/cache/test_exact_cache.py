"""The statements of the exact cache: what a search finds, and what is given to whom."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from headrace.domain.attempts import AttemptEnd, Usage
from headrace.domain.jobs import JobSpec
from headrace.domain.limits import Cost
from headrace.domain.prompts import Message
from headrace.domain.queues import Candidate
from headrace.domain.states import JobState
from headrace.store import Store, apps
from headrace.store.cache import exact_cache
from headrace.store.cache.exact_cache import CANDIDATES, LONGEST_JOB, Found, Hit, Question
from headrace.store.fleet import observations
from headrace.store.jobs.insertion import IDEMPOTENCY_TTL, insert_batch
from headrace.store.sql import Statement
from headrace.tables import job_texts, jobs
from tests import one_attempt
from tests.integration.months_of_jobs import id_at

KEY = b"k" * 32
KEEP_S = 60.0

Make = Callable[..., JobSpec]


@pytest.fixture
def answered(store: Store, make_spec: Make) -> Callable[..., UUID]:
    """Inserts a job and ends it with an answer; returns its id."""

    def insert(text: str = "Water.", **changes: Any) -> UUID:
        spec = make_spec(**{"cache_key": KEY, **changes})
        insert_batch(store, [(spec, Candidate("chat.normal", 1, 1, None, "test"))])
        with store.begin() as db:
            claim = one_attempt.claim(db, spec.id, 1, one_attempt.add_worker(db), "simulator")
            assert claim is not None
            cost = Cost(Decimal("0.5"), "v1")
            end = AttemptEnd("succeeded", 0.5, cost, "compute", Usage(9, 7, 2), text, "stop", "served")
            one_attempt.finish(db, claim, JobState.SUCCEEDED, end)
        return spec.id

    return insert


@pytest.fixture
def question(make_spec: Make) -> Callable[..., Question]:
    """Asks for an answer for a new job."""

    def ask(now: datetime | None = None, **changes: Any) -> Question:
        return Question(make_spec(**{"cache_key": KEY, **changes}), KEEP_S, now or datetime.now(UTC))

    return ask


def find(store: Store, question: Question) -> Found:
    return exact_cache.search(store, [question]).get(question.spec.id) or Found()


def hit(question: Question, job_id: UUID) -> Hit:
    return Hit(question, job_id, "chat.normal")


def answers(store: Store, *job_ids: UUID) -> list[str | None]:
    with store.begin() as db:
        found = db.execute(sa.select(job_texts.c.job_id, job_texts.c.answer)).all()
    by_id = {row.job_id: row.answer for row in found}
    return [by_id.get(job_id) for job_id in job_ids]


def test_each_job_of_a_search_has_its_own_answer(
    store: Store, answered: Callable[..., UUID], question: Callable[..., Question]
) -> None:
    first, second = answered("Water."), answered("Wine.", cache_key=b"w" * 32)
    asked = [question(), question(cache_key=b"w" * 32), question(), question(cache_key=b"none")]
    ids = [each.spec.id for each in asked]

    found = exact_cache.search(store, asked)
    assert found == {ids[0]: Found(first), ids[1]: Found(second), ids[2]: Found(first)}

    served = exact_cache.serve(store, [hit(each, found[each.spec.id].job_id or first) for each in asked[:3]])
    assert served.keys() == set(ids[:3])
    assert answers(store, *ids[:3]) == ["Water.", "Wine.", "Water."]


def test_the_newest_answer_serves_and_one_under_way_is_told(
    store: Store, answered: Callable[..., UUID], question: Callable[..., Question], make_spec: Make
) -> None:
    assert find(store, question()) == Found()
    answered("Old.")
    new = answered("New.")
    assert find(store, question()) == Found(new)
    insert_batch(store, [(make_spec(cache_key=KEY), Candidate("chat.normal", 1, 1, None, "test"))])
    assert find(store, question()) == Found(new, is_pending=True)


def test_an_answer_that_has_gone_since_the_search_leaves_only_its_own_job_out(
    store: Store, answered: Callable[..., UUID], question: Callable[..., Question]
) -> None:
    there, gone = answered(), answered(cache_key=b"g" * 32)
    asked = [question(), question(cache_key=b"g" * 32)]
    with store.begin() as db:
        db.execute(sa.delete(job_texts).where(job_texts.c.job_id == gone))
    served = exact_cache.serve(store, [hit(asked[0], there), hit(asked[1], gone)])
    assert served.keys() == {asked[0].spec.id}
    with store.begin() as db:
        assert db.scalar(sa.select(sa.func.count()).where(jobs.c.id == asked[1].spec.id)) == 0


def test_no_answer_crosses_to_another_app_even_under_one_key(
    store: Store, answered: Callable[..., UUID], question: Callable[..., Question]
) -> None:
    own = answered()
    with store.begin() as db:
        other = apps.ensure(db, "other").id
    asked = question(app_id=other)
    assert find(store, asked) == Found()
    assert exact_cache.serve(store, [hit(asked, own)]) == {}


def test_no_answer_serves_a_job_of_another_key(
    store: Store, answered: Callable[..., UUID], question: Callable[..., Question]
) -> None:
    assert exact_cache.serve(store, [hit(question(cache_key=b"o" * 32), answered())]) == {}


def test_a_row_that_postgres_refuses_serves_none_of_its_batch(
    store: Store, answered: Callable[..., UUID], question: Callable[..., Question]
) -> None:
    source = answered()
    bad = question(messages=(Message("user", "secret \0"),))
    assert exact_cache.serve(store, [hit(question(), source), hit(bad, source)]) == {}
    with store.begin() as db:
        assert db.scalar(sa.select(sa.func.count()).select_from(jobs)) == 1


@pytest.mark.parametrize(("before", "is_found"), [(timedelta(hours=1), True), (-timedelta(hours=1), False)])
def test_months_before_the_longest_job_are_not_searched(
    store: Store, answered: Callable[..., UUID], question: Callable[..., Question], before: timedelta, is_found: bool
) -> None:
    # Its end is young in either case: only its id is old.
    source = answered(id=id_at(datetime.now(UTC) - LONGEST_JOB - timedelta(seconds=KEEP_S) + before))
    assert find(store, question()).job_id == (source if is_found else None)


def test_a_search_reads_the_newest_jobs_of_its_key_alone(
    store: Store, answered: Callable[..., UUID], question: Callable[..., Question], make_spec: Make
) -> None:
    source = answered()
    for number in (CANDIDATES - 1, 1):
        specs = [make_spec(cache_key=KEY) for _ in range(number)]
        insert_batch(store, [(spec, Candidate("chat.normal", 1, 1, None, "test")) for spec in specs])
        expected = source if number > 1 else None
        assert find(store, question()) == Found(expected, is_pending=True)


def test_a_hit_teaches_nothing_of_the_length_of_answers(
    store: Store, answered: Callable[..., UUID], question: Callable[..., Question]
) -> None:
    source = answered()
    asked = question()
    assert exact_cache.serve(store, [hit(asked, source)])
    with store.begin() as db:
        assert [each.tokens for each in observations.answer_lengths(db, "chat", [asked.spec.model])] == [7]


def test_the_lock_on_an_answer_stops_its_erasing_until_the_hit_is_durable(
    store: Store, answered: Callable[..., UUID], question: Callable[..., Question], engine: sa.Engine
) -> None:
    source = answered()
    erase = sa.delete(job_texts).where(job_texts.c.job_id == source)
    given = exact_cache._encode([exact_cache._row(hit(replace(question()), source))])
    with engine.begin() as db, engine.connect() as eraser:
        assert len(Statement("insert_answered").run(db, given=given, key_ttl=IDEMPOTENCY_TTL)) == 1
        eraser.execute(sa.text("SET LOCAL lock_timeout = '100ms'"))
        with pytest.raises(sa.exc.OperationalError, match="lock timeout"):
            eraser.execute(erase)
    with store.begin() as db:
        assert db.execute(erase).rowcount == 1
