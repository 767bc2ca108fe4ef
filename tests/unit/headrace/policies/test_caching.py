"""Which jobs share an answer: everything that determines it is in the key, and nothing else."""

from dataclasses import fields, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from headrace.config import OverflowSettings, PoolSettings, Settings
from headrace.config.pools import SemanticCacheSettings
from headrace.config.rules import RuleSettings
from headrace.domain.apps import App
from headrace.domain.ids import new_id
from headrace.domain.jobs import Idempotency, JobSpec
from headrace.domain.prompts import CacheChoice, Message, Sampling
from headrace.domain.prompts.compression import Compression
from headrace.domain.prompts.tools import Tools
from headrace.domain.queues import Lane, Overflow
from headrace.policies import caching
from headrace.policies.caching import CachedAnswer, Match, ReuseConditions
from headrace.policies.reuse.bound import RECHECK_SHARE, Try
from headrace.policies.reuse.guard import MAX_CHARACTERS

APP = App(new_id(), "test", "whsec_test")
POOL = PoolSettings(model="m", adapters={"a": "acme/one"})
SETTINGS = Settings()
SAMPLING = Sampling(max_tokens=16, temperature=0.0)
SPEC = JobSpec(
    id=new_id(),
    app_id=APP.id,
    model="m",
    pool="chat",
    lane=Lane.NORMAL,
    messages=(Message("user", "Hi"),),
    sampling=SAMPLING,
    prompt_tokens=3,
    max_wait_s=30.0,
)

#: By field of a job: another value, and whether its answer may then be another one.
FIELDS: dict[str, tuple[Any, bool]] = {
    "id": (new_id(), False),
    "app_id": (new_id(), True),
    "model": ("other", True),
    "pool": ("other", True),
    "lane": (Lane.HIGH, False),
    "messages": ((Message("system", "Hi"),), True),
    "sampling": (Sampling(17), True),
    "prompt_tokens": (4, False),
    "max_wait_s": (1.0, False),
    "deadline": (datetime(2100, 1, 1, tzinfo=UTC), False),
    "not_before": (datetime(2100, 1, 1, tzinfo=UTC), False),
    "start_after": (datetime(2100, 1, 1, tzinfo=UTC), False),
    "notes": ({"plugin": "text"}, False),
    "overflow": (Overflow.NEVER, False),
    "max_cost_usd": (Decimal(1), False),
    "metadata": ({"a": "b"}, False),
    "webhook_url": ("https://example.com/", False),
    "end_user": ("u", False),
    "background": (False, False),
    "stream": (True, False),
    "idempotency": (Idempotency("k", b"h"), False),
    "adapter": ("a", True),
    "is_cache_miss": (True, False),
    "cache_key": (b"k", False),
    "is_stored": (False, False),
    "looked_up_by": ("embed", False),
    "rule": ("short", False),
    "is_shadowed": (True, False),
}
#: By field of the sampling: another value. Each may change the answer.
SAMPLINGS: dict[str, Any] = {
    "max_tokens": 17,
    "temperature": 0.5,
    "top_p": 0.5,
    "stop": ("x",),
    "seed": 7,
    "response_format": {"type": "json_object"},
    "top_logprobs": 0,
    "reasoning_effort": "low",
    "dimensions": 64,
    "extra": {"top_k": 5},
    "compression": Compression("plain"),
    "tools": Tools(({"name": "f"},)),
    "n": 2,
}


def key(spec: JobSpec = SPEC, pool: PoolSettings = POOL, settings: Settings = SETTINGS) -> bytes:
    return caching.key_of(spec, pool, settings)


def test_every_field_of_a_job_is_in_the_key_or_left_out_on_purpose() -> None:
    assert set(FIELDS) == {field.name for field in fields(JobSpec)}
    for name, (value, is_part) in FIELDS.items():
        assert (key(replace(SPEC, **{name: value})) != key()) == is_part, name


def test_a_cascade_is_in_the_key_unless_the_pool_s_own_answer_is_given() -> None:
    rule = RuleSettings(pools=("chat", "large"), cascade=True)

    def of(rule: RuleSettings, spec: JobSpec = SPEC) -> bytes:
        return caching.key_of(spec, POOL, SETTINGS, cascade=caching.judged_by(spec, rule))

    assert of(rule) != key()
    assert of(rule) == of(rule.model_copy(update={"escalation_wait_s": 1.0, "tasks": frozenset({"x"})}))
    changes = ({"pools": ("chat", "other")}, {"min_logprob": -1.0}, {"signals": ()}, {"refusal_pattern": "no"})
    assert len({of(rule), *(of(rule.model_copy(update=each)) for each in changes)}) == 1 + len(changes)
    assert of(rule.model_copy(update={"cascade": False})) == key()
    assert of(rule.model_copy(update={"pools": ("large", "chat")})) == key(), "the last pool's answer is given"
    streamed = replace(SPEC, stream=True)
    assert of(rule, streamed) == key(streamed)
    several = replace(SPEC, sampling=replace(SPEC.sampling, n=2))
    assert of(rule, several) == key(several)


def test_every_field_of_the_sampling_is_in_the_key() -> None:
    assert set(SAMPLINGS) == {field.name for field in fields(Sampling)}
    keys = [key(replace(SPEC, sampling=replace(SAMPLING, **{name: value}))) for name, value in SAMPLINGS.items()]
    assert len({key(), *keys}) == 1 + len(SAMPLINGS)


def test_the_border_between_two_messages_is_in_the_key() -> None:
    split = (Message("user", "a"), Message("user", "b"))
    assert key(replace(SPEC, messages=split)) != key(replace(SPEC, messages=(Message("user", "ab"),)))


@pytest.mark.parametrize(
    "change",
    [
        {"model": "n"},
        {"model_dir": Path("/models/n")},
        {"engine": "simulator"},
        {"engine_options": {"dtype": "float32"}},
        {"reasoning_parser": "qwen3"},
        {"tool_parser": "hermes"},
        {"tool_strict_level": "parameter"},
        {"chat_template": "smollm2"},
    ],
    ids=str,
)
def test_what_the_pool_serves_is_in_the_key(change: dict[str, Any]) -> None:
    assert key(pool=POOL.model_copy(update=change)) != key()


def test_an_adapter_s_weights_and_the_paid_model_are_in_the_key() -> None:
    adapted = replace(SPEC, model="a", adapter="a")
    assert key(adapted, POOL.model_copy(update={"adapters": {"a": "acme/two"}})) != key(adapted)
    other = SETTINGS.model_copy(update={"overflow": OverflowSettings(models={"m": "gpt-x"})})
    assert key(settings=other) != key()


def test_the_paid_api_is_in_the_key() -> None:
    """A model of the same name may be another one there."""
    urls = (None, "https://api.one.example/v1", "https://api.two.example/v1")
    assert len({key(settings=SETTINGS.model_copy(update={"openai_base_url": url})) for url in urls}) == len(urls)
    slash = SETTINGS.model_copy(update={"openai_base_url": f"{urls[1]}/"})
    assert key(settings=slash) == key(settings=SETTINGS.model_copy(update={"openai_base_url": urls[1]}))


@pytest.mark.parametrize("change", [{"max_running": 1}, {"cache_s": 9.0}, {"kv_cache_mib": 64}], ids=str)
def test_what_changes_no_answer_is_not_in_the_key(change: dict[str, Any]) -> None:
    assert key(pool=POOL.model_copy(update=change)) == key()


@pytest.mark.parametrize(
    ("choice", "change", "is_shared"),
    [
        (None, {}, False),
        (None, {"temperature": 0.7}, False),
        (None, {"temperature": 0.0}, True),
        (None, {"temperature": 0.7, "seed": 0}, True),
        ("exact", {"temperature": 0.7}, True),
        ("never", {"temperature": 0.0, "seed": 1}, False),
    ],
)
def test_by_default_only_an_answer_that_the_request_determines_is_shared(
    choice: Any, change: dict[str, Any], is_shared: bool
) -> None:
    sampling = Sampling(16, **change)
    assert caching.is_shared(choice, sampling, POOL) == is_shared
    all_of_it = POOL.model_copy(update={"cache_sampled": True})
    assert caching.is_shared(choice, sampling, all_of_it) == (choice != "never")


@pytest.mark.parametrize(
    ("own", "of_the_pool", "keep_s"), [(None, 0.0, 0), (None, 60.0, 60), (5, 0.0, 5), (5, 60.0, 5), (0, 60.0, 0)]
)
def test_an_app_s_own_time_wins_over_the_pool_s(own: int | None, of_the_pool: float, keep_s: float) -> None:
    assert caching.keep_s(replace(APP, cache_s=own), POOL.model_copy(update={"cache_s": of_the_pool})) == keep_s


def test_the_vectors_of_an_embedding_are_determined_by_its_request() -> None:
    of_embedding = Sampling(0)
    assert caching.is_shared(None, of_embedding, POOL)
    assert not caching.is_shared("never", of_embedding, POOL)


# Which jobs the semantic cache looks up, what two that match have in common, and which entry serves a job.

CACHING = PoolSettings(model="m", cache_s=60.0, semantic_cache=SemanticCacheSettings(pool="embed"))
HOLDING = SemanticCacheSettings(pool="embed", hold_s=2.0)
SYSTEM, ASKED = Message("system", "Answer briefly."), Message("user", "How do I turn on dark mode?")
QUESTION = JobSpec(
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


def looked_up_by(pool: PoolSettings = CACHING, app: App = APP, choice: CacheChoice | None = None, **spec: Any) -> Any:
    return caching.looked_up_by(replace(QUESTION, **spec), app, pool, choice)


def test_the_pool_that_the_settings_name_looks_a_job_up() -> None:
    assert looked_up_by() == looked_up_by(choice="semantic") == "embed"
    assert looked_up_by(app=replace(APP, max_error=0.2)) == "embed"
    assert looked_up_by(max_wait_s=4.0) == "embed"


@pytest.mark.parametrize(
    "case",
    [
        {"pool": PoolSettings(model="m", cache_s=60.0)},
        {"pool": CACHING.model_copy(update={"cache_s": 0.0})},
        {"app": replace(APP, cache_s=0)},
        {"app": replace(APP, max_error=0.0)},
        {"choice": "exact"},
        {"messages": (ASKED, Message("assistant", "In the settings."))},
        {"messages": (Message("user", " \n"),)},
        {"messages": (Message("user", "a" * (MAX_CHARACTERS + 1)),)},
        {"messages": (Message("input", "How do I turn on dark mode?"),)},
        {"sampling": replace(QUESTION.sampling, n=2)},
        {"max_wait_s": 2 * caching.HELD_S},
        {"max_wait_s": 4.0, "pool": CACHING.model_copy(update={"semantic_cache": HOLDING})},
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


def scope(spec: JobSpec = QUESTION, pool: PoolSettings = CACHING, embedder: str = "minilm") -> bytes:
    return caching.scope_of(spec, pool, SETTINGS, embedder)


def test_two_jobs_that_match_differ_in_nothing_but_their_last_words() -> None:
    asked_anew = replace(QUESTION, messages=(SYSTEM, Message("user", SAME)))
    assert scope(asked_anew) == scope()
    others = {
        "app_id": new_id(),
        "model": "other",
        "pool": "other",
        "adapter": "a",
        "messages": (Message("system", "Answer at length."), ASKED),
        "sampling": replace(QUESTION.sampling, response_format={"type": "json_object"}),
    }
    for name, value in others.items():
        assert scope(replace(QUESTION, **{name: value})) != scope(), name
    assert scope(replace(QUESTION, messages=(ASKED,))) != scope()
    assert scope(replace(QUESTION, messages=(SYSTEM, ASKED, Message("assistant", "So."), ASKED))) != scope()
    for field in fields(Sampling):
        changed = replace(QUESTION.sampling, **{field.name: 2 if field.name != "stop" else ("x",)})
        assert scope(replace(QUESTION, sampling=changed)) != scope(), field.name


def test_vectors_of_two_models_are_never_compared() -> None:
    assert scope(embedder="other") != scope()
    assert scope(pool=CACHING.model_copy(update={"engine": "simulator"})) != scope()


def choose(*candidates: CachedAnswer, is_shadow: bool = False, roll: float = 0.5) -> Match | None:
    return caching.choose(ASKED.content, candidates, ReuseConditions(0.01, is_shadow), roll)


def candidate(question: str = SAME, tries: tuple[Try, ...] = (), similarity: float = 0.9) -> CachedAnswer:
    return CachedAnswer(new_id(), question, similarity, tries)


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
    assert caching.max_error_of(None, CACHING) == 0.01
    assert caching.max_error_of(0.2, CACHING) == 0.2


def test_a_job_with_tools_is_not_looked_up() -> None:
    assert looked_up_by(sampling=replace(QUESTION.sampling, tools=Tools(({"name": "f"},)))) is None
