"""What the semantic cache learns from jobs that ran all the same, and what it forgets."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from headrace.config.pools import SemanticCacheSettings
from headrace.domain.apps import App
from headrace.domain.attempts import AttemptEnd, Claim, Usage
from headrace.domain.ids import new_id
from headrace.domain.limits import Cost
from headrace.domain.queues import Ticket
from headrace.domain.states import JobState
from headrace.store import Store
from headrace.store.cache import semantic_cache, semantic_matches
from headrace.store.cache.semantic_matches import MatchKind, Noted
from headrace.store.jobs import texts
from scheduler.deps import ControlDeps
from scheduler.learn import forget_entries, judge_matches
from tests import one_attempt

Query = Callable[..., Any]


@pytest.fixture
def finish(store: Store, claim: Callable[..., Claim]) -> Callable[..., None]:
    """Ends a queued job as a worker would."""

    def end(ticket: Ticket, text: str = "Paris.", state: JobState = JobState.SUCCEEDED, reason: str = "stop") -> None:
        is_good = state is JobState.SUCCEEDED
        ended = AttemptEnd(
            "succeeded" if is_good else "failed",
            0.1,
            Cost(Decimal("0.5"), "v1"),
            "compute" if is_good else "waste",
            Usage(9, 7, 2),
            text if is_good else "",
            reason if is_good else None,
        )
        with store.begin() as db:
            assert one_attempt.finish(db, claim(ticket.job_id, ticket.enqueue_no), state, ended)

    return end


@pytest.fixture
def make_entry(query: Query, app: App) -> Callable[..., None]:
    def insert(job_id: UUID, pool: str = "chat", used_s_ago: int = 0) -> None:
        query(
            "INSERT INTO cache_entries (job_id, app_id, pool, scope, digest, embedding, used_at)"
            " VALUES (:id, :app, :pool, 's', :digest, '{1}', now() - :ago * interval '1 s')",
            id=job_id,
            app=app.id,
            pool=pool,
            digest=job_id.bytes,
            ago=used_s_ago,
        )

    return insert


@pytest.fixture
def tried(
    store: Store, app: App, queued: Callable[..., Ticket], finish: Callable[..., None], make_entry: Callable[..., None]
) -> Callable[..., tuple[Ticket, Ticket]]:
    """An answered entry, and a queued job that tries it. Both are entries."""

    def make(kind: MatchKind = "try") -> tuple[Ticket, Ticket]:
        entry, asked = queued(), queued()
        finish(entry)
        for each in (entry, asked):
            make_entry(each.job_id)
        with store.begin() as db:
            semantic_matches.note(db, [Noted(asked.job_id, app.id, "chat", entry.job_id, 0.9, kind)])
        return entry, asked

    return make


def verdicts(query: Query) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = query("SELECT is_right, judge_at IS NULL FROM cache_matches ORDER BY job_id")
    return rows


@pytest.mark.parametrize(("said", "is_right"), [("Paris.", True), ("paris", True), ("Lyon.", False)])
def test_the_answers_are_compared_once_the_job_has_ended(
    deps: ControlDeps, tried: Callable[..., Any], finish: Callable[..., None], query: Query, said: str, is_right: bool
) -> None:
    entry, asked = tried()
    finish(asked, said)
    assert judge_matches(deps) == 1
    assert verdicts(query) == [(is_right, True)]
    left = {entry.job_id} if is_right else {entry.job_id, asked.job_id}
    assert {row[0] for row in query("SELECT job_id FROM cache_entries")} == left, "the entry stands for what agrees"
    assert judge_matches(deps) == 0


def test_a_job_that_waits_is_looked_at_ever_more_seldom(
    deps: ControlDeps, tried: Callable[..., Any], finish: Callable[..., None], query: Query
) -> None:
    _, asked = tried("shadow")
    query("UPDATE cache_matches SET at = now() - interval '1 h'")
    assert judge_matches(deps) == 1
    assert verdicts(query) == [(None, False)]
    pause = "SELECT judge_at - now() BETWEEN interval '29 min' AND interval '31 min' FROM cache_matches"
    assert query(pause) == [(True,)]
    assert judge_matches(deps) == 0
    finish(asked)
    query("UPDATE cache_matches SET judge_at = now()")
    assert judge_matches(deps) == 1
    assert verdicts(query) == [(True, True)]


def test_what_cannot_be_compared_counts_for_nothing(
    deps: ControlDeps,
    tried: Callable[..., Any],
    finish: Callable[..., None],
    query: Query,
    store: Store,
    app: App,
) -> None:
    _, failed = tried()
    finish(failed, state=JobState.FAILED)
    entry, asked = tried()
    finish(asked)
    with store.begin() as db:
        texts.erase(db, app.id, entry.job_id)
    _, filtered = tried()
    finish(filtered, reason="content_filter")
    assert judge_matches(deps) == 3
    assert verdicts(query) == []


def test_a_served_job_is_not_compared(deps: ControlDeps, tried: Callable[..., Any], query: Query) -> None:
    tried("served")
    assert judge_matches(deps) == 0
    assert verdicts(query) == [(None, True)]


@pytest.fixture
def with_cache(deps: ControlDeps) -> ControlDeps:
    """The pool `chat` has a semantic cache whose answers serve for a minute."""
    changes = {"cache_s": 60.0, "semantic_cache": SemanticCacheSettings(pool="embed")}
    pools = {"chat": deps.settings.pools["chat"].model_copy(update=changes)}
    return ControlDeps(deps.settings.model_copy(update={"pools": pools}), deps.store, deps.admission, deps.pace)


def test_old_and_useless_entries_are_forgotten(
    with_cache: ControlDeps,
    queued: Callable[..., Ticket],
    finish: Callable[..., None],
    make_entry: Callable[..., None],
    query: Query,
) -> None:
    fresh, waiting, old, cancelled, strange = (queued() for _ in range(5))
    for each in (fresh, old, strange):
        finish(each)
    for each in (fresh, waiting, old, cancelled):
        make_entry(each.job_id)
    make_entry(strange.job_id, "gone")
    make_entry(new_id())  # Its job's month was detached.
    query("UPDATE jobs SET ended_at = now() - interval '61 s' WHERE id = :id", id=old.job_id)
    query("UPDATE jobs SET state = 'cancelled', ended_at = now() WHERE id = :id", id=cancelled.job_id)

    assert forget_entries(with_cache) == 4
    assert {row[0] for row in query("SELECT job_id FROM cache_entries")} == {fresh.job_id, waiting.job_id}
    query("UPDATE apps SET cache_s = 0")
    assert forget_entries(with_cache) == 2


def test_of_too_many_entries_those_that_were_unused_for_longest_go(
    with_cache: ControlDeps,
    queued: Callable[..., Ticket],
    make_entry: Callable[..., None],
    query: Query,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tickets = [queued() for _ in range(4)]
    for age, ticket in zip((3, 9, 1, 5), tickets, strict=True):
        make_entry(ticket.job_id, used_s_ago=age)
    monkeypatch.setattr(semantic_cache, "MOST_ENTRIES", 2)
    assert forget_entries(with_cache) == 2
    assert {row[0] for row in query("SELECT job_id FROM cache_entries")} == {tickets[0].job_id, tickets[2].job_id}


def test_old_matches_are_forgotten(deps: ControlDeps, tried: Callable[..., Any], query: Query) -> None:
    tried()
    query("DELETE FROM cache_entries")
    assert forget_entries(deps) == 0
    query("UPDATE cache_matches SET at = now() - interval '91 days'")
    assert forget_entries(deps) == 1


def test_a_deleted_job_takes_its_entry_along(store: Store, app: App, tried: Callable[..., Any], query: Query) -> None:
    entry, asked = tried()
    with store.begin() as db:
        texts.erase(db, app.id, entry.job_id)
    assert query("SELECT job_id FROM cache_entries") == [(asked.job_id,)]
