"""Which jobs the semantic cache looks up, what two that match have in common, and which entry serves a job."""

from dataclasses import fields, replace
from typing import Any

import pytest

from headrace.config import PoolSettings, Settings
from headrace.config.caches import SemanticCacheSettings
from headrace.domain.apps import App
from headrace.domain.ids import new_id
from headrace.domain.jobs import JobSpec
from headrace.domain.prompts import CacheChoice, Message, Sampling
from headrace.domain.prompts.tools import Tools
from headrace.domain.queues import Lane
from headrace.policies.caching import semantic
from headrace.policies.caching.semantic import Candidate, Conditions, Match
from headrace.policies.reuse.bound import RECHECK_SHARE, Try
from headrace.policies.reuse.guard import MAX_CHARACTERS

APP = App(new_id(), "test", "whsec_test")
POOL = PoolSettings(model="m", cache_s=60.0, semantic_cache=SemanticCacheSettings(pool="embed"))
HOLDING = SemanticCacheSettings(pool="embed", hold_s=2.0)
SETTINGS = Settings()
SYSTEM, ASKED = Message("system", "Answer briefly."), Message("user", "How do I turn on dark mode?")
SPEC = JobSpec(
    id=new_id(),
    app_id=APP.id,
    model="m",
    pool="chat",
    lane=Lane.NORMAL,
    messages=(SYSTEM, ASKED),
    sampling=Sampling(max_tokens=16, temperature=0.0),
    prompt_tokens=3,
    max_wait_s=30.0,
)
SAME, OPPOSITE = "How can I turn on dark mode?", "How do I turn off dark mode?"
#: Enough for trust at the similarity of the tests.
TRUSTED = (Try(0.9, True),) * 60


def looked_up_by(pool: PoolSettings = POOL, app: App = APP, choice: CacheChoice | None = None, **spec: Any) -> Any:
    return semantic.looked_up_by(replace(SPEC, **spec), app, pool, choice)


def test_the_pool_that_the_settings_name_looks_a_job_up() -> None:
    assert looked_up_by() == looked_up_by(choice="semantic") == "embed"
    assert looked_up_by(app=replace(APP, max_error=0.2)) == "embed"
    assert looked_up_by(max_wait_s=4.0) == "embed"


@pytest.mark.parametrize(
    "case",
    [
        {"pool": PoolSettings(model="m", cache_s=60.0)},
        {"pool": POOL.model_copy(update={"cache_s": 0.0})},
        {"app": replace(APP, cache_s=0)},
        {"app": replace(APP, max_error=0.0)},
        {"choice": "exact"},
        {"messages": (ASKED, Message("assistant", "In the settings."))},
        {"messages": (Message("user", " \n"),)},
        {"messages": (Message("user", "a" * (MAX_CHARACTERS + 1)),)},
        {"messages": (Message("input", "How do I turn on dark mode?"),)},
        {"sampling": replace(SPEC.sampling, n=2)},
        {"max_wait_s": 2 * semantic.HELD_S},
        {"max_wait_s": 4.0, "pool": POOL.model_copy(update={"semantic_cache": HOLDING})},
    ],
    ids=[
        "no cache",
        "pool keeps nothing",
        "app keeps nothing",
        "no error",
        "exact",
        "answer",
        "empty",
        "long",
        "input",
        "several answers",
        "starts at once or not at all",
        "starts within its hold or not at all",
    ],
)
def test_no_other_job_is_looked_up(case: dict[str, Any]) -> None:
    assert looked_up_by(**case) is None


def scope(spec: JobSpec = SPEC, pool: PoolSettings = POOL, embedder: str = "minilm") -> bytes:
    return semantic.scope_of(spec, pool, SETTINGS, embedder)


def test_two_jobs_that_match_differ_in_nothing_but_their_last_words() -> None:
    asked_anew = replace(SPEC, messages=(SYSTEM, Message("user", SAME)))
    assert scope(asked_anew) == scope()
    others = {
        "app_id": new_id(),
        "model": "other",
        "pool": "other",
        "adapter": "a",
        "messages": (Message("system", "Answer at length."), ASKED),
        "sampling": replace(SPEC.sampling, response_format={"type": "json_object"}),
    }
    for name, value in others.items():
        assert scope(replace(SPEC, **{name: value})) != scope(), name
    assert scope(replace(SPEC, messages=(ASKED,))) != scope()
    assert scope(replace(SPEC, messages=(SYSTEM, ASKED, Message("assistant", "So."), ASKED))) != scope()
    for field in fields(Sampling):
        changed = replace(SPEC.sampling, **{field.name: 2 if field.name != "stop" else ("x",)})
        assert scope(replace(SPEC, sampling=changed)) != scope(), field.name


def test_vectors_of_two_models_are_never_compared() -> None:
    assert scope(embedder="other") != scope()
    assert scope(pool=POOL.model_copy(update={"engine": "simulator"})) != scope()


def choose(*candidates: Candidate, is_shadow: bool = False, roll: float = 0.5) -> Match | None:
    return semantic.choose(ASKED.content, candidates, Conditions(0.01, is_shadow), roll)


def candidate(question: str = SAME, tries: tuple[Try, ...] = (), similarity: float = 0.9) -> Candidate:
    return Candidate(new_id(), question, similarity, tries)


def test_an_entry_is_tried_until_it_is_trusted() -> None:
    new = candidate()
    found = choose(new)
    assert found is not None
    assert (found.kind, found.candidate) == ("try", new)
    trusted = candidate(tries=TRUSTED)
    found = choose(trusted)
    assert found is not None
    assert (found.kind, found.candidate) == ("served", trusted)
    wrong = choose(candidate(tries=(*TRUSTED, Try(0.9, False), Try(0.9, False))))
    assert wrong is not None
    assert wrong.kind == "try"


def test_an_opposite_is_not_even_tried_however_alike_and_trusted() -> None:
    assert choose(candidate(OPPOSITE, TRUSTED, 0.99)) is None
    assert choose() is None


def test_a_trusted_entry_goes_before_a_more_similar_one_without_trust() -> None:
    trusted = candidate(tries=TRUSTED)
    found = choose(candidate(OPPOSITE, TRUSTED, 0.99), candidate(similarity=0.95), trusted)
    assert found is not None
    assert (found.kind, found.candidate) == ("served", trusted)


def test_of_entries_without_trust_the_one_with_more_tries_gathers_the_next() -> None:
    known = candidate(tries=(Try(0.9, True),) * 3)
    failed = candidate(tries=(Try(0.9, False),) * 3, similarity=0.99)
    found = choose(failed, candidate(similarity=0.95), known)
    assert found is not None
    assert (found.kind, found.candidate) == ("try", known)


def test_some_jobs_run_although_the_entry_may_serve_them_and_all_do_in_shadow() -> None:
    kinds = [found.kind for roll in (0.0, RECHECK_SHARE) if (found := choose(candidate(tries=TRUSTED), roll=roll))]
    assert kinds == ["recheck", "served"]
    shadow = choose(candidate(tries=TRUSTED), is_shadow=True)
    assert shadow is not None
    assert shadow.kind == "shadow"


def test_an_app_s_own_bound_goes_before_the_pool_s() -> None:
    assert semantic.max_error_of(None, POOL) == 0.01
    assert semantic.max_error_of(0.2, POOL) == 0.2


def test_a_job_with_tools_is_not_looked_up() -> None:
    assert looked_up_by(sampling=replace(SPEC.sampling, tools=Tools(({"name": "f"},)))) is None
