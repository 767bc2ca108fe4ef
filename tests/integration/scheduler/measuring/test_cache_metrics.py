"""What a control process tells Prometheus of the caches: jobs that they served, what that saved, errors and entries."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from headrace.config import PoolSettings
from headrace.config.pools import SemanticCacheSettings
from headrace.domain.queues import Ticket
from scheduler.deps import ControlDeps
from scheduler.learn import judge_matches
from scheduler.measuring import StoreMetrics
from scheduler.observe import observe

Serve = Callable[..., Callable[[], list[str]]]
Query = Callable[..., Any]


@pytest.fixture
def cached(deps: ControlDeps) -> ControlDeps:
    """With a semantic cache, and with observations as often as they are asked for."""
    chat = deps.settings.pools["chat"].model_copy(update={"semantic_cache": SemanticCacheSettings(pool="embed")})
    embed = PoolSettings(serves="embeddings", engine="simulator", model="words")
    changes = {"pools": {"chat": chat, "embed": embed}, "observe_every_s": 0.001}
    return replace(deps, settings=deps.settings.model_copy(update=changes))


def of(scrape: Callable[[], list[str]], name: str) -> list[str]:
    return [line for line in scrape() if line.startswith(name)]


def test_a_served_job_and_what_it_saved_are_counted_once(
    cached: ControlDeps, serve: Serve, query: Query, queued: Callable[..., Ticket]
) -> None:
    scrape = serve(cached.tallies)
    assert observe(cached)
    for kind in ("hit", "semantic", "semantic"):
        job_id = queued().job_id
        query("UPDATE jobs SET cache = :kind WHERE id = :id", kind=kind, id=job_id)
        query(
            "INSERT INTO ledger (kind, job_id, pool, usd, saved_usd) VALUES ('cache', :id, 'chat', 0, 0.25)", id=job_id
        )
    query("INSERT INTO ledger (kind, job_id, pool, usd) VALUES ('compute', :id, 'chat', 1)", id=queued().job_id)

    for _ in range(2):
        assert observe(cached)

    assert of(scrape, "headrace_cache_served_total") == [
        'headrace_cache_served_total{cache="hit",pool="chat"} 1.0',
        'headrace_cache_served_total{cache="semantic",pool="chat"} 2.0',
    ]
    assert of(scrape, "headrace_cache_saved_usd_total") == [
        'headrace_cache_saved_usd_total{cache="hit",pool="chat"} 0.25',
        'headrace_cache_saved_usd_total{cache="semantic",pool="chat"} 0.5',
    ]


def test_entries_by_pool(cached: ControlDeps, serve: Serve, query: Query, queued: Callable[..., Ticket]) -> None:
    scrape = serve(StoreMetrics(cached))
    assert of(scrape, "headrace_cache_entries{") == ['headrace_cache_entries{pool="chat"} 0.0']
    for pool in ("chat", "chat", "gone"):
        insert = "INSERT INTO cache_entries (job_id, app_id, pool, scope, digest, embedding)"
        select = "SELECT id, app_id, :pool, 's', uuid_send(id), '{1}' FROM jobs WHERE id = :id"
        query(f"{insert} {select}", pool=pool, id=queued().job_id)
    assert of(scrape, "headrace_cache_entries{") == ['headrace_cache_entries{pool="chat"} 2.0']


def test_without_a_semantic_cache_there_are_no_entries(deps: ControlDeps, serve: Serve) -> None:
    assert of(serve(StoreMetrics(deps)), "headrace_cache_entries{") == []


def test_comparisons_by_kind_and_outcome(
    deps: ControlDeps, serve: Serve, query: Query, queued: Callable[..., Ticket]
) -> None:
    entry = queued().job_id
    for kind, answer in (("try", "Paris."), ("try", "Paris."), ("recheck", "Lyon."), ("shadow", None)):
        job_id = queued().job_id
        query("UPDATE job_texts SET answer = :answer WHERE job_id = :id", answer=answer, id=job_id)
        insert = "INSERT INTO cache_matches (job_id, app_id, pool, entry_id, similarity, kind, judge_at)"
        query(
            f"{insert} SELECT :id, app_id, 'chat', :entry, 0.9, :kind, now() FROM jobs WHERE id = :id",
            id=job_id,
            entry=entry,
            kind=kind,
        )
    query("UPDATE job_texts SET answer = 'Paris.' WHERE job_id = :id", id=entry)
    query("UPDATE jobs SET state = 'succeeded', finish_reason = 'stop'")

    judge_matches(deps)

    assert of(serve(deps.tallies), "headrace_cache_comparisons_total") == [
        'headrace_cache_comparisons_total{kind="recheck",outcome="wrong",pool="chat"} 1.0',
        'headrace_cache_comparisons_total{kind="try",outcome="right",pool="chat"} 2.0',
    ]
